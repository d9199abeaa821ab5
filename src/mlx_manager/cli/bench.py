"""`mlx-manager bench`: the bench's workloads against any running OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict
from typing import Annotated

import httpx
import typer
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

_NAMES = ", ".join(workload.name for workload in WORKLOADS)


def bench(
    *,
    url: Annotated[str, typer.Option(help="Address of the server, before /v1.")] = "http://127.0.0.1:10242",
    model: Annotated[
        str | None, typer.Option(help="Model to ask; the first that the server lists if not given.")
    ] = None,
    workload: Annotated[
        list[str] | None, typer.Option(help=f"Workload to run, repeatable: {_NAMES}. All if none.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=2, help="Completion length of each request.")] = 64,
    rate: Annotated[float, typer.Option(min=0.01, help="Arrivals a second in the poisson workload.")] = 0.5,
    api_key: Annotated[str | None, typer.Option(help="Bearer token for the server.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure a running server: output tokens a second, time to first token, time between tokens."""
    workloads = _chosen(workload)
    seed = time.time_ns()  # no two runs send the same prompts, so no prefix cache knows them
    try:
        target = Target(url, model or asyncio.run(first_model(url, api_key)), api_key)
        measurements = asyncio.run(_measure_all(target, workloads, Scale(max_tokens, rate), seed))
    except (ServerRefused, httpx.HTTPError) as error:
        typer.echo(f"{url} cannot be measured: {error}", err=True)
        raise typer.Exit(1) from None
    if as_json:
        body = {"url": url, "model": target.model, "measurements": [asdict(one) for one in measurements]}
        typer.echo(json.dumps(body, indent=1))
    else:
        _print_tables(target, measurements)
    if any(one.figures.num_failed for one in measurements):
        raise typer.Exit(1)


async def _measure_all(target: Target, workloads: list[Workload], scale: Scale, seed: int) -> list[Measurement]:
    per_word = await tokens_per_word(target, seed)
    measurements = []
    for place, workload in enumerate(workloads):
        typer.echo(f"{workload.name}: {workload.description}", err=True)
        measurements.append(await measure(target, workload, Prose(seed + 1 + place, per_word), scale))
    return measurements


def _chosen(names: list[str] | None) -> list[Workload]:
    known = {workload.name: workload for workload in WORKLOADS}
    for name in names or ():
        if name not in known:
            raise typer.BadParameter(f"There is no workload {name!r}; known are {_NAMES}.", param_hint="--workload")
    return [known[name] for name in names] if names else list(WORKLOADS)


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
