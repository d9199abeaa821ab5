"""A fault planted in the paged path is found at load, and the model is served honestly without it.

A fault of the moment is none of the model's: it is not kept.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import mlx.core as mx
import pytest

from mlx_manager.app import Parts
from mlx_manager.backends.local import LocalBackend
from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.catalog.settings import Settings, load_settings
from mlx_manager.cli.checks import run_checks
from mlx_manager.engine.batch import Batch
from mlx_manager.engine.runner import PagedRunner
from mlx_manager.errors import ModelLoadFailed
from mlx_manager.hub import STARTER_NAME, Inventory
from mlx_manager.observability.checks import Finding
from mlx_manager.pool import ModelPool
from mlx_manager.worker.load import load
from tests.http.scripted_server import running_app
from tests.worker.leaky_worker import LeakyRunner
from tests.worker.test_half_precision import write_tiny_llama

LEAKY_WORKER = (sys.executable, "-m", "tests.worker.leaky_worker")
QUESTION = {
    "model": STARTER_NAME,
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
    "max_tokens": 8,
}


@contextmanager
def leaky_server(home: Path) -> Iterator[tuple[httpx.Client, int]]:
    """The real app over a pool whose workers leak, and its port."""

    @asynccontextmanager
    async def parts(_: Settings) -> AsyncIterator[Parts]:
        options = LoadOptions(kv_budget_bytes=64 * 1024**2, state_folder=str(home / "state"))
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

    settings = load_settings({"MLX_MANAGER_HOME": str(home)}, {})
    with (
        running_app(settings, parts) as (port, _),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=180) as client,
    ):
        yield client, port


def test_a_leak_between_rows_puts_the_model_on_the_fallback_path(starter_home: Path, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(starter_home / "models")
    with leaky_server(tmp_path) as (client, port):
        answer = client.post("/v1/chat/completions", json=QUESTION).json()
        models = client.get("/v1/models").json()["data"]
        finding = doctor(tmp_path, port)
    (model,) = [model for model in models if model["id"] == QUESTION["model"]]
    assert model["serving"]["path"] == "sequential"
    assert "differ from the library's" in model["serving"]["reason"]
    # The fault is in the path that is not used: the answer is right.
    assert "Paris" in answer["choices"][0]["message"]["content"]
    (verdict,) = (tmp_path / "state" / "verdicts").glob("*.json")
    assert json.loads(verdict.read_text())["is_paged"] is False
    assert (finding.state, finding.fix) == ("warning", "This model runs without batching; the reason is above.")
    assert f"{STARTER_NAME}: sequential" in finding.text
    assert "differ from the library's" in finding.text


def doctor(home: Path, port: int) -> Finding:
    """What `mlx-manager doctor` says of how the model is served."""
    found = run_checks({"MLX_MANAGER_HOME": str(home), "MLX_MANAGER_PORT": str(port)}, {})
    (finding,) = [finding for finding in found if finding.model == STARTER_NAME]
    return finding


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_does_not_hide_it(starter_folder: Path, tmp_path: Path, dtype: str) -> None:
    options = LoadOptions(dtype=dtype, kv_budget_bytes=8 * 1024**2)
    entry = tiny_llama(starter_folder, tmp_path)
    leaking = load(entry, options, unreported, paged_runner=LeakyRunner)[1]
    assert leaking.path == "sequential"
    assert "differ from the library's" in leaking.reason


class FailingRunner(PagedRunner):
    """A pass that fails, for a reason of the moment."""

    reason = "a device went away"

    def logits(
        self,
        batch: Batch,
        previous_tokens: mx.array | None = None,
        *,
        wanted: Sequence[tuple[int, int]] | None = None,
    ) -> mx.array:
        raise RuntimeError(self.reason)


class OutOfMemoryRunner(FailingRunner):
    """A machine that another program has filled just now."""

    reason = "[malloc_or_wait] Unable to allocate 1234 bytes."


def test_a_fault_of_the_moment_is_not_kept(starter_folder: Path, tmp_path: Path) -> None:
    entry = tiny_llama(starter_folder, tmp_path)
    options = LoadOptions(kv_budget_bytes=8 * 1024**2, state_folder=str(tmp_path / "state"))
    with pytest.raises(ModelLoadFailed, match=r"not enough memory to check .* Unable to allocate 1234 bytes"):
        load(entry, options, unreported, paged_runner=OutOfMemoryRunner)
    failed = load(entry, options, unreported, paged_runner=FailingRunner)[1]
    assert (failed.path, "a device went away" in failed.reason) == ("sequential", True)
    assert load(entry, options, unreported)[1].path == "paged"


def unreported(stage: str, fraction: float) -> None:
    """Nobody watches."""


def tiny_llama(starter_folder: Path, home: Path) -> ModelEntry:
    """A random model of two layers."""
    write_tiny_llama(home / "models" / "tiny", starter_folder)
    (entry,) = Inventory(home).entries()
    return entry
