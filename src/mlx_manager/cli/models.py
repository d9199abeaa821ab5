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


@with_settings("home")
def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    **flags: object,
) -> None:
    """List the models on this machine."""
    # json and pathlib's cousins are cheap, but help needs none of the hub
    from mlx_manager.hub import Inventory  # noqa: PLC0415

    settings = load_settings(os.environ, flags)
    inventory = Inventory(settings.home)
    entries = inventory.entries()
    for sentence in inventory.broken():
        print(f"warning: {sentence}", file=sys.stderr)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(entries)).decode())
    elif entries:
        print_table(
            ("name", "architecture", "quantization", "size", "context", "path"), [_row(entry) for entry in entries]
        )
    else:
        print(f"There are no models in {inventory.models_folder} yet. Import one: mlx-manager import FILE.gguf")


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell, whatever the terminal: the output can be cut and searched."""
    widths = [max(len(cells[column]) for cells in (header, *rows)) for column in range(len(header))]
    for cells in (header, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def _row(entry: ModelEntry) -> tuple[str, ...]:
    context = f"{entry.max_context:,}" if entry.max_context else "?"
    return (entry.name, entry.architecture, entry.quantization, render_size(entry.size_bytes), context, entry.path)
