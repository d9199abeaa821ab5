"""Writes docs/models.md: how every model type of the installed mlx-lm is served, found out by running it.

`python -m tools.model_table` writes the table between its markers; `--check` writes nothing and fails when it differs.
Takes minutes, and both fail when an answer is not the library's. `--only TYPE` prints the rows of some types instead.
"""

from __future__ import annotations

import argparse
import re
import sys
from importlib.metadata import version
from pathlib import Path

from tests.models.examine import Row, examine
from tests.models.zoo import model_types

_PAGE = Path(__file__).resolve().parent.parent / "docs" / "models.md"
_BEGIN = "<!-- generated: model types (tools/model_table.py) -->"
_END = "<!-- end: model types -->"
_TIMINGS = re.compile(r" \(decode attention per layer: [^)]*\)")
_NUMBERS = re.compile(r"by \d[\d.e+-]*")


def table(rows: list[Row]) -> str:
    """Counts, versions, and one line per model type."""
    counts = ", ".join(f"{sum(row.path == path for row in rows)} {path}" for path in _paths(rows))
    versions = ", ".join(f"{package} {version(package)}" for package in ("mlx", "mlx-lm"))
    lines = [
        f"{len(rows)} model types of {versions}: {counts}, {sum(not row.path for row in rows)} not run.",
        "",
        "| model type | layers of the small model | the library's caches | served | why | mismatches |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join(lines + [_line(row) for row in rows])


def main() -> int:
    """Examine every type, then write or check the page; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the page differs")
    parser.add_argument("--only", nargs="+", metavar="TYPE", help="print the rows of these types instead")
    options = parser.parse_args()
    rows = []
    for model_type in options.only or model_types():
        rows.append(examine(model_type))
        print(_line(rows[-1]), file=sys.stderr, flush=True)
    mismatches = [f"{row.model_type}: {text}" for row in rows for text in row.mismatches]
    print("\n".join(mismatches) or "no mismatches")
    if options.only:
        return 1 if mismatches else 0
    page = _PAGE.read_text(encoding="utf-8")
    filled = re.sub(
        re.escape(_BEGIN) + ".*?" + re.escape(_END),
        lambda _: f"{_BEGIN}\n\n{table(rows)}\n\n{_END}",
        page,
        flags=re.DOTALL,
    )
    if options.check:
        if filled != page:
            print("docs/models.md differs from what was found: run python -m tools.model_table")
        return 1 if mismatches or filled != page else 0
    _PAGE.write_text(filled, encoding="utf-8")
    return 1 if mismatches else 0


def _line(row: Row) -> str:
    if row.not_built:
        return f"| `{row.model_type}` | | | not run | {_cell(row.not_built)} | |"
    # What differs from run to run is not for the page.
    why = _NUMBERS.sub("", _TIMINGS.sub("", row.reason)).strip()
    mismatches = "; ".join(row.mismatches) or "none"
    cells = (row.layers, row.caches, row.path, "; ".join([why, *map(_plain, row.notes)]), mismatches)
    return f"| `{row.model_type}` | {' | '.join(_cell(cell) for cell in cells)} |"


def _plain(note: str) -> str:
    return _NUMBERS.sub("", note).strip()


def _paths(rows: list[Row]) -> list[str]:
    return sorted({row.path for row in rows if row.path})


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
