"""A route in a form: its pattern, its targets in order, its conditions, and when it goes on to the next target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import ui

from mlx_manager.catalog import PatternKind, Route, RouteConditions, RouteTarget, Spill, TargetOrder
from mlx_manager.errors import InvalidRequest, MlxManagerError
from mlx_manager.ui.console import Console
from mlx_manager.ui.elements import box, button, dialog, note, text
from mlx_manager.ui.fields import clear_errors, dress, read_number, show_error

_KINDS = {
    PatternKind.EXACT.value: "the whole name",
    PatternKind.PREFIX.value: "names that begin with it",
    PatternKind.REGEX.value: "a regular expression (RE2)",
}
_ORDERS = {
    TargetOrder.LISTED.value: "the first of them",
    TargetOrder.CONVERSATION.value: "the one that had the conversation before, and so has it in its prefix cache",
}
_HERE = ""
_EITHER = {"": "does not matter", "yes": "yes", "no": "no"}
_SAID = {None: "", True: "yes", False: "no"}
_NEW = Route(id=0, name="", position=0, pattern_kind=PatternKind.EXACT, pattern="", targets=(RouteTarget(),))


class RouteDialog:
    """Of one route, or of a new one, which goes behind all others."""

    def __init__(self, console: Console, actor: str, on_saved: Callable[[], None], route: Route | None = None) -> None:
        self._console = console
        self._actor = actor
        self._on_saved = on_saved
        self._old = route
        self._fields: dict[str, Any] = {}
        self._targets: list[tuple[ui.select, ui.input]] = []

    def open(self) -> None:
        """Show it."""
        route = self._old or _NEW
        with dialog(f"Edit {route.name}" if self._old else "Add a route", is_wide=True) as opened:
            with box("form-grid"):
                if self._old is None:
                    self._field("name", ui.input("Name").props('autocomplete="off" autofocus'), "a to z, digits, . _ -")
                kind = ui.select(_KINDS, label="Matches", value=route.pattern_kind.value)
                self._field("pattern_kind", kind)
                self._field("pattern", ui.input("Model's name", value=route.pattern).props('autocomplete="off"'))
            text("Targets, in order", tag="h3")
            self._target_list = box("list")
            for target in route.targets:
                self._add_target(target)
            with box("row-line"):
                button("Add a target", lambda: self._add_target(RouteTarget()), icon="add")
                text("An empty model is the one that the request names; * is what follows a prefix.", "soft small")
            order = ui.select(_ORDERS, label="Which is asked first", value=route.order.value)
            self._field("order", order)
            self._condition_fields(route)
            self._outcome = box()
            with box("dialog-foot"):
                button("Cancel", opened.close)
                button("Save" if self._old else "Add", lambda: self._save(opened), look="main")

    def _field(self, name: str, field: Any, hint: str = "") -> None:
        dress(field, hint)
        self._fields[name] = field

    def _condition_fields(self, route: Route) -> None:
        said, spill = route.conditions, route.spill
        text("Only for requests", tag="h3")
        with box("form-grid"):
            least = ui.input("Longer than, tokens", value=_number(said.longer_than_tokens)).props('inputmode="numeric"')
            self._field("longer_than_tokens", least, "estimated")
            self._field("has_images", ui.select(_EITHER, label="With images", value=_SAID[said.has_images]))
            self._field("needs_tools", ui.select(_EITHER, label="With tools", value=_SAID[said.needs_tools]))
            users = {user.name: user.name for user in self._console.people.all()} | {name: name for name in said.users}
            self._field("users", ui.select(users, label="Of users", value=list(said.users), multiple=True))
            keys = {label: label for label in (*self._console.key_labels(), *said.keys)}
            self._field("keys", ui.select(keys, label="With API keys", value=list(said.keys), multiple=True))
            for name in ("users", "keys"):
                self._fields[name].props("use-chips options-dense")
        text("On from this machine to the next target", tag="h3")
        with box("form-grid"):
            wait = ui.input("When others wait, seconds", value=_number(spill.queue_wait_s))
            self._field("spill", wait.props('inputmode="decimal"'), "longer than this")
            self._fields["when_too_long"] = ui.checkbox(
                "When the prompt is too long for the local model", value=spill.when_too_long
            ).props("dense")

    def _add_target(self, target: RouteTarget) -> None:
        providers = sorted(provider.name for provider in self._console.find_configuration().providers)
        if target.provider and target.provider not in providers:
            providers.append(target.provider)
        with self._target_list, box("row-line target") as row:
            chooser = ui.select(
                {_HERE: "this machine", **{name: name for name in providers}},
                label="Who",
                value=target.provider or _HERE,
            ).props("outlined dense options-dense")
            chooser.style("min-width: 150px")
            model = (
                ui.input("Model", value=target.model or "").props('outlined dense autocomplete="off"').classes("grow")
            )
            pair = (chooser, model)
            self._targets.append(pair)

            def move_up() -> None:
                index = self._targets.index(pair)
                if index:
                    self._targets.insert(index - 1, self._targets.pop(index))
                    row.move(self._target_list, index - 1)

            def remove() -> None:
                self._targets.remove(pair)
                row.delete()

            button("", move_up, icon="arrow_upward", look="bare tiny", name="Ask this target earlier")
            button("", remove, icon="close", look="bare tiny", name="Remove this target")

    async def _save(self, opened: ui.dialog) -> None:
        clear_errors(self._fields)
        self._outcome.clear()
        desk = self._console.desk
        try:
            values = self._values()
            if self._old is None:
                name = (self._fields["name"].value or "").strip()
                await desk.add_route(Route(id=0, name=name, position=0, **values), actor=self._actor)
            else:
                await desk.change_route(self._old.name, values, actor=self._actor)
        except MlxManagerError as error:
            self._complain(error)
            return
        opened.close()
        self._on_saved()

    def _complain(self, error: MlxManagerError) -> None:
        if isinstance(error, InvalidRequest) and (error.param or "").partition(".")[0] in self._fields:
            show_error(self._fields, error, "pattern")
            return
        with self._outcome:
            note(error.message, "bad")

    def _values(self) -> dict[str, Any]:
        """What the form says, by the names of `Route`. Raises `InvalidRequest`."""
        fields = self._fields
        least = read_number(fields["longer_than_tokens"], "longer_than_tokens")
        either = {"": None, "yes": True, "no": False}
        return {
            "pattern_kind": PatternKind(fields["pattern_kind"].value),
            "pattern": (fields["pattern"].value or "").strip(),
            "targets": tuple(
                RouteTarget(provider=who.value or None, model=(model.value or "").strip() or None)
                for who, model in self._targets
            ),
            "order": TargetOrder(fields["order"].value),
            "conditions": RouteConditions(
                longer_than_tokens=None if least is None else int(least),
                has_images=either[fields["has_images"].value],
                needs_tools=either[fields["needs_tools"].value],
                users=tuple(fields["users"].value or ()),
                keys=tuple(fields["keys"].value or ()),
            ),
            "spill": Spill(
                queue_wait_s=read_number(fields["spill"], "spill"), when_too_long=bool(fields["when_too_long"].value)
            ),
        }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
