"""The starter model is made once, and the hash it is fetched by is the one the Makefile installs by."""

from __future__ import annotations

from pathlib import Path

from mlx_manager.hub import STARTER_NAME, ensure_starter, starter


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


def test_the_hash_is_the_one_of_the_requirements_file() -> None:
    lines = (Path(__file__).parents[2] / "requirements-starter.txt").read_text().splitlines()
    requirement = " ".join(line.strip(" \\") for line in lines if not line.startswith("#"))
    assert requirement.strip() == starter.REQUIREMENT
