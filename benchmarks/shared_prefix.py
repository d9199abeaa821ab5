"""What a decode step costs when running rows share a long beginning, read once for all of them and by each row alone.

    python -m benchmarks.shared_prefix MODEL_FOLDER [--rows 16] [--prefix 2000] [--steps 24]

Both ways are stepped in turn in one process, on the same engine; their medians and ratio go to
benchmarks/results/<date>-<machine>-shared-prefix.{json,md}.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from benchmarks.figures import RESULTS, Table, write_tables
from benchmarks.grammar_cost import load_model
from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.config import EngineConfig
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.plan import MIN_SHARED_BLOCKS
from mlx_manager.engine.probe import probe_caches
from mlx_manager.engine.requests import EngineRequest
from mlx_manager.engine.runner import PagedRunner
from mlx_manager.engine.sequence import SamplingParams
from mlx_manager.models.loading import LoadedModel


def measure(loaded: LoadedModel, num_rows: int, num_prefix_tokens: int, num_steps: int) -> dict[str, float]:
    """Median seconds of a step, by how the beginning is read."""
    num_blocks = num_prefix_tokens // 32 + 4 * num_rows + 16
    runner = PagedRunner(loaded.model, probe_caches(loaded.model), num_blocks, DecodeAttention.GATHER_MM)
    engine = Engine(runner, EngineConfig(num_blocks=num_blocks))
    text = "The harbour was quiet, and nobody had come down to the boats before the bell rang twice. " * 200
    prefix = loaded.tokenizer.encode(text)[:num_prefix_tokens]
    for row in range(num_rows):
        engine.add(
            EngineRequest(
                request_id=f"row {row}",
                prompt_token_ids=(*prefix, *loaded.tokenizer.encode(f" Question {row}: why?")),
                params=(SamplingParams(temperature=0.0),),
                max_output_tokens=4 * num_steps + 64,
            )
        )
    while len(engine.scheduler.running) < num_rows or any(seq.is_prefilling for seq in engine.scheduler.running):
        engine.step()
    times_s: dict[str, list[float]] = {"each row alone": [], "once for all": []}
    for step in range(2 * num_steps):
        name = ("each row alone", "once for all")[step % 2]
        runner.attention.min_shared_blocks = MIN_SHARED_BLOCKS if name == "once for all" else None
        started_s = time.perf_counter()
        engine.step()
        times_s[name].append(time.perf_counter() - started_s)
    return {name: statistics.median(each) for name, each in times_s.items()}


def main() -> None:
    """Measure and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="an MLX model folder")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--prefix", type=int, default=2000, help="tokens that all rows begin with (2000)")
    parser.add_argument("--steps", type=int, default=24, help="steps each way (24)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args()
    loaded = load_model(arguments.model)
    step_s = measure(loaded, arguments.rows, arguments.prefix, arguments.steps)
    alone_s, once_s = step_s["each row alone"], step_s["once for all"]
    rows: list[list[float | str | None]] = [
        [name, 1000 * seconds, alone_s / seconds] for name, seconds in step_s.items()
    ]
    write_tables(
        [Table("How the beginning is read", ("how", "step, ms", "times as fast"), rows)],
        arguments.output,
        "shared-prefix",
        title=f"A beginning that {arguments.rows} rows share",
        notes=[
            f"{arguments.model.name}, {loaded.dtype}; {arguments.prefix} tokens in common, medians of "
            f"{arguments.steps} steps each way, in turn on one engine: {alone_s / once_s:.2f} times as fast",
            "on by default (`shared_prefix_decode = auto`) where the check at load found it faster",
        ],
    )


if __name__ == "__main__":
    main()
