"""Where tool servers are changed: checked, kept, recorded. Only admins come this far: a command runs as this server."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Sequence

import msgspec

from mlx_manager.backends.addresses import AddressRefused, resolve
from mlx_manager.catalog import BUILT_IN_TOOL_SERVERS, ToolServer, ToolServerKind, ToolServerSecret
from mlx_manager.errors import Conflict, InvalidRequest, NotFound
from mlx_manager.storage.named_rows import TOOL_SERVERS
from mlx_manager.storage.store import Change, Store
from mlx_manager.tools import ServerTool, try_server

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_MOST_WORDS, _MOST_WORD_CHARS, _MOST_VALUE_CHARS = 100, 4_000, 8_000
_LONGEST_CALL_S = 600.0


class ToolDesk:
    """What can be done with tool servers. `actor` is who does it, for the audit."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def servers(self) -> Sequence[ToolServer]:
        """Those that were added; the built-in ones are not among them."""
        return self._store.current.tool_servers

    def find(self, name: str) -> ToolServer:
        """Raises `NotFound`."""
        for server in self.servers:
            if server.name == name:
                return server
        raise NotFound(f"There is no tool server {name!r}.", param="name")

    def secret(self, sealed: str | None) -> ToolServerSecret:
        """What is kept encrypted of one. Raises `BrokenSecret`."""
        if sealed is None:
            return ToolServerSecret()
        return msgspec.json.decode(self._store.secrets.unseal(sealed), type=ToolServerSecret)

    def secret_of(self, name: str) -> ToolServerSecret:
        """The same, by name."""
        return self.secret(self._store.current.sealed_of_tools.get(name))

    async def add(self, server: ToolServer, secret: ToolServerSecret, *, actor: str) -> ToolServer:
        """Raises `InvalidRequest` and `Conflict`."""
        server = await _checked(server, secret)
        if any(server.name == other.name for other in BUILT_IN_TOOL_SERVERS):
            raise Conflict(f"{server.name!r} is the name of a tool server that ships. Choose another.")
        async with self._store.changing(_change(actor, "tool_server.create", server)) as session:
            return await TOOL_SERVERS.insert(session, server, secret=self._seal(secret))

    async def change(self, server: ToolServer, secret: ToolServerSecret, *, actor: str) -> ToolServer:
        """Write all of it but its name. Raises `NotFound` and `InvalidRequest`."""
        self.find(server.name)
        server = await _checked(server, secret)
        async with self._store.changing(_change(actor, "tool_server.change", server)) as session:
            await TOOL_SERVERS.change(session, server, secret=self._seal(secret))
        return server

    async def remove(self, name: str, *, actor: str) -> None:
        """Raises `NotFound`."""
        self.find(name)
        async with self._store.changing(Change(actor=actor, action="tool_server.delete", subject=name)) as session:
            await TOOL_SERVERS.remove(session, name)

    async def try_out(self, server: ToolServer, secret: ToolServerSecret) -> Sequence[ServerTool]:
        """Start or reach it as it would be, and see what it offers. Raises `InvalidRequest` and `ToolServerFailed`."""
        return await try_server(await _checked(server, secret), secret)

    def _seal(self, secret: ToolServerSecret) -> str | None:
        return None if secret == ToolServerSecret() else self._store.secrets.seal(msgspec.json.encode(secret))


async def _checked(server: ToolServer, secret: ToolServerSecret) -> ToolServer:
    if not _NAME.fullmatch(server.name):
        raise InvalidRequest(
            "A name has 1 to 32 of a to z, digits, . _ - and begins with a letter or a digit.", param="name"
        )
    if not 0 < server.timeout_s <= _LONGEST_CALL_S:
        raise InvalidRequest(f"timeout_s is more than 0 and at most {_LONGEST_CALL_S:g}.", param="timeout_s")
    if server.kind is ToolServerKind.STDIO:
        _check_command(server, secret)
    elif server.kind is ToolServerKind.HTTP:
        await _check_address(server, secret)
    else:
        raise InvalidRequest("kind is stdio or http: the built-in ones are there already.", param="kind")
    return msgspec.structs.replace(
        server,
        variable_names=tuple(sorted(secret.variables)),
        header_names=tuple(sorted(secret.headers)),
    )


def _check_command(server: ToolServer, secret: ToolServerSecret) -> None:
    words = server.command
    if not words or not words[0].strip():
        raise InvalidRequest("The kind stdio needs a command: the program and its arguments.", param="command")
    if len(words) > _MOST_WORDS or any("\0" in word or len(word) > _MOST_WORD_CHARS for word in words):
        raise InvalidRequest(
            f"A command has {_MOST_WORDS} words of {_MOST_WORD_CHARS} characters at most, and no NUL.", param="command"
        )
    if server.url or secret.headers:
        raise InvalidRequest("url and headers are for the kind http.", param="url")
    for name, value in secret.variables.items():
        if not _VARIABLE.fullmatch(name) or "\0" in value or len(value) > _MOST_VALUE_CHARS:
            raise InvalidRequest(f"The variable {name[:64]!r} cannot be set.", param="variables")


async def _check_address(server: ToolServer, secret: ToolServerSecret) -> None:
    if server.command or secret.variables:
        raise InvalidRequest("command and variables are for the kind stdio.", param="command")
    try:
        parsed = urllib.parse.urlsplit(server.url)
    except ValueError as error:
        raise InvalidRequest(f"url is no address: {error}.", param="url") from None
    if parsed.scheme not in ("http", "https") or not parsed.hostname or parsed.username:
        raise InvalidRequest("url looks like https://host/mcp, without user and password.", param="url")
    for name, value in secret.headers.items():
        is_sendable = _HEADER.fullmatch(name) and value.isprintable() and value.isascii()
        if not is_sendable or len(value) > _MOST_VALUE_CHARS or name.lower() in ("host", "content-length"):
            raise InvalidRequest(f"The header {name[:64]!r} cannot be sent along.", param="headers")
    try:
        port = parsed.port or (443 if parsed.scheme == "https" else 80)
        await resolve(parsed.hostname, port, allows_private=server.allows_private_address)
    except AddressRefused as error:
        raise InvalidRequest(error.message.replace("provider", "tool server"), param="url") from None
    except ValueError:
        raise InvalidRequest("The port of url is none.", param="url") from None
    except OSError:
        # no network now: the address is looked at again with every connection
        pass


def _change(actor: str, action: str, server: ToolServer) -> Change:
    detail = msgspec.to_builtins(server)
    for name in ("id", "name"):
        detail.pop(name, None)
    return Change(actor=actor, action=action, subject=server.name, detail=detail)
