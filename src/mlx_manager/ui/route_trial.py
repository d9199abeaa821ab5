"""A request tried against the routes: who would be asked and why. Nobody is."""

from __future__ import annotations

from collections.abc import Callable

from nicegui import ui

from mlx_manager.errors import InvalidRequest, MlxManagerError
from mlx_manager.gateway import Asker, Target, Traits
from mlx_manager.gateway.breaker import BreakerState
from mlx_manager.pool import ModelStatus
from mlx_manager.ui.console import Console
from mlx_manager.ui.elements import badge, box, note, text
from mlx_manager.ui.fields import clear_errors, read_number, show_error

_ANYBODY = ""


class RouteTrial:
    """Explains anew whenever the form, a route or a provider changes. `mark` is told which route decides."""

    def __init__(self, console: Console, mark: Callable[[str | None], None]) -> None:
        self._console = console
        self._mark = mark
        self._explained: object = None
        with box("panel"):
            text("Try a request", tag="h2")
            with box("form-grid"):
                names = sorted(self._known())
                self._model = ui.input("Model that it names", autocomplete=names).props("outlined dense debounce=120")
                self._tokens = ui.input("Tokens of its prompt").props('outlined dense inputmode="numeric"')
                people = [user.name for user in console.people.all()]
                self._user = ui.select({_ANYBODY: "nobody by name", **{name: name for name in people}}, label="User")
                keys = {label: label for label in console.key_labels()}
                self._key = ui.select({_ANYBODY: "none", **keys}, label="API key")
                for chooser in (self._user, self._key):
                    chooser.props("outlined dense options-dense").set_value(_ANYBODY)
            with box("row-line"):
                self._images = ui.checkbox("has images").props("dense")
                self._tools = ui.checkbox("has tools").props("dense")
                self._stays = ui.checkbox("has to stay on this machine").props("dense")
            self._plan = box("stack").props('role="status" aria-label="What would become of it"')
        for field in (self._model, self._tokens, self._user, self._key, self._images, self._tools, self._stays):
            field.on_value_change(self.update)

    def update(self) -> None:
        """Explain, if what is known now says something else."""
        clear_errors({"num_tokens": self._tokens})
        try:
            num_tokens = int(read_number(self._tokens, "num_tokens") or 0)
        except InvalidRequest as error:
            show_error({"num_tokens": self._tokens}, error, "num_tokens")
            return
        model = (self._model.value or "").strip()
        found = self._explain(model, num_tokens) if model else None
        if found != self._explained:
            self._explained = found
            self._plan.clear()
            with self._plan:
                self._draw(found)

    def _explain(self, model: str, num_tokens: int) -> object:
        """A name and a tuple of what is to be drawn, or the error."""
        try:
            caller = self._console.door.stand_in(self._user.value or None, self._key.value or None)
            traits = Traits(
                num_tokens=num_tokens,
                has_images=bool(self._images.value),
                needs_tools=bool(self._tools.value),
                user=caller.user_name,
                key=caller.key_label,
            )
            asker = Asker(caller=caller, is_local_only=bool(self._stays.value))
            gateway = self._console.gateway.on_behalf_of(asker)
            plan, breakers = gateway.explain(model, traits)
        except MlxManagerError as error:
            return error.message
        known = self._known()
        targets = tuple(_describe(target, breakers[target.label], known) for target in plan.targets)
        return (plan.route.name if plan.route else None, plan.steps, targets)

    def _draw(self, found: object) -> None:
        if not isinstance(found, tuple):
            self._mark(None)
            if isinstance(found, str):
                note(found, "bad")
            else:
                text("Write a model's name to see who would be asked.", "soft small")
            return
        route, steps, targets = found
        self._mark(route)
        with box("plan", "ol"):
            for name, words, tone in targets:
                with box("row-line", "li"):
                    text(name, "strong wrap-anywhere")
                    badge(words, tone)
        for step in steps:
            text(step, "soft small wrap-anywhere", "p")

    def _known(self) -> dict[str, ModelStatus]:
        """The models of this machine, by every name they have."""
        return {
            name: status
            for status in self._console.models.statuses()
            for name in (*status.overrides.aliases, status.entry.name)
        }


def _describe(target: Target, breaker: BreakerState, known: dict[str, ModelStatus]) -> tuple[str, str, str]:
    """The target's name, how it stands in words, and the tone of those."""
    if target.remote is None:
        status = known.get(target.model)
        return (target.label, status.state.value, "good") if status else (target.label, "no such model here", "bad")
    if breaker is BreakerState.CLOSED:
        return target.label, "would be asked", "good"
    words = {BreakerState.OPEN: "left alone, it failed lately", BreakerState.HALF_OPEN: "on trial, it failed lately"}
    return target.label, words[breaker], "warn"
