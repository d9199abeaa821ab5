"""Figures of our server alone: what the gateway adds, how long the start and a load take, whether memory stays flat.

Writes benchmarks/results/<date>-<machine>-own.{json,md}. Reports; never asserts.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

import psutil

from benchmarks.figures import Figure, write_figures
from benchmarks.folders import import_starter, make_tiny_folder
from benchmarks.gateway_cost import gateway_overhead
from benchmarks.machine import describe_machine, git_commit, installed_versions
from benchmarks.servers import PROGRAMS, RIVALS, end_in_order, running
from mlx_manager.bench import Prose, StreamRecord, Target
from mlx_manager.bench.client import stream_chat
from mlx_manager.pool.blas import find_openblas, runs_on_linux_cpu

REPOSITORY = Path(__file__).resolve().parent.parent
OURS = next(rival for rival in RIVALS if rival.name == "ours")
PARTS = ("help", "gateway", "load", "memory")
KV_BUDGET_BYTES = 8 * 2**20
"""Small enough that the memory's arena and its prefix cache are full before the watch begins: until then they grow."""
SPARE_WARM_UP_S = 15.0
NUM_LOADS = 3
NUM_SETTLING_STEPS = 500
"""Decode steps between the arena's last growth and the first sample."""
SAMPLE_PERIOD_S = 0.5


@dataclass(frozen=True)
class MemorySample:
    """The worker at one moment."""

    num_steps: int
    num_blocks_free: int
    arena_bytes: int
    rss_bytes: int


def help_time() -> list[Figure]:
    """How long `mlx-manager --help` takes, the median of seven."""
    times_s = []
    for _ in range(7):
        started_s = time.perf_counter()
        subprocess.run([PROGRAMS / "mlx-manager", "--help"], check=True, stdout=subprocess.DEVNULL)
        times_s.append(time.perf_counter() - started_s)
    return [Figure("mlx-manager --help", median(times_s), "s", 0.5)]


def load_time(starter: Path, folder: Path, openblas: Path | None) -> list[Figure]:
    """From a request for a model that is not loaded to its first token, a spare worker standing ready.

    The first load of a model checks the paged path and times the attentions; later ones go by the verdict kept of it.
    """
    first = [starter.with_name(f"first-{number}") for number in range(NUM_LOADS)]
    later = [starter.with_name(f"later-{number}") for number in range(NUM_LOADS)]
    for path, again in zip(first, later, strict=True):
        # A verdict goes by the files' times of change: new ones make a model unknown, the same ones a known one.
        shutil.copytree(starter, path, copy_function=shutil.copy)
        shutil.copytree(path, again)
    with running(OURS, starter, folder, openblas) as url:
        first_s, later_s = ([_first_token_s(url, path.name) for path in paths] for paths in (first, later))
    return [
        Figure("first load of the starter to its first token, spare warm", median(first_s), "s", 2.0),
        Figure("later load of the starter to its first token, spare warm", median(later_s), "s", 2.0),
    ]


def memory(tiny: Path, folder: Path, openblas: Path | None, num_steps: int) -> list[Figure]:
    """The worker's memory over many decode steps, the KV arena and the prefix cache having been filled first."""
    with running(OURS, tiny, folder, openblas, ("--kv-budget", str(KV_BUDGET_BYTES))) as url:
        samples = asyncio.run(_watch_memory(Target(url, tiny.name), num_steps))
    resident = [sample.rss_bytes / 2**20 for sample in samples]
    return [
        Figure("decode steps watched", samples[-1].num_steps - samples[0].num_steps, "steps"),
        Figure("samples taken on the way", len(samples), ""),
        Figure("resident memory at the first", resident[0], "MiB"),
        Figure("resident memory at the last", resident[-1], "MiB"),
        Figure("growth", resident[-1] - resident[0], "MiB", 1.0),
        Figure("most less least of the samples", max(resident) - min(resident), "MiB"),
        Figure("slope", _slope(samples), "KiB per 1,000 steps"),
        Figure("slope over the second half", _slope(samples[len(samples) // 2 :]), "KiB per 1,000 steps"),
        Figure("largest arena", max(one.arena_bytes for one in samples) / 2**20, "MiB", KV_BUDGET_BYTES / 2**20),
    ]


def main() -> None:
    """Take all figures and write them down."""
    end_in_order()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, help="the starter's GGUF, where its package is not installed")
    parser.add_argument("--steps", type=int, default=10_000, help="decode steps to watch memory for (10000)")
    parser.add_argument("--pairs", type=int, default=60, help="pairs of requests for what the gateway adds (60)")
    parser.add_argument(
        "--output", type=Path, default=REPOSITORY / "benchmarks" / "results", help="folder for the results"
    )
    parser.add_argument("--only", choices=PARTS, help="take one part of the figures alone")
    arguments = parser.parse_args()
    machine = describe_machine()
    openblas = find_openblas() if runs_on_linux_cpu() else None
    wanted = PARTS if arguments.only is None else (arguments.only,)
    figures = help_time() if "help" in wanted else []
    with tempfile.TemporaryDirectory(prefix="mlx-manager-bench-") as name:
        folder = Path(name)
        starter = import_starter(folder, arguments.gguf)
        tiny = make_tiny_folder(starter, folder)
        if "gateway" in wanted:
            figures += gateway_overhead(tiny, folder, openblas, arguments.pairs)
        if "load" in wanted:
            figures += load_time(starter, folder, openblas)
        if "memory" in wanted:
            figures += memory(tiny, folder, openblas, arguments.steps)
    head = {
        "date": datetime.date.today().isoformat(),
        "machine": machine,
        "versions": installed_versions(),
        "commit": git_commit(REPOSITORY),
        "blas": openblas.name if openblas else "as MLX ships it",
    }
    notes = [
        "what the gateway adds and the memory are measured on a model of two random layers, the load on the starter"
    ]
    name = "own" if arguments.only is None else f"own-{arguments.only}"
    write_figures(figures, arguments.output, name, title="Our server alone", head=head, notes=notes)


async def _ask(target: Target, question: str, max_tokens: int) -> StreamRecord:
    async with target.open() as client:
        return await stream_chat(client, target.model, [{"role": "user", "content": question}], max_tokens=max_tokens)


def _first_token_s(url: str, model: str) -> float:
    time.sleep(SPARE_WARM_UP_S)
    record = asyncio.run(_ask(Target(url, model), "What is the capital of France?", 1))
    if record.error is not None or record.ttft_s is None:
        raise RuntimeError(f"{model} did not answer: {record.error}")
    return record.ttft_s


async def _watch_memory(target: Target, num_steps: int) -> list[MemorySample]:
    """Samples while four streams at a time decode `num_steps` steps, from when no block has never been used."""
    streams = [asyncio.create_task(_stream_on(target, Prose(seed))) for seed in range(4)]
    samples: list[MemorySample] = []
    try:
        async with target.open() as client:
            settled_at: int | None = None
            while not samples or samples[-1].num_steps - samples[0].num_steps < num_steps:
                await asyncio.wait(streams, timeout=SAMPLE_PERIOD_S, return_when=asyncio.FIRST_EXCEPTION)
                for broken in (stream for stream in streams if stream.done()):
                    broken.result()
                models = (await client.get("/health")).json()["models"]
                sample = _memory_sample(next(model for model in models if model["id"] == target.model))
                if settled_at is None:
                    is_full = sample.num_blocks_free == 0 and sample.arena_bytes == KV_BUDGET_BYTES
                    settled_at = sample.num_steps + NUM_SETTLING_STEPS if is_full else None
                elif sample.num_steps >= settled_at:
                    samples.append(sample)
    finally:
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
    return samples


async def _stream_on(target: Target, prose: Prose) -> None:
    """One request after another, without end. Raises `RuntimeError` when one fails."""
    while True:
        record = await _ask(target, prose.story_request(200), 500)
        if record.error is not None:
            raise RuntimeError(f"a request failed: {record.error}")


def _memory_sample(health: dict[str, Any]) -> MemorySample:
    stats = health["stats"]
    return MemorySample(
        num_steps=int(stats["num_steps"]),
        num_blocks_free=int(stats["num_blocks_free"]),
        arena_bytes=int(stats["arena_bytes"]),
        rss_bytes=int(psutil.Process(health["worker_pid"]).memory_info().rss),
    )


def _slope(samples: list[MemorySample]) -> float:
    """KiB of resident memory per 1,000 steps, by least squares."""
    steps, sizes = [one.num_steps / 1000 for one in samples], [one.rss_bytes / 1024 for one in samples]
    return linear_regression(steps, sizes).slope


if __name__ == "__main__":
    main()
