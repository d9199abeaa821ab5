"""mlx-manager fit: what a model would take of memory, and what then fits. The arithmetic is the hub's."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mlx_manager.catalog import SettingsError, load_settings
from mlx_manager.catalog.values import size_bytes
from mlx_manager.cli.flags import given, with_settings
from mlx_manager.cli.models import print_json

_LEAST_BYTES = 1024**2


@with_settings("home", "dtype", "kv_budget", "kv_cache_bits", "max_batch_size", "max_step_tokens", "max_context")
def fit(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name, or its folder.")],
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory of the machine, such as 16GB; otherwise this one's.")
    ] = None,
    draft_model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="A draft model in the same worker; otherwise the one in config.toml."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    **flags: object,
) -> None:
    """Say what a model would take of memory and what then fits, without loading it; exit code 1 when it does not."""
    # psutil and the hub: help needs neither
    from mlx_manager.cli.fitting import check_fit, describe_fit  # noqa: PLC0415

    settings = load_settings(os.environ, flags)
    found = check_fit(settings, model, _parse_memory(memory), {**given(**flags), **given(draft_model=draft_model)})
    if as_json:
        print_json(found)
    else:
        describe_fit(found)
    if found.verdict == "does not fit":
        raise typer.Exit(1)


def _parse_memory(given: str | None) -> int | None:
    try:
        return None if given is None else size_bytes(_LEAST_BYTES)(given)
    except ValueError as error:
        raise SettingsError(f"memory cannot be {given!r} (from the flag --memory): {error}") from None
