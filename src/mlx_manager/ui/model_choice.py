"""Who can be asked in a chat: the models of this machine, their aliases, and what routes lead to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from nicegui import ui

from mlx_manager.catalog import ModelKind
from mlx_manager.gateway import Offer
from mlx_manager.ir import Caller
from mlx_manager.pool import ModelState, ModelStatus
from mlx_manager.ui.console import Console

_KINDS = (ModelKind.TEXT, ModelKind.VISION)
_OFFERS_PERIOD_S = 5.0


@dataclass(frozen=True)
class Choice:
    """One name that can be asked for. `status` is that of this machine's model that answers first; else None."""

    label: str
    status: ModelStatus | None = None

    @property
    def may_see(self) -> bool:
        """Whether pictures can be sent: nobody knows what a provider's model takes."""
        return self.status is None or self.status.entry.kind is ModelKind.VISION

    @property
    def is_loaded_first(self) -> bool:
        """Whether the first reply waits for the model to be loaded."""
        return self.status is not None and self.status.state is ModelState.COLD


class ModelChoice:
    """The selector, drawn where it is made. `update` offers what there is now."""

    def __init__(self, console: Console, viewer: Caller) -> None:
        self._console = console
        self._viewer = viewer
        self._choices: dict[str, Choice] = {}
        self._offers: Sequence[Offer] = ()
        self._routed_s = float("-inf")
        self._select = ui.select({}, with_input=True).classes("chat-model")
        self._select.props('outlined dense options-dense aria-label="Model"')

    @property
    def name(self) -> str | None:
        """What was chosen."""
        value: str | None = self._select.value
        return value

    @property
    def chosen(self) -> Choice | None:
        """The same, with what is known of it."""
        return self._choices.get(self.name or "")

    def update(self) -> None:
        """Offer what there is now. What was chosen stays, as long as it is there."""
        self._choices = self._find()
        labels = {name: choice.label for name, choice in self._choices.items()}
        if labels == self._select.options or self._select.is_showing_popup:
            return
        default = self._console.models.default_model
        wanted = next((name for name in (self.name, default) if name in labels), None)
        self._select.set_options(labels, value=wanted or next(iter(labels), None))

    def choose(self, name: str | None) -> None:
        """Choose `name`, where it is there."""
        if name in self._choices:
            self._select.set_value(name)

    def _find(self) -> dict[str, Choice]:
        if time.monotonic() - self._routed_s > _OFFERS_PERIOD_S:
            self._routed_s = time.monotonic()
            self._offers = self._console.find_offers(self._viewer)
        found: dict[str, Choice] = {}
        for status in self._console.pulse.look().models:
            if status.entry.kind not in _KINDS:
                continue
            name = status.entry.name
            cold = " (loaded first)" if status.state is ModelState.COLD else ""
            found[name] = Choice(name + cold, status)
            for alias in status.overrides.aliases:
                found.setdefault(alias, Choice(f"{alias} → {name}{cold}", status))
        routed = {}
        for offer in self._offers:
            known = found.get(offer.models[0]) if not offer.is_remote else None
            routed[offer.name] = Choice(f"{offer.name} → {', '.join(offer.asked)}", known.status if known else None)
        # a route is looked at before the models of this machine are
        return found | routed
