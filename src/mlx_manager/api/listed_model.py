"""The names that somebody may ask for, before they are written in a dialect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mlx_manager.gateway import Offer
from mlx_manager.ir import Caller
from mlx_manager.pool import ModelDirectory, ModelStatus


@dataclass(frozen=True)
class ListedModel:
    """One name."""

    name: str
    status: ModelStatus | None = None
    """Of the model of this machine that answers to it."""
    offer: Offer | None = None
    """Of a route that leads from it."""


def listed_for(caller: Caller, models: ModelDirectory, offers: Iterable[Offer]) -> list[ListedModel]:
    """What `caller` may ask for, each name once: the default model first, aliases behind their models, then routes."""
    statuses = sorted(models.statuses(), key=lambda status: status.entry.name != models.default_model)
    found = {one.name: one for one in reversed([*_local(statuses)])}
    # a name of its own wins over an alias
    found |= {status.entry.name: ListedModel(status.entry.name, status) for status in statuses}
    names = dict.fromkeys(one.name for one in _local(statuses))
    routed = {offer.name: _routed(offer, found) for offer in offers if offer.name not in names}
    return [one for one in (*(found[name] for name in names), *routed.values()) if caller.may_ask(one.name)]


def _local(statuses: Iterable[ModelStatus]) -> Iterator[ListedModel]:
    for status in statuses:
        yield ListedModel(status.entry.name, status)
        for alias in status.overrides.aliases:
            yield ListedModel(alias, status)


def _routed(offer: Offer, local: dict[str, ListedModel]) -> ListedModel:
    """One that only this machine answers is described as the model that it leads to."""
    known = None if offer.is_remote else local.get(offer.models[0])
    return ListedModel(offer.name, known.status if known else None, offer)
