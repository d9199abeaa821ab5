"""A fault planted in the paged path is found at load, and the model is served honestly without it."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx

from mlx_manager.app import Parts
from mlx_manager.backends.local import LocalBackend
from mlx_manager.catalog import LoadOptions
from mlx_manager.catalog.settings import Settings, load_settings
from mlx_manager.hub import STARTER_NAME, Inventory
from mlx_manager.pool import ModelPool
from tests.http.scripted_server import running_app

LEAKY_WORKER = (sys.executable, "-m", "tests.worker.leaky_worker")
QUESTION = {
    "model": STARTER_NAME,
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
    "max_tokens": 8,
}


@contextmanager
def leaky_server(home: Path, state_folder: Path) -> Iterator[httpx.Client]:
    """The real app over a pool whose workers leak."""

    @asynccontextmanager
    async def parts(_: Settings) -> AsyncIterator[Parts]:
        options = LoadOptions(kv_budget_bytes=64 * 1024**2, state_folder=str(state_folder))
        pool = ModelPool(
            Inventory(home).entries,
            default_model=STARTER_NAME,
            options=options,
            use_spare=False,
            command=LEAKY_WORKER,
        )
        await pool.start()
        try:
            yield Parts(backends=(LocalBackend(pool),), models=pool)
        finally:
            await pool.close()

    settings = load_settings({"MLX_MANAGER_HOME": str(state_folder)}, {})
    with (
        running_app(settings, parts) as (port, _),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=180) as client,
    ):
        yield client


def test_a_leak_between_rows_puts_the_model_on_the_fallback_path(starter_home: Path, tmp_path: Path) -> None:
    with leaky_server(starter_home, tmp_path) as client:
        answer = client.post("/v1/chat/completions", json=QUESTION).json()
        models = client.get("/v1/models").json()["data"]
    (model,) = [model for model in models if model["id"] == QUESTION["model"]]
    assert model["serving"]["path"] == "sequential"
    assert "differ from the library's" in model["serving"]["reason"]
    # The fault is in the path that is not used: the answer is right.
    assert "Paris" in answer["choices"][0]["message"]["content"]
    (verdict,) = (tmp_path / "verdicts").glob("*.json")
    assert json.loads(verdict.read_text())["is_paged"] is False
