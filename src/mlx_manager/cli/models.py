"""mlx-manager models: what is on disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer

from mlx_manager.catalog import ModelEntry, load_settings, render_size
from mlx_manager.cli.flags import with_settings


@with_settings("home", "scan_folders")
def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    **flags: object,
) -> None:
    """List the models on this machine: in home, in the cache of the hub, and in the folders to scan."""
    # the hub's client is not cheap, and help needs none of it
    from mlx_manager.cli.disk import local_inventory  # noqa: PLC0415

    settings = load_settings(os.environ, flags)
    inventory = local_inventory(settings)
    entries = inventory.entries()
    for sentence in inventory.broken():
        print(f"warning: {sentence}", file=sys.stderr)
    if as_json:
        print_json(entries)
        return
    if entries:
        header = ("name", "architecture", "kind", "parameters", "quantization", "size", "context", "path")
        print_table(header, [_row(entry) for entry in entries])
    else:
        print(
            f"There are no models in {inventory.models_folder} or in the hub's cache yet. Download one: mlx-manager "
            "pull ORG/NAME. Import one: mlx-manager import FILE.gguf"
        )
    foreign = inventory.foreign()
    if foreign:
        print("\nTo be imported first:")
        rows = [(model.name, model.program, render_size(model.size_bytes), model.how_to_serve) for model in foreign]
        print_table(("name", "of", "size", "command"), rows)


def print_json(answer: object) -> None:
    """An answer for programs."""
    print(msgspec.json.format(msgspec.json.encode(answer)).decode())


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell, whatever the terminal: the output can be cut and searched."""
    widths = [max(len(cells[column]) for cells in (header, *rows)) for column in range(len(header))]
    for cells in (header, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def render_count(number: int | None) -> str:
    """A number of parameters for people: 494M, 7.6B."""
    if not number:
        return "?"
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number / 1000:.3g}K"


def _row(entry: ModelEntry) -> tuple[str, ...]:
    context = f"{entry.max_context:,}" if entry.max_context else "?"
    return (
        entry.name,
        entry.architecture,
        entry.kind.value,
        render_count(entry.num_parameters),
        entry.quantization,
        render_size(entry.size_bytes),
        context,
        entry.path,
    )
