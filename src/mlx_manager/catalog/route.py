"""A route: which requests it is for, and who is to answer them, in order."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class PatternKind(StrEnum):
    """How a route's pattern is held against the model that a request names."""

    EXACT = "exact"
    PREFIX = "prefix"
    REGEX = "regex"
    """In RE2's syntax; it has to match the whole name."""


class RouteTarget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is to answer, and with which model."""

    provider: str | None = None
    """By name; None is this machine."""
    model: str | None = None
    """None is the model that the request names. `*` stands for what follows the prefix of a prefix pattern."""


class RouteConditions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What has to be true of a request besides its model. What is not said does not matter."""

    longer_than_tokens: int | None = None
    """Estimated: a token for every four characters, and 1,000 for each image."""
    has_images: bool | None = None
    needs_tools: bool | None = None
    users: tuple[str, ...] = ()
    """By name."""
    keys: tuple[str, ...] = ()
    """API keys as USER/NAME: names alone are not unique."""


class Spill(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a request goes to the next target although this machine could answer it."""

    queue_wait_s: float | None = None
    """When it is expected to wait longer than this."""
    when_too_long: bool = False
    """When it does not fit the context of the local model, instead of refusing it."""


class TargetOrder(StrEnum):
    """In which order the targets of a route are asked."""

    LISTED = "listed"
    CONVERSATION = "conversation"
    """Each conversation has an order of its own, so that it comes back to who has its beginning in the cache."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One route. Those with a lower `position` are looked at first; the first that matches decides."""

    id: int
    name: str
    position: int
    pattern_kind: PatternKind
    pattern: str
    targets: tuple[RouteTarget, ...]
    conditions: RouteConditions = RouteConditions()
    spill: Spill = Spill()
    order: TargetOrder = TargetOrder.LISTED
    is_on: bool = True
