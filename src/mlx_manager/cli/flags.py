"""Command-line flags made from the settings table."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Optional

import typer

from mlx_manager.catalog import SETTINGS, Setting

_METAVARS = {
    "integer": "N",
    "number": "NUMBER",
    "bytes": "SIZE",
    "size or share": "SIZE|SHARE",
    "seconds": "SECONDS",
    "hours": "HOURS",
    "US dollars": "USD",
    "path": "PATH",
    "text": "TEXT",
    "list": "NAMES",
    "choice": "WORD",
}


def with_settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command a flag for each of these settings, or for all; it takes their values as `**flags`.

    Values arrive as typed, None where not given: `catalog.load_settings` judges them.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
        added = [_parameter(row) for row in SETTINGS if not names or row.name in names]
        # typer reads both, and takes a signature that it finds here as it is: with its annotations resolved
        command.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
        command.__annotations__ |= {parameter.name: parameter.annotation for parameter in added}
        return command

    return decorate


def given(**values: Any) -> dict[str, Any]:
    """Those that were given: what is None was not."""
    return {name: value for name, value in values.items() if value is not None}


def _parameter(row: Setting) -> inspect.Parameter:
    kind = bool if row.type == "flag" else str
    flag = f"{row.flag}/--no-{row.flag.removeprefix('--')}" if kind is bool else row.flag
    option = typer.Option(flag, help=_help(row), metavar=None if kind is bool else _metavar(row), show_default=False)
    return inspect.Parameter(
        row.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        # built at run time, where mypy and the `X | None` of a variable type do not reach
        annotation=Annotated[Optional[kind], option],  # noqa: UP045
    )


def _metavar(row: Setting) -> str:
    return "|".join(row.choices) if row.choices else _METAVARS[row.type]


def _help(row: Setting) -> str:
    default = (
        ""
        if row.default in (None, ())
        else f" [default: {str(row.default).lower() if row.type == 'flag' else row.default}]"
    )
    return f"{row.help}{default}"
