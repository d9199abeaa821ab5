"""Routes: which requests go where, in which order they are looked at, and what would become of one."""

from __future__ import annotations

import msgspec
from nicegui import ui
from nicegui.events import SortableEventArguments
from starlette.requests import Request

from mlx_manager.catalog import Route, RouteConditions, RouteTarget, Spill, TargetOrder
from mlx_manager.ui.console import Console, console_of, viewer_of
from mlx_manager.ui.elements import ask, badge, box, button, complaining, empty_state, set_words, text
from mlx_manager.ui.frame import frame
from mlx_manager.ui.paths import ROUTES
from mlx_manager.ui.route_dialog import RouteDialog
from mlx_manager.ui.route_trial import RouteTrial
from mlx_manager.ui.words import render_duration


def routes_page(request: Request) -> None:
    """Builds the page."""
    console = console_of(request)
    with frame(console, request, ROUTES):
        view = _RoutesView(console, viewer_of(request).label)
    view.update()
    ui.timer(2.0, view.update)


class _RoutesView:
    """The routes in the order in which they are looked at. `actor` is who changes things here."""

    def __init__(self, console: Console, actor: str) -> None:
        self._console = console
        self._actor = actor
        self._drawn: tuple[Route, ...] | None = None
        self._rows: dict[str, ui.element] = {}
        with box("page-head"):
            text("Routes", "grow", "h1")
            button("Add a route", lambda: self._edit(None), icon="add", look="main")
        words = (
            "The first route that is on, whose pattern matches the model that a request names and whose conditions "
            "hold decides. Where none does, this machine answers. Drag a route by its handle, or move the handle with "
            "the arrow keys."
        )
        text(words, "soft small", "p")
        self._trial = RouteTrial(console, self._mark)
        self._place = ui.column().classes("list ordered")
        self._place.make_sortable(on_end=self._dropped, handle=".handle")
        self._nothing = empty_state(
            "alt_route", "No route yet", "Every request stays on this machine. Add a route to send some elsewhere."
        )
        self._said = text("", "visually-hidden").props('aria-live="polite"')

    def update(self) -> None:
        """Draw the routes anew when one has changed, or another admin has moved one."""
        routes = self._console.find_configuration().routes
        if routes != self._drawn:
            if self._drawn is None or _contents(routes) != _contents(self._drawn):
                self._draw(routes)
            self._arrange(routes)
            self._nothing.set_visibility(not routes)
            self._place.set_visibility(bool(routes))
        self._trial.update()

    def _arrange(self, routes: tuple[Route, ...]) -> None:
        """Put the rows in order; they keep the focus and what is open in them."""
        self._drawn = routes
        shown = [element for element in self._place.default_slot.children if element in self._rows.values()]
        wanted = [self._rows[route.name] for route in routes]
        if shown != wanted:
            for index, row in enumerate(wanted):
                row.move(self._place, index)

    def _draw(self, routes: tuple[Route, ...]) -> None:
        self._place.clear()
        self._rows.clear()
        with self._place:
            for route in routes:
                self._rows[route.name] = self._row(route)

    def _row(self, route: Route) -> ui.element:
        with box("row-item", "article") as row:
            row.props["aria-label"] = route.name
            handle = button("", icon="drag_indicator", look="bare tiny", name=f"Move {route.name}").classes("handle")
            handle.on("keydown.up.prevent", lambda: self._move(route.name, -1, handle))
            handle.on("keydown.down.prevent", lambda: self._move(route.name, 1, handle))
            with box("stack grow").style("flex-basis: 260px; gap: 4px"):
                with box("row-line"):
                    text(route.name, "place", "h3")
                    badge(route.pattern_kind.value)
                    text(route.pattern, "mono wrap-anywhere")
                text(_describe_targets(route), "small wrap-anywhere", "p")
                for words in (_describe_conditions(route.conditions), _describe_spill(route.spill)):
                    if words:
                        text(words, "soft small wrap-anywhere", "p")
            with box("row-line end"):
                switch = ui.switch("On", value=route.is_on).props("dense")
                switch.props["aria-label"] = f"{route.name} is on"
                switch.on_value_change(lambda event: self._switch(route, event.value))
                button("Edit", lambda: self._edit(route), icon="edit")
                button("", lambda: self._ask_remove(route), icon="delete", look="bare", name=f"Delete {route.name}")
        return row

    async def _dropped(self, event: SortableEventArguments) -> None:
        if event.old_index != event.new_index:
            await self._reorder(event.old_index, event.new_index)

    async def _move(self, name: str, step: int, handle: ui.button) -> None:
        """Called for the arrow keys on a handle, which keeps the focus."""
        names = [route.name for route in self._drawn or ()]
        index = names.index(name)
        if 0 <= index + step < len(names):
            await self._reorder(index, index + step)
            if not handle.is_deleted:
                ui.run_javascript(f"document.getElementById('{handle.html_id}').focus()")

    async def _reorder(self, old_index: int, new_index: int) -> None:
        names = [route.name for route in self._drawn or ()]
        name = names[old_index]
        with complaining():
            await self._console.desk.move_route(name, new_index + 1, actor=self._actor)
            set_words(self._said, f"{name} is now route {new_index + 1} of {len(names)}.")
        if not self._place.is_deleted:
            # back again where it was not taken
            self._arrange(self._console.find_configuration().routes)
            self.update()

    async def _switch(self, route: Route, is_on: bool) -> None:
        with complaining():
            await self._console.desk.change_route(route.name, {"is_on": is_on}, actor=self._actor)
        self._redraw()

    def _edit(self, route: Route | None) -> None:
        RouteDialog(self._console, self._actor, self._redraw, route).open()

    def _ask_remove(self, route: Route) -> None:
        async def remove() -> None:
            await self._console.desk.remove_route(route.name, actor=self._actor)
            self._redraw()

        words = f"Requests for {route.pattern} are then answered as the routes below it say."
        ask(f"Delete {route.name}?", words, "Delete it", remove)

    def _redraw(self) -> None:
        self._drawn = None
        if not self._place.is_deleted:
            self.update()

    def _mark(self, name: str | None) -> None:
        """Show which route the trial's request goes by."""
        for other, row in self._rows.items():
            row.classes(add="hot" if other == name else "", remove="" if other == name else "hot")


def _contents(routes: tuple[Route, ...]) -> dict[str, Route]:
    """The routes by name, wherever they stand."""
    return {route.name: msgspec.structs.replace(route, position=0) for route in routes}


def _describe_targets(route: Route) -> str:
    by_conversation = route.order is TargetOrder.CONVERSATION and len(route.targets) > 1
    words = (" or " if by_conversation else ", then ").join(_describe_target(target) for target in route.targets)
    return f"→ {words}{', by conversation' if by_conversation else ''}"


def _describe_target(target: RouteTarget) -> str:
    return f"{target.provider or 'this machine'}: {target.model or 'the model named'}"


def _describe_conditions(conditions: RouteConditions) -> str:
    least = conditions.longer_than_tokens
    said = [
        f"prompts over {least:,} tokens" if least is not None else "",
        _describe_either(conditions.has_images, "images"),
        _describe_either(conditions.needs_tools, "tools"),
        f"of {', '.join(conditions.users)}" if conditions.users else "",
        f"with the key {' or '.join(conditions.keys)}" if conditions.keys else "",
    ]
    words = ", ".join(part for part in said if part)
    return f"Only {words}." if words else ""


def _describe_either(wanted: bool | None, what: str) -> str:
    return "" if wanted is None else f"with {what}" if wanted else f"without {what}"


def _describe_spill(spill: Spill) -> str:
    said = [
        f"the queue is longer than {render_duration(spill.queue_wait_s)}" if spill.queue_wait_s is not None else "",
        "the prompt is too long for the local model" if spill.when_too_long else "",
    ]
    words = " or ".join(part for part in said if part)
    return f"On to the next target when {words}." if words else ""
