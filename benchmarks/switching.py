"""What it costs to switch between models that do not fit into memory together, and how far plans of memory are right.

Writes benchmarks/results/<date>-<machine>-switching.{json,md}. Reports; never asserts.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from benchmarks.figures import Figure, write_figures
from benchmarks.folders import import_starter
from benchmarks.machine import describe_run
from benchmarks.servers import RIVALS, end_in_order, running
from mlx_manager.bench import Prose, Target
from mlx_manager.bench.client import stream_chat
from mlx_manager.catalog import LoadOptions
from mlx_manager.hub import Footprint, Inventory
from mlx_manager.pool.blas import find_openblas, runs_on_linux_cpu
from mlx_manager.pool.memory import MemoryPlan, measure_process, predict_here

REPOSITORY = Path(__file__).resolve().parent.parent
OURS = next(rival for rival in RIVALS if rival.name == "ours")
KV_BYTES = 192 * 2**20
OPTIONS = LoadOptions(kv_budget_bytes=KV_BYTES)
SPARE_WARM_UP_S = 15.0
NUM_FILLING = 8
"""Requests of `FILLING_TOKENS` each that fill the KV arena of the starter."""
FILLING_TOKENS = 500
NOTES = (
    "two copies of the starter model (SmolLM2-135M in float32, on MLX's CPU backend), asked in turn, one stream at a "
    "time, a new prompt of 60 tokens each time; from the request sent to its first text; medians",
    "measured bytes are the proportional set size of the worker process; planned bytes are what the pool counts",
)


@dataclass(frozen=True)
class Way:
    """A budget under which the two models take turns."""

    name: str
    budget_bytes: int
    flags: tuple[str, ...] = ()
    pause_s: float = 0.0
    """Before each request: time for the spare worker to be ready."""


@dataclass(frozen=True)
class Bench:
    """What all measurements share."""

    models: tuple[Path, Path]
    folder: Path
    openblas: Path | None
    num_switches: int

    def first_token_after_switch(self, way: Way) -> Figure:
        """The median over switches back and forth."""
        flags = ("--memory-budget", str(way.budget_bytes), "--kv-budget", str(KV_BYTES), *way.flags)
        prose = Prose(time.time_ns())
        with running(OURS, self.models[0], self.folder, self.openblas, flags) as url:
            for model in self.models:
                _first_token_s(url, model.name, prose.story_request(60))
            times_s = []
            for number in range(self.num_switches):
                time.sleep(way.pause_s)
                times_s.append(_first_token_s(url, self.models[number % 2].name, prose.story_request(60)))
            pool = _admin(url, "stats")["pool"]
        print(f"{way.name}: {[round(one, 3) for one in times_s]}, {pool['num_evictions']} evictions, "
              f"{pool['num_trims']} trims", flush=True)  # fmt: skip
        return Figure(f"first token, {way.name}", 1000 * median(times_s), "ms")

    def plans(self, footprint: Footprint) -> list[Figure]:
        """The starter's worker when its arena is full, and after a trim, beside what is counted for it."""
        budget = MemoryPlan(OPTIONS, footprint).num_bytes + int(footprint.fixed_bytes * 1.1)
        flags = ("--memory-budget", str(budget), "--kv-budget", str(KV_BYTES), "--no-use-spare")
        prose = Prose(1)
        name, other = (model.name for model in self.models)
        with running(OURS, self.models[0], self.folder, self.openblas, flags) as url:
            with ThreadPoolExecutor(NUM_FILLING) as clients:
                prompts = [prose.story_request(FILLING_TOKENS) for _ in range(NUM_FILLING)]
                list(clients.map(lambda prompt: _first_token_s(url, name, prompt), prompts))
            full = _memory(url, name)
            _first_token_s(url, other, prose.story_request(60))
            trimmed = _memory(url, name)
        return [
            Figure("worker with a full arena, planned", full[0], "MiB"),
            Figure("worker with a full arena, measured", full[1], "MiB", full[0]),
            Figure("worker after a trim, planned before it", footprint.fixed_bytes / 2**20, "MiB"),
            Figure("worker after a trim, counted", trimmed[0], "MiB"),
            Figure("worker after a trim, measured", trimmed[1], "MiB", trimmed[0]),
            Figure("KV arena given back", full[2] - trimmed[2], "MiB"),
        ]


def main() -> None:
    """Take all figures and write them down."""
    end_in_order()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, help="the starter's GGUF, where its package is not installed")
    parser.add_argument("--switches", type=int, default=8, help="switches in each way (8)")
    parser.add_argument(
        "--output", type=Path, default=REPOSITORY / "benchmarks" / "results", help="folder for the results"
    )
    arguments = parser.parse_args()
    head = {
        "date": datetime.date.today().isoformat(),
        **describe_run(),
    }
    openblas = find_openblas() if runs_on_linux_cpu() else None
    head["blas"] = openblas.name if openblas else "as MLX ships it"
    with tempfile.TemporaryDirectory(prefix="mlx-manager-bench-") as name:
        starter = import_starter(Path(name), arguments.gguf)
        twin = starter.with_name(f"{starter.name}-twin")
        shutil.copytree(starter, twin)
        bench = Bench((starter, twin), Path(name), openblas, arguments.switches)
        entry = next(one for one in Inventory(Path(name) / "home").entries() if one.name == starter.name)
        footprint = predict_here(entry, OPTIONS)
        whole = MemoryPlan(OPTIONS, footprint).num_bytes
        figures = [bench.first_token_after_switch(way) for way in _ways(whole, footprint)]
        figures += bench.plans(footprint)
    title = "Switching between models"
    write_figures(figures, arguments.output, "switching", title=title, head=head, notes=NOTES)


def _ways(whole_bytes: int, footprint: Footprint) -> Sequence[Way]:
    return (
        Way("both in memory with their caches", 3 * whole_bytes),
        Way("both in memory, one arena passed back and forth", whole_bytes + int(footprint.fixed_bytes * 1.1)),
        Way("one in memory, the other loaded in its place, spare ready", int(whole_bytes * 1.1), (), SPARE_WARM_UP_S),
        Way("one in memory, the other loaded in its place, no spare", int(whole_bytes * 1.1), ("--no-use-spare",)),
    )


def _first_token_s(url: str, model: str, prompt: str) -> float:
    async def ask() -> float:
        target = Target(url, model)
        async with target.open() as client:
            record = await stream_chat(client, model, [{"role": "user", "content": prompt}], max_tokens=4)
        if record.error is not None or record.ttft_s is None:
            raise RuntimeError(f"{model} did not answer: {record.error}")
        return record.ttft_s

    return asyncio.run(ask())


def _admin(url: str, path: str) -> Any:
    return httpx.get(f"{url}/admin/{path}", timeout=60, trust_env=False).raise_for_status().json()


def _memory(url: str, model: str) -> tuple[float, float, float]:
    """MiB planned for a model, measured of its worker, and held by its arena."""
    shown = _admin(url, f"models/{model}")
    engine = _admin(url, "stats")["engines"][model]
    figures = (shown["planned_bytes"], measure_process(shown["worker_pid"]), engine["arena_bytes"])
    planned, measured, arena = (num_bytes / 2**20 for num_bytes in figures)
    return planned, measured, arena


if __name__ == "__main__":
    main()
