"""What the prefix cache on disk saves: a prompt of 1,000 tokens computed, restored after a restart, still in the arena.

Run as `python -m benchmarks.disk_cache MODEL_FOLDER`, with the BLAS preloaded. Prints a line for each: seconds to the
first token, over three different prompts, and what fetching and writing a block take.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from mlx_manager.catalog import LoadOptions
from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.config import EngineConfig
from mlx_manager.engine.disk_cache import DeviceReader, DiskCache
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.probe import ModelCaches, probe_caches
from mlx_manager.engine.requests import EngineRequest
from mlx_manager.engine.runner import PagedRunner
from mlx_manager.engine.sequence import SamplingParams
from mlx_manager.hub import Inventory
from mlx_manager.models.loading import LoadedModel, load_text_model

_NUM_TOKENS = 1000
_NUM_PROMPTS = 3
_NUM_BLOCKS = 128


def main() -> None:
    """The argument: a model folder."""
    folder = Path(sys.argv[1])
    entry = Inventory(folder.parent).find(str(folder))
    loaded = load_text_model(entry, LoadOptions(), lambda stage, fraction: None)
    caches = probe_caches(loaded.model)
    prompts = [tuple(range(start, start + _NUM_TOKENS)) for start in range(1000, 1000 * (_NUM_PROMPTS + 1), 1000)]
    with tempfile.TemporaryDirectory() as disk:
        first, cache = _engine(loaded, caches, Path(disk))
        computed = [_first_token_s(first, prompt) for prompt in prompts]
        in_arena = [_first_token_s(first, prompt) for prompt in prompts]
        started_s = time.perf_counter()
        while first.spill(8):
            first.flush()
        spilled_s = time.perf_counter() - started_s
        again, cache = _engine(loaded, caches, Path(disk))
        restored = [_first_token_s(again, prompt) for prompt in prompts]
        num_restored, num_blocks = again.scheduler.num_restored_tokens, len(cache)
        size = sum(path.stat().st_size for path in Path(disk).rglob("*.safetensors"))
    sys.stdout.write(
        f"computed: {median(computed):.3f} s to the first token of {_NUM_TOKENS} (median of {_NUM_PROMPTS})\n"
        f"in the arena: {median(in_arena):.3f} s\n"
        f"restored from disk: {median(restored):.3f} s; {num_restored} tokens in all, "
        f"{1000 * (cache.fetch_s or 0):.2f} ms a block, {1000 * (cache.state_fetch_s or 0):.2f} ms a state\n"
        f"written: {num_blocks} blocks and states, {size / 1e6:.0f} MB, {1000 * spilled_s / num_blocks:.2f} ms each\n"
    )


def _engine(loaded: LoadedModel, caches: ModelCaches, folder: Path) -> tuple[Engine, DiskCache]:
    runner = PagedRunner(loaded.model, caches, _NUM_BLOCKS, DecodeAttention.GATHER_MM)
    reader = DeviceReader(runner.read_blocks if caches.bytes_per_token else None, runner.read_state)
    cache = DiskCache(folder, "measured", 8 * 1024**3, reader)
    num_checkpoints = 4 * _NUM_PROMPTS if caches.state_bytes else None
    return Engine(
        runner, EngineConfig(num_blocks=_NUM_BLOCKS, num_checkpoints=num_checkpoints), disk_cache=cache
    ), cache


def _first_token_s(engine: Engine, prompt: tuple[int, ...]) -> float:
    params = (SamplingParams(temperature=0.0),)
    started_s = time.perf_counter()
    engine.add(EngineRequest(request_id="timed", prompt_token_ids=prompt, params=params, max_output_tokens=1))
    while engine.has_work:
        engine.step()
    engine.forget("timed")
    return time.perf_counter() - started_s


if __name__ == "__main__":
    main()
