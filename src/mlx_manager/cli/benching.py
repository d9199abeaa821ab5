"""What `mlx-manager bench` does: the workloads played one after the other, and their figures printed."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict

import httpx
from rich.console import Console
from rich.table import Table

from mlx_manager.bench import (
    WORKLOADS,
    Measurement,
    Prose,
    Scale,
    ServerRefused,
    Target,
    Workload,
    first_model,
    measure,
    tokens_per_word,
)


def run_bench(target: Target, names: list[str], scale: Scale, *, as_json: bool) -> int:
    """Measure `target` and print the figures; the exit code. An empty `target.model` means the first that it lists.

    No `names` means all workloads. Returns 1 when the server cannot be measured or a request failed, 2 for a
    workload that is not there.
    """
    known = {workload.name: workload for workload in WORKLOADS}
    for name in names:
        if name not in known:
            print(f"error: There is no workload {name!r}; known are {', '.join(known)}.", file=sys.stderr)
            return 2
    workloads = [known[name] for name in names] or list(WORKLOADS)
    try:
        model = target.model or asyncio.run(first_model(target.url, target.api_key))
        target = Target(target.url, model, target.api_key)
        measurements = asyncio.run(_measure_all(target, workloads, scale))
    except httpx.ConnectError:
        print(f"error: No server answers at {target.url}: start it, or name another with --url.", file=sys.stderr)
        return 1
    except (ServerRefused, httpx.HTTPError) as error:
        print(f"error: {target.url} cannot be measured: {error}", file=sys.stderr)
        return 1
    if as_json:
        body = {"url": target.url, "model": model, "measurements": [asdict(one) for one in measurements]}
        print(json.dumps(body, indent=1))
    else:
        _print_tables(target, measurements)
    return 1 if any(one.figures.num_failed for one in measurements) else 0


async def _measure_all(target: Target, workloads: list[Workload], scale: Scale) -> list[Measurement]:
    seed = time.time_ns()  # no two runs send the same prompts, so no prefix cache knows them
    per_word = await tokens_per_word(target, seed)
    measurements = []
    for place, workload in enumerate(workloads):
        print(f"{workload.name}: {workload.description}", file=sys.stderr)
        measurements.append(await measure(target, workload, Prose(seed + 1 + place, per_word), scale))
    return measurements


def _print_tables(target: Target, measurements: list[Measurement]) -> None:
    table = Table(title=f"{target.model} at {target.url}", caption="times in milliseconds")
    table.add_column("workload")
    for title in ("tok/s", "TTFT p50", "max", "between p50", "p95", "prompt", "cached", "output", "failed"):
        table.add_column(title, justify="right")
    for one in measurements:
        figures = one.figures
        times = (figures.ttft_p50_s, figures.ttft_max_s, figures.inter_token_p50_s, figures.inter_token_p95_s)
        counts = (
            figures.num_prompt_tokens,
            figures.num_cached_tokens,
            figures.num_completion_tokens,
            figures.num_failed,
        )
        table.add_row(
            one.workload,
            f"{figures.output_tokens_per_s:.1f}",
            *(_milliseconds(time_s) for time_s in times),
            *(str(count) for count in counts),
        )
    console = Console()
    console.print(table)
    for one in measurements:
        if (pause := one.figures.interruption) is not None and pause.p95_ratio is not None:
            console.print(
                f"{one.workload}: between tokens p95 {_milliseconds(pause.during_p95_s)} ms while the long prompt "
                f"prefilled, {_milliseconds(pause.idle_p95_s)} ms before: {pause.p95_ratio:.1f} times"
            )
        for error in one.errors:
            console.print(f"{one.workload}: {error}", markup=False)


def _milliseconds(time_s: float | None) -> str:
    return "–" if time_s is None else f"{1000 * time_s:.0f}"
