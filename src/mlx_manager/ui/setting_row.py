"""One setting: what it does, its value in a field that fits its type, its source, and when a change holds."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from mlx_manager.catalog import Effect, Origin, Setting, Source
from mlx_manager.errors import MlxManagerError
from mlx_manager.gateway import LiveSettings
from mlx_manager.ui.elements import badge, box, button, set_words, tell, text

_EFFECTS = {
    Effect.AT_ONCE: "holds at once",
    Effect.NEXT_LOAD: "holds with the next load of a model",
    Effect.RESTART: "needs a restart",
    Effect.FIXED: "only from outside, needs a restart",
}


class SettingRow:
    """Made inside the element that is to hold it; `update` shows how its setting stands."""

    def __init__(self, live: LiveSettings, actor: str, setting: Setting) -> None:
        self._live = live
        self._actor = actor
        self._setting = setting
        self._shown: Origin | None = None
        self.haystack = f"{setting.name} {setting.name.replace('_', ' ')} {setting.help}".lower()
        """What is searched, in lower case."""
        self.place = box("setting")
        self.place.props('role="group"')
        self.place.props["aria-label"] = setting.name
        with self.place:
            with box("stack setting-words"):
                with box("row-line"):
                    text(setting.name, "mono strong wrap-anywhere", "h3")
                    self._source = badge("")
                    badge(_EFFECTS[setting.takes_effect], "warn" if setting.takes_effect is Effect.RESTART else "")
                    self._waits = badge("changed, holds after a restart", "accent")
                text(setting.help, "soft small", "p")
            with box("row-line setting-value"):
                self._field = self._make_field()
                self._save = button("Save", self._save_text, look="main")
                self._back = button("Go back", lambda: self._change(None), icon="undo", look="tiny")
                self._back.props["aria-label"] = f"Go back to what {setting.name} was started with"

    def update(self) -> None:
        """Show the value that holds, unless another is being typed."""
        origin = self._live.origin(self._setting)
        self._waits.set_visibility(self._live.waits_for_restart(self._setting))
        if origin == self._shown:
            return
        is_typing = self._shown is not None and self._is_dirty
        self._shown = origin
        set_words(self._source, self._describe(origin.source))
        self._source.classes(replace=f"badge {'accent' if origin.source is Source.DATABASE else ''}")
        self._back.set_visibility(origin.source is Source.DATABASE)
        if not is_typing:
            self._show_value()

    def _make_field(self) -> Any:
        setting = self._setting
        if not setting.is_changeable:
            return text("", "mono wrap-anywhere")
        if setting.type == "flag":
            field: Any = ui.switch().props("dense")
            field.on_value_change(self._picked)
        elif setting.choices:
            field = ui.select(list(setting.choices)).props("outlined dense options-dense")
            field.on_value_change(self._picked)
        else:
            field = ui.input(placeholder=_placeholder(setting)).props('outlined dense autocomplete="off"')
            field.on_value_change(lambda: self._save.set_visibility(self._is_dirty))
            field.on("keydown.enter", self._save_text)
            if setting.unit and setting.type not in ("bytes", "size or share"):
                field.props["suffix"] = setting.unit
        field.props["aria-label"] = setting.name
        return field.classes("grow")

    @property
    def _is_typed(self) -> bool:
        return self._setting.is_changeable and self._setting.type != "flag" and not self._setting.choices

    @property
    def _is_dirty(self) -> bool:
        return self._is_typed and (self._field.value or "") != self._words()

    def _words(self) -> str:
        """The value that holds, as the field has it."""
        said = self._live.origin(self._setting).said
        if said is None or (self._setting.is_secret and self._is_typed):
            return ""
        if self._setting.is_secret:
            return "…"
        return _render(said)

    def _held(self) -> Any:
        """The value that holds, of a setting that is picked and not typed."""
        return self._setting.parse(self._live.origin(self._setting).said)

    def _show_value(self) -> None:
        if not self._setting.is_changeable:
            set_words(self._field, self._words() or "not set")
        elif self._setting.type == "flag" or self._setting.choices:
            self._field.set_value(self._held())
        else:
            self._field.set_value(self._words())
            if self._setting.is_secret and self._live.origin(self._setting).said is not None:
                self._field.props["placeholder"] = "set, and not shown"
        self._save.set_visibility(False)

    async def _picked(self, event: Any) -> None:
        # what is shown comes back as an event, too
        if event.value != self._held():
            await self._change(event.value)

    async def _save_text(self) -> None:
        words = (self._field.value or "").strip()
        # an empty list is a list; nothing at all leaves it to what the server was started with
        await self._change(self._as_said(words) if words else ([] if self._setting.type == "list" else None))

    def _as_said(self, words: str) -> object:
        """Numbers as numbers; sizes, names and what is wrong as they were typed."""
        if self._setting.type in ("bytes", "size or share"):
            return words
        try:
            parsed = self._setting.parse(words)
        except ValueError:
            return words
        return parsed if isinstance(parsed, int | float) else words

    async def _change(self, said: Any) -> None:
        self._field.props(remove="error error-message")
        try:
            await self._live.change({self._setting.name: said}, actor=self._actor)
        except MlxManagerError as error:
            if self._is_typed:
                self._field.props["error"] = True
                self._field.props["error-message"] = error.message
            else:
                tell(error.message, "negative")
                self._show_value()
            return
        if not self.place.is_deleted:
            self._show_value()
            self.update()
            tell(f"{self._setting.name}: saved, {_EFFECTS[self._setting.takes_effect]}.", "positive")

    def _describe(self, source: Source) -> str:
        return {
            Source.DEFAULT: "default",
            Source.FILE: "from config.toml",
            Source.ENVIRONMENT: f"from {self._setting.env}",
            Source.FLAG: f"from {self._setting.flag}",
            Source.DATABASE: "changed here",
        }[source]


def _placeholder(setting: Setting) -> str:
    return "not set" if setting.default in (None, ()) else _render(setting.default)


def _render(said: object) -> str:
    if isinstance(said, list | tuple):
        return ", ".join(map(str, said))
    if isinstance(said, bool):
        return str(said).lower()
    return f"{said:g}" if isinstance(said, float) else str(said)
