"""Where a step goes: decode beside a bare loop of the model and part by part, and what prefill costs.

    python -m benchmarks.step MODEL_FOLDER [--rounds 3] [--only decode,parts,prefill,gathering]

With the BLAS preloaded. The bare loop is the model's forward pass over mlx-lm's cache and an argmax, the next step
started before the last one's tokens are read. Writes benchmarks/results/<date>-<machine>-step.{json,md}.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import mlx.core as mx
from mlx import nn
from mlx_lm.models.cache import make_prompt_cache

from benchmarks.figures import RESULTS, Table, write_tables
from benchmarks.grammar_cost import load_model
from benchmarks.step_parts import DRAWN, GREEDY, PARTS, step_parts
from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.batch import Batch, Segment
from mlx_manager.engine.blocks import BLOCK_SIZE
from mlx_manager.engine.config import EngineConfig, Lookahead
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.probe import ModelCaches, probe_caches
from mlx_manager.engine.requests import EngineRequest
from mlx_manager.engine.runner import PagedRunner
from mlx_manager.engine.sequence import SamplingParams
from mlx_manager.models.loading import LoadedModel, is_cpu_backend

_TABLES = ("decode", "parts", "prefill", "gathering")
_ROWS = (1, 4, 8, 16)
_ROWS_IN_PARTS = (1, 8, 16)
_NUM_STEPS = 24
_NUM_FIRST = 4
"""Steps that are not counted."""
_PROMPT_TOKENS = 64
_CHUNKS = (16, 32, 64, 128, 256, 512, 1024)
_LONG_PROMPT = 1000
_CHUNKS_BESIDE = (32, 128, 512)
_NUM_RUNNING = 4
"""Answers that run while the long prompt is computed."""
_CONTEXTS = (0, 256, 512, 1024)
_CHUNK = 128
"""Tokens computed behind each context, to see what reading it back costs."""
_NUM_BLOCKS = 400


def main() -> None:
    """Measure what is asked for, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="an MLX model folder")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each, in turn (3)")
    parser.add_argument("--only", default=",".join(_TABLES), help="which tables, with commas between (all)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args()
    loaded = load_model(arguments.model)
    caches = probe_caches(loaded.model)
    wanted = arguments.only.split(",")
    tables = []
    if "decode" in wanted:
        tables.append(_decode(loaded, caches, arguments.rounds))
    if "parts" in wanted:
        tables.append(_parts(loaded, caches, arguments.rounds))
    if "prefill" in wanted:
        tables.append(_prefill(loaded, caches))
    if "gathering" in wanted:
        tables.append(_gathering(loaded, caches, arguments.rounds))
    notes = [f"{arguments.model.name}, {loaded.dtype}; medians of {arguments.rounds} rounds in turn"]
    write_tables(tables, arguments.output, "step", title="Where a step goes", notes=notes)


def _decode(loaded: LoadedModel, caches: ModelCaches, num_rounds: int) -> Table:
    rows: list[list[float | str | None]] = []
    for num_rows in _ROWS:
        # In turns, because a shared machine drifts.
        rounds = [(_bare_s(loaded.model, num_rows), _engine_s(loaded, caches, num_rows)) for _ in range(num_rounds)]
        bare, engine = (median(times) for times in zip(*rounds, strict=True))
        rows.append([num_rows, 1000 * bare, 1000 * engine, median(ours / theirs for theirs, ours in rounds)])
    return Table("A decode step beside a bare loop", ("rows", "bare loop, ms", "engine, ms", "ratio"), rows)


def _parts(loaded: LoadedModel, caches: ModelCaches, num_rounds: int) -> Table:
    columns: list[dict[str, float]] = []
    titles = []
    for sampling, name in ((GREEDY, "greedy"), (DRAWN, "drawn")):
        for num_rows in _ROWS_IN_PARTS:
            rounds = [step_parts(loaded, caches, num_rows, sampling) for _ in range(num_rounds)]
            columns.append({part: median(each[part] for each in rounds) for part in PARTS})
            titles.append(f"{num_rows} {name}, ms")
    rows: list[list[float | str | None]] = [[part, *(1000 * column[part] for column in columns)] for part in PARTS]
    return Table("A decode step part by part, in one thread", ("part", *titles), rows)


def _prefill(loaded: LoadedModel, caches: ModelCaches) -> Table:
    rows: list[list[float | str | None]] = []
    for chunk in _CHUNKS:
        total_s, longest_s = _prefill_s(loaded, caches, chunk, 1, _LONG_PROMPT)
        short_s, _ = _prefill_s(loaded, caches, chunk, 8, _PROMPT_TOKENS)
        own = [1000 * total_s / _LONG_PROMPT, 1000 * longest_s, 1000 * short_s / (8 * _PROMPT_TOKENS)]
        beside = _beside_running(loaded, caches, chunk) if chunk in _CHUNKS_BESIDE else [None] * 4
        rows.append([chunk, *own, *beside])
    titles = (
        *("tokens a step", f"one prompt of {_LONG_PROMPT}, ms a token", "its longest step, ms"),
        f"prompts of {_PROMPT_TOKENS}, ms a token",
        *(f"beside {_NUM_RUNNING} answers: ms a token", "a step of theirs before, ms"),
        *("a step meanwhile (median), ms", "the longest, ms"),
    )
    return Table("Prefill by the size of its chunks, alone and, paced, beside running answers", titles, rows)


def _gathering(loaded: LoadedModel, caches: ModelCaches, num_rounds: int) -> Table:
    rows: list[list[float | str | None]] = []
    for context in _CONTEXTS:
        rounds = [_chunk_behind_s(loaded, caches, context) for _ in range(num_rounds)]
        whole, gathering = (median(times) for times in zip(*rounds, strict=True))
        rows.append([context, 1000 * whole, 1000 * gathering, gathering / whole])
    titles = ("tokens before", "step, ms", "of it gathering keys and values, ms", "share")
    return Table(f"Reading back what was computed before: a step of {_CHUNK} tokens of a prompt", titles, rows)


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


def _engine_s(loaded: LoadedModel, caches: ModelCaches, rows: int) -> float:
    engine = _engine(loaded, caches, 4096, Lookahead.OVERLAP if is_cpu_backend() else Lookahead.LAUNCH)
    for index in range(rows):
        _add(engine, str(index), _PROMPT_TOKENS, _NUM_STEPS + 2)
    engine.step()
    return median(_all_steps_s(engine)[_NUM_FIRST:])


def _prefill_s(
    loaded: LoadedModel, caches: ModelCaches, chunk: int, num_prompts: int, num_tokens: int
) -> tuple[float, float]:
    """Seconds for all prompts, and for the longest step; best of two."""
    found = []
    for _ in range(2):
        engine = _engine(loaded, caches, chunk, Lookahead.NONE)
        for index in range(num_prompts):
            _add(engine, str(index), num_tokens, 1)
        steps_s = _all_steps_s(engine)
        found.append((sum(steps_s), max(steps_s)))
    return min(found)


def _beside_running(loaded: LoadedModel, caches: ModelCaches, chunk: int) -> list[float]:
    """Milliseconds a token of a long prompt beside running answers, and of their steps before and meanwhile."""
    engine = _engine(loaded, caches, chunk, Lookahead.OVERLAP if is_cpu_backend() else Lookahead.LAUNCH)
    for index in range(_NUM_RUNNING):
        _add(engine, str(index), _PROMPT_TOKENS, 10 * _PROMPT_TOKENS)
    while engine.is_prefilling:
        engine.step()
    before_s = [_step_s(engine) for _ in range(_NUM_STEPS)][_NUM_FIRST:]
    _add(engine, "long", _LONG_PROMPT, 1)
    meanwhile_s = _steps_s(engine, lambda: engine.is_prefilling)
    per_token = sum(meanwhile_s) / _LONG_PROMPT
    return [1000 * each for each in (per_token, median(before_s), median(meanwhile_s), max(meanwhile_s))]


def _chunk_behind_s(loaded: LoadedModel, caches: ModelCaches, context: int) -> tuple[float, float]:
    """Seconds of a step of a prompt that has `context` tokens before it, and of gathering what such a step reads.

    Nothing is gathered where nothing is before it.
    """
    runner = PagedRunner(loaded.model, caches, _NUM_BLOCKS, DecodeAttention.GATHER_MM)
    table = tuple(range((context + _CHUNK) // BLOCK_SIZE))
    tokens: list[int] = mx.random.randint(0, 20_000, (context + _CHUNK,)).tolist()  # type: ignore[assignment]
    times_s = []
    for start, end in ((0, context), (context, context + _CHUNK), (context, context + _CHUNK)):
        if start == end:
            continue
        segment = Segment(0, start, tuple(tokens[start:end]), None, table)
        batch = Batch((segment,), (), (), (), (), (), (), (), num_blocks=len(table))
        started_s = time.perf_counter()
        mx.eval(runner.logits(batch), *runner.arrays())
        times_s.append(time.perf_counter() - started_s)
    if not context:
        return times_s[-1], 0.0
    arena, read = runner.attention.arena, mx.array([table])
    started_s = time.perf_counter()
    mx.eval([plane.gathered(read) for plane in (*arena.keys, *arena.values)])
    return times_s[-1], time.perf_counter() - started_s


def _all_steps_s(engine: Engine) -> list[float]:
    return _steps_s(engine, lambda: engine.has_work)


def _steps_s(engine: Engine, goes_on: Callable[[], bool]) -> list[float]:
    steps_s = []
    while goes_on():
        steps_s.append(_step_s(engine))
    return steps_s


def _step_s(engine: Engine) -> float:
    started_s = time.perf_counter()
    engine.step()
    return time.perf_counter() - started_s


def _engine(loaded: LoadedModel, caches: ModelCaches, max_step_tokens: int, lookahead: Lookahead) -> Engine:
    runner = PagedRunner(loaded.model, caches, _NUM_BLOCKS, DecodeAttention.GATHER_MM)
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
