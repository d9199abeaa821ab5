"""Single figures, as a page and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_head, machine_slug

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Figure:
    """One figure, and the most it should be where there is an aim."""

    name: str
    value: float
    unit: str
    at_most: float | None = None


@dataclass(frozen=True)
class Table:
    """A title, the columns' titles, and rows of as many cells; None where there is no figure."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[float | str | None]]


def write_tables(tables: Sequence[Table], folder: Path, name: str, *, title: str, notes: Sequence[str]) -> None:
    """Write `<date>-<machine>-<name>.{json,md}` to `folder`, with where the figures come from. Prints the page."""
    head = describe_head()
    body = {**head, "notes": list(notes), "tables": [vars(table) for table in tables]}
    lines = _head_lines(head, title, notes)
    for table in tables:
        lines += ["", f"## {table.title}", "", f"| {' | '.join(table.columns)} |"]
        lines += [f"| {' | '.join(['---', *['--:'] * (len(table.columns) - 1)])} |"]
        lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in table.rows]
    _write(folder, head, name, body, lines)
    print("\n".join(lines))


def write_figures(
    figures: Sequence[Figure], folder: Path, name: str, *, title: str, head: dict[str, Any], notes: Sequence[str]
) -> None:
    """Write `<date>-<machine>-<name>.{json,md}` to `folder`. `head` has date, machine, versions, commit and BLAS."""
    body = {**head, "figures": [vars(figure) for figure in figures]}
    lines = [
        *_head_lines(head, title, notes),
        "",
        "| figure | reached | at most |",
        "| --- | --: | --: |",
        *(_row(figure) for figure in figures),
    ]
    _write(folder, head, name, body, lines)


def _head_lines(head: dict[str, Any], title: str, notes: Sequence[str]) -> list[str]:
    machine = head["machine"]
    return [
        f"# {title}, measured on {head['date']}",
        "",
        f"- {machine['cpu']}, {machine['num_cores']} cores, {machine['memory_gib']} GiB, {machine['system']}; "
        f"load average before the run {machine['load_average_1min']}; BLAS: {head['blas']}",
        "- " + ", ".join(f"{name} {version}" for name, version in head["versions"].items()),
        f"- commit {head['commit']}",
        *(f"- {note}" for note in notes),
    ]


def _write(folder: Path, head: dict[str, Any], name: str, body: dict[str, Any], lines: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{head['date']}-{machine_slug(head['machine'])}-{name}"
    (folder / f"{stem}.json").write_text(json.dumps(body, indent=1) + "\n")
    (folder / f"{stem}.md").write_text("\n".join(lines) + "\n")
    print(f"Written to {folder / stem}.md and .json")


def _cell(cell: float | str | None) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, str | int):
        return f"{cell:,}" if isinstance(cell, int) else cell
    return f"{cell:,.3f}" if abs(cell) < 10 else f"{cell:,.1f}"


def _row(figure: Figure) -> str:
    aim = "" if figure.at_most is None else f"{figure.at_most:g} {figure.unit}"
    missed = " (missed)" if figure.at_most is not None and figure.value > figure.at_most else ""
    return f"| {figure.name} | {figure.value:,.2f} {figure.unit}{missed} | {aim} |"
