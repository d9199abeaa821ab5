"""The names that routes answer to, for people who choose from a list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from mlx_manager.catalog import PatternKind, Route
from mlx_manager.errors import MlxManagerError
from mlx_manager.gateway.asker import Asker
from mlx_manager.gateway.gateway import Gateway
from mlx_manager.gateway.patterns import REST, compile_pattern
from mlx_manager.gateway.router import Plan
from mlx_manager.gateway.traits import Traits
from mlx_manager.ir import Caller
from mlx_manager.storage.configuration import Configuration

_MOST = 1_000
_MANY_TOKENS = 10**9


@dataclass(frozen=True)
class Offer:
    """A name that can be asked for, and who would be asked, in order."""

    name: str
    asked: tuple[str, ...]
    """A backend and its model as one label."""
    models: tuple[str, ...]
    """As they are called where they are."""
    is_remote: bool
    """Whether a provider may be asked."""


def find_offers(gateway: Gateway, configured: Callable[[], Configuration], caller: Caller) -> list[Offer]:
    """What `caller` may ask for through routes; of patterns, the names that their providers have listed."""
    current = configured()
    bound = gateway.on_behalf_of(Asker(caller=caller))
    models = {provider.name: provider.models for provider in current.providers if provider.is_on}
    names = dict.fromkeys(name for route in current.routes if route.is_on for name in _names(route, models))
    offers = []
    for name in list(names)[:_MOST]:
        plan = _plan(bound, caller, name)
        if plan is not None:
            is_remote = any(target.remote is not None for target in plan.targets)
            labels = tuple(target.label for target in plan.targets)
            offers.append(Offer(name, labels, tuple(target.model for target in plan.targets), is_remote))
    return offers


def _names(route: Route, models: Mapping[str, Iterable[str]]) -> Iterator[str]:
    if route.pattern_kind is PatternKind.EXACT:
        yield route.pattern
        return
    match = compile_pattern(route.pattern_kind, route.pattern)
    for target in route.targets:
        before, has_rest, after = (target.model or "").partition(REST)
        for model in models.get(target.provider or "", ()):
            if not target.model:
                name = model
            elif has_rest and model.startswith(before) and model.endswith(after):
                name = route.pattern + model[len(before) : len(model) - len(after)]
            else:
                continue
            if match(name) is not None:
                yield name


def _plan(gateway: Gateway, caller: Caller, name: str) -> Plan | None:
    """By the first route that would answer any request of `caller` for `name`; None where none would."""
    for num_tokens, has_images, needs_tools in ((1, False, False), (1, True, False), (1, False, True), _EVERYTHING):
        traits = Traits(num_tokens, has_images, needs_tools, caller.user_name, caller.key_label)
        try:
            plan, _ = gateway.explain(name, traits)
        except MlxManagerError:
            continue
        if plan.route is not None:
            return plan
    return None


_EVERYTHING = (_MANY_TOKENS, True, True)
