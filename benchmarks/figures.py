"""Single figures, as a page and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import machine_slug


@dataclass(frozen=True)
class Figure:
    """One figure, and the most it should be where there is an aim."""

    name: str
    value: float
    unit: str
    at_most: float | None = None


def write_figures(
    figures: Sequence[Figure], folder: Path, name: str, *, title: str, head: dict[str, Any], notes: Sequence[str]
) -> None:
    """Write `<date>-<machine>-<name>.{json,md}` to `folder`. `head` has date, machine, versions, commit and BLAS."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{head['date']}-{machine_slug(head['machine'])}-{name}"
    body = {**head, "figures": [vars(figure) for figure in figures]}
    (folder / f"{stem}.json").write_text(json.dumps(body, indent=1) + "\n")
    machine = head["machine"]
    lines = [
        f"# {title}, measured on {head['date']}",
        "",
        f"- {machine['cpu']}, {machine['num_cores']} cores, {machine['memory_gib']} GiB, {machine['system']}; "
        f"load average before the run {machine['load_average_1min']}; BLAS: {head['blas']}",
        "- " + ", ".join(f"{name} {version}" for name, version in head["versions"].items()),
        f"- commit {head['commit']}",
        *(f"- {note}" for note in notes),
        "",
        "| figure | reached | at most |",
        "| --- | --: | --: |",
        *(_row(figure) for figure in figures),
    ]
    (folder / f"{stem}.md").write_text("\n".join(lines) + "\n")
    print(f"Written to {folder / stem}.md and .json")


def _row(figure: Figure) -> str:
    aim = "" if figure.at_most is None else f"{figure.at_most:g} {figure.unit}"
    missed = " (missed)" if figure.at_most is not None and figure.value > figure.at_most else ""
    return f"| {figure.name} | {figure.value:,.2f} {figure.unit}{missed} | {aim} |"
