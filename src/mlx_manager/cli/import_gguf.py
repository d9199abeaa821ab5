"""mlx-manager import: a GGUF file made into an MLX model folder in home."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from mlx_manager.catalog import load_settings, render_size
from mlx_manager.cli.flags import with_settings


@with_settings("home")
def import_model(
    file: Annotated[Path, typer.Argument(metavar="FILE.gguf", help="A GGUF file of a Llama or Gemma 3 model.")],
    name: Annotated[str | None, typer.Option(help="What to call the model; otherwise as the file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a model of the same name.")] = False,
    chat_template: Annotated[
        Path | None, typer.Option(metavar="FILE.jinja", help="The chat template to take in place of the file's own.")
    ] = None,
    **flags: object,
) -> None:
    """Import a GGUF file as an MLX model folder."""
    # rich takes a tenth of a second
    from mlx_manager.cli.progress import ProgressLines  # noqa: PLC0415
    from mlx_manager.hub import import_gguf  # noqa: PLC0415

    settings = load_settings(os.environ, flags)
    with ProgressLines(f"Importing {file.name}") as progress:
        entry = import_gguf(
            settings.home,
            file.absolute(),
            name=name or _name_of(file),
            force=force,
            report=progress,
            chat_template=chat_template,
        )
    print(f"Imported {entry.name} ({entry.architecture}, {entry.quantization}, {render_size(entry.size_bytes)})")
    print(f"Serve it: mlx-manager serve --model {entry.name}")


def _name_of(file: Path) -> str:
    """The file's name without its ending, in the letters that a model's name may have."""
    stem = file.name.removesuffix(".gguf").removesuffix(".GGUF")
    return re.sub(r"[^\w.-]+", "-", stem, flags=re.ASCII).strip("-._") or "model"
