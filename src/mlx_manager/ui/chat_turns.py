"""The turns of the conversation that is shown: the last of them, and earlier ones when they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nicegui import events, ui

from mlx_manager.ui.conversation import Conversation, Turn
from mlx_manager.ui.elements import box, button, dialog, empty_state
from mlx_manager.ui.turn_view import Decide, TurnView

_MOST_SHOWN = 60
_NUM_BEFORE_TURNS = 2
"""Elements of the list that come before the first turn."""
_WELCOME = "Replies are Markdown; pictures go to models that see. Conversations are kept, for your account alone."


@dataclass(frozen=True)
class TurnActions:
    """What can be done with a turn."""

    edit: Callable[[Turn, str], None]
    again: Callable[[Turn], None]
    choose: Callable[[Turn, int], None]
    decide: Decide


class ChatTurns:
    """Drawn where it is made."""

    def __init__(self, actions: TurnActions) -> None:
        self._actions = actions
        self._views: dict[Turn, TurnView] = {}
        self._live: list[TurnView] = []
        """Those that change: a long conversation costs no more than a short one while nobody writes."""
        self._drawn: tuple[str, int, int] | None = None
        self._num_shown = _MOST_SHOWN
        self._list = box("turns").props('role="log" aria-label="Conversation" tabindex="0"')
        with self._list:
            self._welcome = empty_state("forum", "Ask something", _WELCOME)
            self._earlier = button("Show earlier turns", self._show_earlier, icon="expand_less")
        self._list.on("turn-do", self._act, js_handler="(event) => emit(event.detail)")
        ui.timer(0.4, lambda: ui.run_javascript(f"mlxManager.follow('{self._list.html_id}')"), once=True)

    @property
    def is_running(self) -> bool:
        """Whether a reply that is shown is being written."""
        return bool(self._live)

    def update(self, conversation: Conversation) -> None:
        """Show what is new of `conversation`."""
        if self._drawn is not None and self._drawn[0] != conversation.id:
            self._num_shown = _MOST_SHOWN
            ui.run_javascript(f"mlxManager.goToEnd('{self._list.html_id}')")
        wanted = (conversation.id, conversation.shape, self._num_shown)
        if wanted != self._drawn:
            self._drawn = wanted
            self._arrange(conversation.id, conversation.path())
        for view in self._live:
            view.update()
        self._live = [view for view in self._live if view.is_live]

    def _arrange(self, conversation_id: str, path: list[Turn]) -> None:
        """Draw the path. Turns that stay are kept as they are drawn, so that what is open in them stays open."""
        shown = path[-self._num_shown :]
        kept = self._kept(shown)
        for turn, view in self._views.items():
            if turn not in kept:
                view.place.delete()
        drawn = {turn: self._views[turn] for turn in kept}
        num_before = shown.index(kept[0]) if kept else 0
        with self._list:
            for index, turn in enumerate(shown):
                if turn in drawn:
                    continue
                drawn[turn] = TurnView(turn, conversation_id, self._actions.decide)
                if index < num_before:
                    drawn[turn].place.move(target_index=_NUM_BEFORE_TURNS + index)
        self._views = {turn: drawn[turn] for turn in shown}
        self._live = [view for view in self._views.values() if view.is_live]
        self._earlier.set_visibility(len(path) > len(shown))
        self._welcome.set_visibility(not shown)

    def _kept(self, shown: list[Turn]) -> list[Turn]:
        """Those of `shown` that are drawn already, one after the other, as they are to be."""
        kept: list[Turn] = []
        for turn in shown:
            view = self._views.get(turn)
            if view is not None and view.num_branches == len(turn.siblings):
                kept.append(turn)
            elif kept:
                break
        return kept

    def _show_earlier(self) -> None:
        self._num_shown += _MOST_SHOWN

    def _act(self, event: events.GenericEventArguments) -> None:
        """A button of a turn was pressed."""
        said = event.args if isinstance(event.args, dict) else {}
        turn = next((turn for turn in self._views if str(turn.number) == said.get("turn")), None)
        if turn is None:
            return
        match said.get("action"):
            case "edit":
                self._ask_edit(turn)
            case "again":
                self._actions.again(turn)
            case "before":
                self._actions.choose(turn, -1)
            case "after":
                self._actions.choose(turn, 1)
            case _:
                pass

    def _ask_edit(self, turn: Turn) -> None:
        with self._list, dialog("Say it otherwise", is_wide=True) as opened:
            words = ui.textarea("Message", value=turn.said).props("outlined autogrow")

            def send() -> None:
                opened.close()
                self._actions.edit(turn, words.value or "")

            with box("dialog-foot"):
                button("Cancel", opened.close)
                button("Send", send, look="main")
