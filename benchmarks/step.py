"""Where a step goes: decode beside a bare loop of the model, and what prefill costs by the size of its chunks.

Run as `python -m benchmarks.step MODEL_FOLDER`, with the BLAS preloaded; prints two tables. The bare loop is the
model's forward pass over mlx-lm's cache and an argmax, the next step started before the last one's tokens are read.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median

import mlx.core as mx
from mlx import nn
from mlx_lm.models.cache import make_prompt_cache

from mlx_manager.catalog import LoadOptions
from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.config import EngineConfig, Lookahead
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.probe import ModelCaches, probe_caches
from mlx_manager.engine.requests import EngineRequest
from mlx_manager.engine.runner import PagedRunner
from mlx_manager.engine.sequence import SamplingParams
from mlx_manager.hub import Inventory
from mlx_manager.models.loading import is_cpu_backend, load_text_model

_ROWS = (1, 4, 8, 16)
_NUM_STEPS = 24
_NUM_FIRST = 4
"""Steps that are not counted."""
_PROMPT_TOKENS = 64
_NUM_ROUNDS = 3
_CHUNKS = (16, 32, 64, 128, 256, 512, 1024)
_LONG_PROMPT = 1000
_NUM_BLOCKS = 400


def main() -> None:
    """The argument: a model folder."""
    folder = Path(sys.argv[1])
    entry = Inventory(folder.parent).find(str(folder))
    model = load_text_model(entry, LoadOptions(), lambda stage, fraction: None).model
    caches = probe_caches(model)
    sys.stdout.write("| rows | bare loop | engine | ratio |\n| --: | --: | --: | --: |\n")
    for rows in _ROWS:
        # In turns, because a shared machine drifts.
        rounds = [(_bare_s(model, rows), _engine_s(model, caches, rows)) for _ in range(_NUM_ROUNDS)]
        bare, engine = (median(times) for times in zip(*rounds, strict=True))
        ratio = median(ours / theirs for theirs, ours in rounds)
        sys.stdout.write(f"| {rows} | {1000 * bare:.1f} ms | {1000 * engine:.1f} ms | {ratio:.3f} |\n")
        sys.stdout.flush()
    sys.stdout.write(
        f"\n| chunk | one prompt of {_LONG_PROMPT} | longest step | prompts of 64 |\n| --: | --: | --: | --: |\n"
    )
    for chunk in _CHUNKS:
        total_s, longest_s = _prefill_s(model, caches, chunk, 1, _LONG_PROMPT)
        short_s, _ = _prefill_s(model, caches, chunk, 8, 64)
        per_token, per_short = 1000 * total_s / _LONG_PROMPT, 1000 * short_s / 512
        sys.stdout.write(
            f"| {chunk} | {per_token:.2f} ms a token | {1000 * longest_s:.0f} ms | {per_short:.2f} ms a token |\n"
        )
        sys.stdout.flush()


def _bare_s(model: nn.Module, rows: int) -> float:
    cache = make_prompt_cache(model)
    prompt = mx.random.randint(0, 20_000, (rows, _PROMPT_TOKENS))
    tokens = mx.argmax(model(prompt, cache=cache)[:, -1], axis=-1)
    mx.async_eval(tokens)
    times_s = []
    started_s = time.perf_counter()
    for _ in range(_NUM_STEPS):
        following = mx.argmax(model(tokens[:, None], cache=cache)[:, -1], axis=-1)
        mx.async_eval(following)
        tokens.tolist()
        tokens = following
        now_s = time.perf_counter()
        times_s.append(now_s - started_s)
        started_s = now_s
    return median(times_s[_NUM_FIRST:])


def _engine_s(model: nn.Module, caches: ModelCaches, rows: int) -> float:
    engine = _engine(model, caches, 4096, Lookahead.OVERLAP if is_cpu_backend() else Lookahead.LAUNCH)
    for index in range(rows):
        _add(engine, str(index), _PROMPT_TOKENS, _NUM_STEPS + 2)
    engine.step()
    times_s = []
    started_s = time.perf_counter()
    while engine.has_work:
        engine.step()
        now_s = time.perf_counter()
        times_s.append(now_s - started_s)
        started_s = now_s
    return median(times_s[_NUM_FIRST:])


def _prefill_s(
    model: nn.Module, caches: ModelCaches, chunk: int, num_prompts: int, num_tokens: int
) -> tuple[float, float]:
    """Seconds for all prompts, and for the longest step; best of two."""
    found = []
    for _ in range(2):
        engine = _engine(model, caches, chunk, Lookahead.NONE)
        for index in range(num_prompts):
            _add(engine, str(index), num_tokens, 1)
        steps_s = []
        while engine.has_work:
            started_s = time.perf_counter()
            engine.step()
            steps_s.append(time.perf_counter() - started_s)
        found.append((sum(steps_s), max(steps_s)))
    return min(found)


def _engine(model: nn.Module, caches: ModelCaches, max_step_tokens: int, lookahead: Lookahead) -> Engine:
    runner = PagedRunner(model, caches, _NUM_BLOCKS, DecodeAttention.GATHER_MM)
    config = EngineConfig(num_blocks=_NUM_BLOCKS, max_step_tokens=max_step_tokens, lookahead=lookahead)
    return Engine(runner, config)


def _add(engine: Engine, name: str, num_tokens: int, num_output_tokens: int) -> None:
    prompt: list[int] = mx.random.randint(0, 20_000, (num_tokens,)).tolist()  # type: ignore[assignment]
    params = (SamplingParams(temperature=0.0),)
    engine.add(
        EngineRequest(
            request_id=name, prompt_token_ids=tuple(prompt), params=params, max_output_tokens=num_output_tokens
        )
    )


if __name__ == "__main__":
    main()
