"""What a grammar's masks cost per token, beside a step without any. Run by hand:

    python -m benchmarks.grammar_cost MODEL_FOLDER [--rows 8] [--steps 60] [--rounds 3]

Every row follows a JSON Schema that never ends (an array of records); times are of the decode steps alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import describe_run
from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.config import EngineConfig
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.grammar import Constraint
from mlx_manager.engine.probe import probe_caches
from mlx_manager.engine.requests import EngineRequest
from mlx_manager.engine.runner import PagedRunner
from mlx_manager.engine.sequence import SamplingParams
from mlx_manager.ir import Grammar, GrammarKind
from mlx_manager.models.grammars import GrammarCompiler
from mlx_manager.models.loading import LoadedModel, load_text_model

_RECORD = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 3, "maxLength": 30},
        "born": {"type": "string", "format": "date"},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 2, "maxItems": 5},
        "score": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 1000}, {"type": "null"}]},
    },
    "required": ["name", "born", "tags", "score"],
    "additionalProperties": False,
}
_SCHEMA = {"type": "array", "items": _RECORD, "minItems": 1000}


def load_model(folder: Path) -> LoadedModel:
    """The text model in `folder`, as a worker loads it."""
    entry = ModelEntry(
        name=folder.name,
        path=str(folder),
        created_unix_s=0,
        size_bytes=0,
        architecture="",
        quantization="",
        max_context=None,
    )
    return load_text_model(entry, LoadOptions(), lambda stage, fraction: None)


@dataclass(frozen=True)
class _Steps:
    """Decode steps of some rows, and what their masks took."""

    times_s: list[float]
    num_masks: int
    compute_s: float
    wait_s: float


def _decode(engine: Engine, loaded: LoadedModel, rows: int, steps: int, constraint: Constraint | None) -> _Steps:
    """Decode steps of `rows` requests."""
    for row in range(rows):
        engine.add(
            EngineRequest(
                request_id=f"row {row}",
                prompt_token_ids=tuple(loaded.tokenizer.encode(f"Records of {row + 2} people, in JSON:")),
                params=(SamplingParams(temperature=0.8, seed=row),),
                max_output_tokens=steps + 8,
            ),
            constraint,
        )
    while any(seq.num_output_tokens < 2 for seq in engine.scheduler.running) or len(engine.scheduler.running) < rows:
        engine.step()
    counters = engine.grammars.counters
    before = (counters.num_masks, counters.compute_s, counters.wait_s)
    times_s = []
    for _ in range(steps):
        started_s = time.perf_counter()
        engine.step()
        times_s.append(time.perf_counter() - started_s)
    for row in range(rows):
        engine.forget(f"row {row}", is_aborted=True)
    return _Steps(times_s, counters.num_masks - before[0], counters.compute_s - before[1], counters.wait_s - before[2])


def main() -> None:
    """Measure and print, with and without a grammar in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    loaded = load_model(arguments.folder)
    runner = PagedRunner(loaded.model, probe_caches(loaded.model), 256, DecodeAttention.GATHER_MM)
    engine = Engine(runner, EngineConfig(num_blocks=256))
    compiler = GrammarCompiler(loaded.tokenizer, loaded.vocabulary_size, loaded.eos_token_ids)
    grammar = Grammar(kind=GrammarKind.JSON_SCHEMA, param="schema", text=json.dumps(_SCHEMA))
    compile_s = []
    for _ in range(2):
        started_s = time.perf_counter()
        constraint = compiler.start(grammar).result()
        compile_s.append(time.perf_counter() - started_s)
    free, held = [], []
    for _ in range(arguments.rounds):
        free.append(_decode(engine, loaded, arguments.rows, arguments.steps, None))
        held.append(_decode(engine, loaded, arguments.rows, arguments.steps, constraint))
    num_masks = sum(each.num_masks for each in held)
    figures = {
        "rows": arguments.rows,
        "steps": arguments.rounds * arguments.steps,
        "step_s": {
            name: statistics.median(seconds for each in found for seconds in each.times_s)
            for name, found in (("without a grammar", free), ("with one", held))
        },
        "mask_compute_s_per_token": sum(each.compute_s for each in held) / num_masks,
        "mask_wait_s_per_token": sum(each.wait_s for each in held) / num_masks,
        "first_compile_s": compile_s[0],
        "second_compile_s": compile_s[1],
        **describe_run(),
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
