"""What tracing costs a busy server: tokens per second with traces kept and without, over a real worker.

    python -m benchmarks.tracing_load [--rounds 8] [--clients 4] [--tokens 64] [--tiny]

Two servers live all the while, one with traces and one without, and are asked in turn, each round in the other order
than the one before: while one is asked the other idles. What counts is the median of the ratios within the rounds,
written to benchmarks/results/<date>-<machine>-tracing.{json,md}. `--tiny` takes a model of two layers, whose answers
cost so little that what is around them shows most.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import httpx

from benchmarks.figures import RESULTS, Table, write_tables
from benchmarks.folders import import_starter, make_tiny_folder
from benchmarks.servers import RIVALS, end_in_order, running
from mlx_manager.bench import Prose, Target
from mlx_manager.bench.client import stream_chat
from mlx_manager.hub.starter import find_installed_gguf

_OURS = next(rival for rival in RIVALS if rival.name == "ours")
_PROMPT_WORDS = 60
_WAYS = ("without traces", "with traces")


async def _tokens_per_s(target: Target, client: httpx.AsyncClient, prompts: Sequence[str], num_tokens: int) -> float:
    """Of as many requests at once as there are prompts."""
    started_s = time.perf_counter()
    asked = [
        stream_chat(client, target.model, [{"role": "user", "content": prompt}], max_tokens=num_tokens)
        for prompt in prompts
    ]
    records = await asyncio.gather(*asked)
    took_s = time.perf_counter() - started_s
    errors = [record.error for record in records if record.error]
    if errors:
        sys.exit(f"a request failed: {errors[0]}")
    return sum(record.usage_completion_tokens or 0 for record in records) / took_s


async def _measure(targets: Sequence[Target], options: argparse.Namespace) -> dict[str, list[float]]:
    """Tokens per second of each round, by way; the first round, which compiles and connects, is left out."""
    prose = Prose(1)
    reached: dict[str, list[float]] = {way: [] for way in _WAYS}
    async with targets[0].open() as plain, targets[1].open() as traced:
        asked = [*zip(_WAYS, targets, (plain, traced), strict=True)]
        for index in range(options.rounds + 1):
            prompts = [prose.story_request(_PROMPT_WORDS) for _ in range(options.clients)]
            for way, target, client in asked if index % 2 else reversed(asked):
                tokens_per_s = await _tokens_per_s(target, client, prompts, options.tokens)
                if index:
                    reached[way].append(tokens_per_s)
    return reached


def _spread(values: Sequence[float]) -> list[float]:
    return [round(value, 2) for value in (median(values), min(values), max(values))]


def main() -> None:
    """Measure and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--clients", type=int, default=4, help="requests at once")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--tiny", action="store_true", help="a model of two layers instead of the starter model")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    options = parser.parse_args()
    end_in_order()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = import_starter(folder, find_installed_gguf())
        if options.tiny:
            model = make_tiny_folder(model, folder)
        homes = [folder / way.replace(" ", "-") for way in _WAYS]
        for home in homes:
            home.mkdir()
        with (
            running(_OURS, model, homes[0], None, ("--no-traces",)) as plain,
            running(_OURS, model, homes[1], None, ("--traces",)) as traced,
        ):
            targets = [Target(url, model.name) for url in (plain, traced)]
            reached = asyncio.run(_measure(targets, options))
    ratios = [traced / plain for plain, traced in zip(*(reached[way] for way in _WAYS), strict=True)]
    rows: list[list[float | str | None]] = [[way, *_spread(each)] for way, each in reached.items()]
    lost = Table(
        "What tracing takes of the tokens per second",
        ("", "median of the rounds", "least", "most"),
        [["lost, %", *_spread([100 * (1 - ratio) for ratio in ratios])]],
    )
    write_tables(
        [Table("Tokens per second of all clients", ("", "median", "least", "most"), rows), lost],
        options.output,
        "tracing-tiny" if options.tiny else "tracing",
        title="What tracing costs a busy server",
        notes=[
            f"{options.rounds} rounds, {options.clients} requests at once, {options.tokens} tokens each",
            "MLX's CPU backend",
            f"model: {'two random layers' if options.tiny else 'SmolLM2-135M-Instruct, as the GGUF has it'}",
        ],
    )


if __name__ == "__main__":
    main()
