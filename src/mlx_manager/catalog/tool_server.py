"""A tool server: an MCP server whose tools models may call in the console. Its secrets are not in it."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class ToolServerKind(StrEnum):
    """How a tool server is reached."""

    BUILT_IN = "built-in"
    """It is part of this server."""
    STDIO = "stdio"
    """A command of this machine, which is started when it is needed."""
    HTTP = "http"
    """By its address, over streamable HTTP."""


class ToolServer(msgspec.Struct, frozen=True, kw_only=True):
    """One tool server. Conversations name it by `name`, which never changes."""

    id: int
    name: str
    kind: ToolServerKind
    command: tuple[str, ...] = ()
    """The program and its arguments. No shell looks at them."""
    url: str = ""
    is_on: bool = True
    allows_private_address: bool = False
    """Whether its address may be one of a private network or of this machine."""
    timeout_s: float = 30.0
    """How long one call may take."""
    variable_names: tuple[str, ...] = ()
    """Of the command's environment, whose values are kept like keys."""
    header_names: tuple[str, ...] = ()
    """Of the headers that are sent along, likewise."""


class ToolServerSecret(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept encrypted of a tool server."""

    variables: dict[str, str] = {}
    headers: dict[str, str] = {}


BUILT_IN_TOOL_SERVERS = tuple(
    ToolServer(id=0, name=name, kind=ToolServerKind.BUILT_IN) for name in ("calculator", "weather")
)
