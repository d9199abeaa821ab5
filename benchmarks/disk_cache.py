"""What the prefix cache on disk saves: a prompt of 1,000 tokens computed, restored after a restart, still in the arena.

Run as `python -m benchmarks.disk_cache MODEL_FOLDER`, with the BLAS preloaded: seconds to the first token, over three
different prompts, and what fetching and writing a block take. Writes
benchmarks/results/<date>-<machine>-disk-cache.{json,md}.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.figures import RESULTS, Figure, write_figures
from benchmarks.grammar_cost import load_model
from benchmarks.machine import describe_head
from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.config import EngineConfig
from mlx_manager.engine.disk_cache import DeviceReader, DiskCache
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.probe import ModelCaches, probe_caches
from mlx_manager.engine.requests import EngineRequest
from mlx_manager.engine.runner import PagedRunner
from mlx_manager.engine.sequence import SamplingParams
from mlx_manager.models.loading import LoadedModel

_NUM_TOKENS = 1000
_NUM_PROMPTS = 3
_NUM_BLOCKS = 128


def main() -> None:
    """Measure and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="an MLX model folder")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args()
    loaded = load_model(arguments.model)
    with tempfile.TemporaryDirectory() as disk:
        figures = _measure(loaded, Path(disk))
    notes = [
        f"{arguments.model.name}, {loaded.dtype}; {_NUM_PROMPTS} prompts of {_NUM_TOKENS} tokens, medians",
        "restored: by another engine over the same folder, as after a restart; the system's cache of files is warm",
    ]
    write_figures(figures, arguments.output, "disk-cache", title="Prefixes on disk", head=describe_head(), notes=notes)


def _measure(loaded: LoadedModel, disk: Path) -> list[Figure]:
    caches = probe_caches(loaded.model)
    prompts = [tuple(range(start, start + _NUM_TOKENS)) for start in range(1000, 1000 * (_NUM_PROMPTS + 1), 1000)]
    first, _ = _engine(loaded, caches, disk)
    computed = [_first_token_s(first, prompt) for prompt in prompts]
    in_arena = [_first_token_s(first, prompt) for prompt in prompts]
    started_s = time.perf_counter()
    while first.spill(8):
        first.flush()
    spilled_s = time.perf_counter() - started_s
    again, cache = _engine(loaded, caches, disk)
    restored = [_first_token_s(again, prompt) for prompt in prompts]
    num_files = len(cache)
    size = sum(path.stat().st_size for path in disk.rglob("*.safetensors"))
    return [
        Figure("first token, computed", median(computed), "s"),
        Figure("first token, restored from disk", median(restored), "s"),
        Figure("first token, still in the arena", median(in_arena), "s"),
        Figure("restored, of computed", median(restored) / median(computed), ""),
        Figure("tokens restored in all", again.scheduler.num_restored_tokens, ""),
        Figure("to fetch a block", 1000 * (cache.fetch_s or 0), "ms"),
        Figure("to fetch a state", 1000 * (cache.state_fetch_s or 0), "ms"),
        Figure("to read and write a block or state", 1000 * spilled_s / num_files, "ms"),
        Figure("blocks and states written", num_files, ""),
        Figure("size of a file", size / num_files / 1e6, "MB"),
    ]


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
