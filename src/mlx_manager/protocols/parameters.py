"""The form of the tables that say what becomes of every parameter of a dialect, and how a request is judged by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mlx_manager.errors import UnsupportedParameter
from mlx_manager.ir import PassedOn


class Support(StrEnum):
    """What becomes of a parameter."""

    SERVED = "served"
    HARMLESS = "harmless"
    """Accepted: it cannot change the answer."""
    IGNORED = "ignored"
    """Accepted as the hint that it is, without effect here, and the answer's header says so."""
    REFUSED = "refused"
    """It would change the answer: 400, unless it has one of its `neutral` values."""


@dataclass(frozen=True)
class Parameter:
    """One row. `note` says where a served one goes, why another is harmless, or what to do about a refused one."""

    name: str
    support: Support
    note: str
    neutral: tuple[Any, ...] = ()
    """Values besides null at which a refused parameter changes nothing."""
    is_passed_on: bool = False
    """Whether a provider that is asked in the same dialect is told it."""


def screen_rows(rows: Mapping[str, Parameter], parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Judge the parameters of a request that its wire schema does not serve, by the rows of its dialect's table.

    Returns the names of those ignored, which the answer's header is to carry. Raises `UnsupportedParameter`.
    """
    ignored: list[str] = []
    for name, value in parameters.items():
        if value is None:
            continue
        row = rows.get(name)
        if row is None or row.support is Support.IGNORED:
            ignored.append(name)
        elif row.support is Support.REFUSED and value not in row.neutral:
            raise UnsupportedParameter(f"{name} is not supported. {row.note}", param=name)
    return tuple(ignored)


def passed_on_of(dialect: str, rows: Mapping[str, Parameter], parameters: Mapping[str, Any]) -> PassedOn:
    """Those that a provider of the same dialect is told."""
    fields = {
        name: value
        for name, value in parameters.items()
        if value is not None and (row := rows.get(name)) is not None and row.is_passed_on
    }
    return PassedOn(dialect=dialect, fields=fields) if fields else PassedOn()
