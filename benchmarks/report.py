"""The results file for people: one table a workload, and the aims beside what was reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from mlx_manager.bench import WORKLOADS, Measurement

OURS = "ours"


@dataclass(frozen=True)
class Results:
    """Everything one run found out. `rounds` holds, for each server, its measurements in the order taken."""

    head: Mapping[str, Any]
    rounds: Mapping[str, Sequence[Measurement]]
    failures: Mapping[str, str]
    """Servers that could not be measured, or not wholly, and why."""


def as_json(results: Results) -> dict[str, Any]:
    """The results as plain values, every round kept."""
    return {
        **results.head,
        "rounds": {name: [asdict(one) for one in measurements] for name, measurements in results.rounds.items()},
        "ratios": _ratios(_medians(results.rounds)),
        "failures": dict(results.failures),
    }


def as_markdown(results: Results) -> str:
    """The results as a page. Figures are medians over the rounds."""
    medians = _medians(results.rounds)
    lines = [f"# Measured on {results.head['date']}", "", *_head_lines(results), ""]
    for workload in WORKLOADS:
        if workload.name in medians:
            lines += [f"## {workload.name}: {workload.description}", "", *_table(medians[workload.name]), ""]
    lines += ["## Against the aims", "", *_aim_lines(_ratios(medians))]
    if results.failures:
        lines += ["", "## What did not work", ""]
        lines += [f"- `{name}`: {' '.join(reason.split())}" for name, reason in results.failures.items()]
    return "\n".join(lines) + "\n"


_FIGURES = (
    "output_tokens_per_s",
    "ttft_p50_s",
    "ttft_max_s",
    "inter_token_p50_s",
    "inter_token_p95_s",
    "wall_s",
    "num_prompt_tokens",
    "num_cached_tokens",
    "num_completion_tokens",
    "num_failed",
)
_INTERRUPTION = ("idle_p95_s", "during_p95_s", "intruder_ttft_s")

Medians = dict[str, dict[str, dict[str, float]]]
"""By workload, then server, then figure; a figure that no round has is absent."""


def _medians(rounds: Mapping[str, Sequence[Measurement]]) -> Medians:
    medians: Medians = {}
    for server, measurements in rounds.items():
        for name in {measurement.workload for measurement in measurements}:
            figures = [measurement.figures for measurement in measurements if measurement.workload == name]
            samples = {figure: [getattr(one, figure) for one in figures] for figure in _FIGURES}
            for figure in (*_INTERRUPTION, "p95_ratio"):
                samples[figure] = [getattr(one.interruption, figure) for one in figures if one.interruption]
            medians.setdefault(name, {})[server] = {
                figure: median(known)
                for figure, values in samples.items()
                if (known := [value for value in values if value is not None])
            }
    return medians


def _head_lines(results: Results) -> list[str]:
    machine, versions = results.head["machine"], results.head["versions"]
    return [
        f"- {machine['cpu']}, {machine['num_cores']} cores, {machine['memory_gib']} GiB, {machine['system']}; "
        f"load average before the run {machine['load_average_1min']}",
        f"- {results.head['backend']}; {results.head['model']}; BLAS for all servers: {results.head['blas']}",
        "- " + ", ".join(f"{name} {version}" for name, version in versions.items()),
        f"- commit {results.head['commit']}; {results.head['num_rounds']} rounds, each server alone in turn, "
        f"{results.head['scale']['max_tokens']} tokens a request",
        *(f"- `{name}`: {note}" for name, note in results.head["servers"].items()),
    ]


def _table(by_server: Mapping[str, Mapping[str, float]]) -> list[str]:
    has_interruption = any("during_p95_s" in figures for figures in by_server.values())
    titles = ["server", "output tok/s", "TTFT p50", "TTFT max", "between tokens p50", "p95", "prompt tokens", "cached"]
    titles += ["tokens", "failed"]
    if has_interruption:
        titles += ["p95 idle", "p95 during", "long prompt's TTFT"]
    rows = [titles, ["---"] + ["--:"] * (len(titles) - 1)]
    for server, figures in by_server.items():
        row = [server, _number(figures.get("output_tokens_per_s"))]
        row += [_milliseconds(figures.get(name)) for name in _FIGURES[1:5]]
        row += [_number(figures.get(name), 0) for name in _FIGURES[6:]]
        if has_interruption:
            row += [_milliseconds(figures.get(name)) for name in _INTERRUPTION]
        rows.append(row)
    return [f"| {' | '.join(row)} |" for row in rows]


def _ratios(medians: Medians) -> dict[str, float]:
    """The ratios that the aims are about, by a name that says which; those that cannot be computed are absent."""
    ratios: dict[str, float] = {}
    for name, by_server in medians.items():
        ours = by_server.get(OURS, {})
        rivals = [figures for server, figures in by_server.items() if server != OURS and not figures.get("num_failed")]
        speeds = [figures["output_tokens_per_s"] for figures in rivals if figures.get("output_tokens_per_s")]
        waits = [figures["ttft_p50_s"] for figures in rivals if "ttft_p50_s" in figures]
        if speeds and "output_tokens_per_s" in ours:
            ratios[f"{name}: output tok/s over the best rival's"] = ours["output_tokens_per_s"] / max(speeds)
        if waits and "ttft_p50_s" in ours:
            ratios[f"{name}: TTFT p50 over the best rival's"] = ours["ttft_p50_s"] / min(waits)
        if "p95_ratio" in ours:
            ratios[f"{name}: between tokens p95, during over idle"] = ours["p95_ratio"]
    alone = medians.get("single", {}).get(OURS, {}).get("output_tokens_per_s")
    eight = medians.get("eight", {}).get(OURS, {}).get("output_tokens_per_s")
    if alone and eight:
        ratios["eight: output tok/s over our own single stream"] = eight / alone
    return ratios


_AIMS = (
    ("eight: output tok/s over our own single stream", "at least", 4.0),
    *((f"{workload.name}: output tok/s over the best rival's", "at least", 1.0) for workload in WORKLOADS),
    ("ragged: output tok/s over the best rival's", "at least", 2.5),
    ("shared: TTFT p50 over the best rival's", "at most", 0.2),
    ("interrupted: between tokens p95, during over idle", "at most", 2.5),
)


def _aim_lines(ratios: Mapping[str, float]) -> list[str]:
    lines = ["| ratio | aim | reached |", "| --- | --- | --: |"]
    for name, bound, aim in _AIMS:
        if name in ratios:
            is_met = ratios[name] >= aim if bound == "at least" else ratios[name] <= aim
            lines.append(f"| {name} | {bound} {aim} | {ratios[name]:.2f}{'' if is_met else ' (missed)'} |")
    return lines


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{1000 * value:,.0f} ms"
