"""Flags that limit an API key or an account."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import msgspec
import typer

from mlx_manager.catalog import KeyLimits

# typer reads these at run time
Models = Annotated[list[str], typer.Option("--model", help="A model that may be asked for; all otherwise.")]
PerMinute = Annotated[Optional[int], typer.Option("--rpm", help="Most requests a minute.", min=1)]  # noqa: UP045
PerDay = Annotated[Optional[int], typer.Option("--tokens-per-day", help="Most tokens a day.", min=1)]  # noqa: UP045
Budget = Annotated[Optional[float], typer.Option("--budget", help="Most US dollars a month for providers.")]  # noqa: UP045
StaysHere = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option("--local-only/--not-local-only", help="Nothing that is asked leaves this machine."),
]
NoLimits = Annotated[bool, typer.Option("--no-limits", help="Begin without any limit, then set those given.")]


def changed_limits(old: KeyLimits, *, forget: bool, **given: Any) -> KeyLimits:
    """`old`, or none at all, with what was given; None and empty were not."""
    said = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    said = {name: value for name, value in said.items() if value is not None and value != ()}
    return msgspec.structs.replace(KeyLimits() if forget else old, **said)
