"""A pool of real worker processes that count instead of generating, over two model folders: counter and other."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from mlx_manager.backends.local import LocalBackend
from mlx_manager.catalog import LoadOptions, MemoryAmount, ModelEntry
from mlx_manager.hub import Footprint
from mlx_manager.ir import GenerationRequest, TextPrompt, fold
from mlx_manager.pool import ModelPool, ModelStatus, PoolOptions

MODEL_BYTES = 100 * 1024**2
KV_BYTES = 16 * 1024**2
PROTOCOL_WORKER = (sys.executable, str(Path(__file__).parent / "protocol_worker.py"))


@asynccontextmanager
async def counting_pool(
    folder: Path,
    *,
    default_model: str | None = None,
    use_spare: bool = False,
    spare_delay_s: float = 0.0,
    command: tuple[str, ...] = PROTOCOL_WORKER,
    names: Sequence[str] = ("counter", "other"),
    has_caches: bool = False,
    **options: Any,
) -> AsyncIterator[ModelPool]:
    """A started pool over model folders made in `folder`; closed on leaving. `options` are those of `PoolOptions`.

    Every model is predicted to take `MODEL_BYTES`; a file `weighs` in its folder says otherwise. With `has_caches` it
    takes `KV_BYTES` beside that, and gives them back in a trim.
    """
    entries = [_model_folder(folder, name, has_caches=has_caches) for name in names]
    pool = ModelPool(
        lambda: entries,
        default_model=default_model,
        options=LoadOptions(kv_budget_bytes=KV_BYTES),
        pool_options=PoolOptions(**{"predict": _predict, "backoff_s": 0.0, "measure": lambda pid: 0, **options}),
        use_spare=use_spare,
        spare_delay_s=spare_delay_s,
        command=command,
    )
    try:
        await pool.start()
        yield pool
    finally:
        await pool.close()


async def answer(pool: ModelPool, request_id: str, prompt: str, model: str = "counter") -> str:
    """The whole text that answers `prompt`."""
    async with aclosing(LocalBackend(pool).generate(request(request_id, prompt, model))) as events:
        answered = await fold(events, 1)
    return answered.choices[0].parts[0].text


def request(request_id: str, prompt: str, model: str = "counter") -> GenerationRequest:
    """A request as the protocol worker reads it."""
    return GenerationRequest(request_id=request_id, model=model, prompt=TextPrompt(text=prompt))


def status_of(pool: ModelPool, name: str = "counter") -> ModelStatus:
    """The status of one model."""
    return next(status for status in pool.statuses() if status.entry.name == name)


def num_running(pool: ModelPool) -> int:
    """Requests that the model counter works on, as its worker said last."""
    stats = status_of(pool).stats
    return stats.num_running if stats else 0


def num_aborted(pool: ModelPool) -> int:
    """Requests that the worker of counter has dropped on request."""
    stats = status_of(pool).stats
    return stats.num_aborted_requests if stats else 0


def num_loads(folder: Path, name: str = "counter") -> int:
    """How many workers have begun to load a model, in the whole test."""
    return len(list((folder / name).glob("load-*")))


def num_trims(folder: Path, name: str = "counter") -> int:
    """How many trims the workers of a model were asked for, in the whole test."""
    trims = folder / name / "trims"
    return len(trims.read_text().splitlines()) if trims.exists() else 0


def set_mode(folder: Path, mode: str, name: str = "counter") -> None:
    """Say how loads of a model go from now on."""
    (folder / name / "mode").write_text(mode)


async def wait_for(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Return once `condition` holds. Raises `TimeoutError`."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is waited for lives in other processes
            await asyncio.sleep(0.01)


def workers_of(gateway: psutil.Process) -> list[psutil.Process]:
    """Worker processes that `gateway` has started itself and that run now; other children are none of the pool's."""
    running = [child for child in gateway.children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in running if "--socket" in child.cmdline()]


def budget_for(num_models: int) -> MemoryAmount:
    """A memory budget that so many models fit into."""
    return MemoryAmount(num_bytes=num_models * MODEL_BYTES)


def _predict(entry: ModelEntry, options: LoadOptions) -> Footprint:
    weighs = Path(entry.path) / "weighs"
    num_bytes = int(weighs.read_text()) if weighs.exists() else MODEL_BYTES
    return Footprint(
        weights_bytes=0,
        kv_bytes_per_token=1024 if (Path(entry.path) / "caches").exists() else 0,
        sliding_bytes_per_token=0,
        window_tokens=None,
        state_bytes_per_sequence=0,
        checkpoint_share=0.0,
        activation_bytes=0,
        activation_bytes_per_context_token=0,
        process_bytes=num_bytes,
        max_context=100,
        dtype="float32",
        is_known=True,
    )


def _model_folder(parent: Path, name: str, *, has_caches: bool) -> ModelEntry:
    folder = parent / name
    folder.mkdir()
    if has_caches:
        (folder / "caches").touch()
    (folder / "mode").write_text("good")
    return ModelEntry(
        name=name,
        path=str(folder),
        created_unix_s=0,
        size_bytes=0,
        architecture="none",
        quantization="none",
        max_context=None,
    )
