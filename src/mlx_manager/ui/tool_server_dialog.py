"""The form of a tool server in a dialog: filled, tried, saved."""

from __future__ import annotations

import shlex
from collections.abc import Callable

import msgspec
from nicegui import ui

from mlx_manager.catalog import ToolServer, ToolServerKind, ToolServerSecret
from mlx_manager.errors import InvalidRequest, MlxManagerError
from mlx_manager.gateway import ToolDesk
from mlx_manager.ui.elements import box, button, dialog, note, text

_KINDS = {ToolServerKind.STDIO: "a command of this machine", ToolServerKind.HTTP: "an address (streamable HTTP)"}


class ToolServerDialog:
    """Opened when it is made. `known` is the server to be changed; None adds one. `on_saved` hears of what is kept."""

    def __init__(self, desk: ToolDesk, actor: str, known: ToolServer | None, on_saved: Callable[[], None]) -> None:
        self._desk = desk
        self._actor = actor
        self._known = known
        self._on_saved = on_saved
        server = known or ToolServer(id=0, name="", kind=ToolServerKind.STDIO)
        with dialog(f"Change {known.name}" if known else "Add a tool server", is_wide=True) as self._dialog:
            with box("form-grid"):
                self._name = _field(ui.input("Name", value=server.name))
                self._kind = ui.select(_KINDS, value=server.kind, label="Kind").props("outlined dense options-dense")
                self._timeout = ui.number("Longest call, seconds", value=server.timeout_s, min=1)
                self._timeout.props("outlined dense")
            self._draw_command(server)
            self._draw_address(server)
            self._said = box("stack").props('aria-live="polite"')
            with box("dialog-foot"):
                button("Cancel", self._dialog.close)
                button("Try it", self._try, icon="play_arrow")
                button("Save", self._save, look="main")
        self._name.set_enabled(known is None)
        self._kind.set_enabled(known is None)
        self._kind.on_value_change(self._show_kind)
        self._show_kind()

    def _draw_command(self, server: ToolServer) -> None:
        with box("stack") as self._of_command:
            self._command = _field(ui.input("Command", value=shlex.join(server.command)))
            text("The program and its arguments, quoted as for a shell; no shell reads them.", "soft small", "p")
            self._variables = _lines("Environment: one NAME=value a line")
            _say_kept(server.variable_names)

    def _draw_address(self, server: ToolServer) -> None:
        with box("stack") as self._of_address:
            self._url = _field(ui.input("Address", value=server.url, placeholder="https://host/mcp"))
            self._headers = _lines("Headers: one Name: value a line")
            _say_kept(server.header_names)
            label = "It may be on this machine or in a private network"
            self._allows_private = ui.checkbox(label, value=server.allows_private_address).props("dense")

    def _show_kind(self) -> None:
        is_command = self._kind.value is ToolServerKind.STDIO
        self._of_command.set_visibility(is_command)
        self._of_address.set_visibility(not is_command)

    def _read(self) -> tuple[ToolServer, ToolServerSecret]:
        """What was written. Raises `InvalidRequest`."""
        is_command = self._kind.value is ToolServerKind.STDIO
        try:
            command = tuple(shlex.split(self._command.value or "")) if is_command else ()
        except ValueError:
            raise InvalidRequest("The command has a quote that does not end.", param="command") from None
        known = self._known or ToolServer(id=0, name=(self._name.value or "").strip(), kind=self._kind.value)
        kept = self._desk.secret_of(known.name) if self._known is not None else ToolServerSecret()
        variables = _pairs(self._variables.value, "=", "variable") if is_command else {}
        headers = {} if is_command else _pairs(self._headers.value, ":", "header")
        server = msgspec.structs.replace(
            known,
            command=command,
            url="" if is_command else (self._url.value or "").strip(),
            allows_private_address=not is_command and bool(self._allows_private.value),
            timeout_s=float(self._timeout.value or 0),
        )
        return server, ToolServerSecret(variables=variables or kept.variables, headers=headers or kept.headers)

    async def _try(self) -> None:
        self._say("Asking it …", "info")
        try:
            tools = await self._desk.try_out(*self._read())
        except MlxManagerError as error:
            self._say(error.message, "bad")
        else:
            names = ", ".join(tool.name for tool in tools)
            self._say(f"It answers. Its tools: {names}." if tools else "It answers, and offers no tools.", "info")

    async def _save(self) -> None:
        try:
            server, secret = self._read()
            if self._known is None:
                await self._desk.add(server, secret, actor=self._actor)
            else:
                await self._desk.change(server, secret, actor=self._actor)
        except MlxManagerError as error:
            self._say(error.message, "bad")
            return
        self._dialog.close()
        self._on_saved()

    def _say(self, words: str, tone: str) -> None:
        self._said.clear()
        with self._said:
            note(words, "bad" if tone == "bad" else "info")


def _field(made: ui.input) -> ui.input:
    return made.props("outlined dense autocomplete=off spellcheck=false")


def _lines(label: str) -> ui.textarea:
    return ui.textarea(label).props("outlined dense autogrow autocomplete=off spellcheck=false")


def _say_kept(names: tuple[str, ...]) -> None:
    if names:
        text(f"Kept: {', '.join(names)}. What is written here replaces all of them.", "soft small", "p")


def _pairs(written: str | None, separator: str, what: str) -> dict[str, str]:
    pairs = {}
    for line in (written or "").splitlines():
        if line.strip():
            name, found, value = line.partition(separator)
            if not found:
                raise InvalidRequest(f"Each {what} is a line: name{separator}value.", param=f"{what}s")
            pairs[name.strip()] = value.strip()
    return pairs
