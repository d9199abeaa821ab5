"""Where a request came from: what the edge of the server knows of it, for its account and its trace."""

from __future__ import annotations

import secrets
import time
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Origin:
    """One HTTP request, while it is being answered. Written by the edge, but where a field says otherwise."""

    request_id: str = ""
    path: str = ""
    dialect: str | None = None
    """openai or anthropic; None outside of /v1."""
    client_address: str | None = None
    user_agent: str | None = None
    arrived_unix_s: float = field(default_factory=time.time)
    arrived_s: float = field(default_factory=time.monotonic)
    """On the monotonic clock."""
    trace_id: str = field(default_factory=lambda: secrets.token_hex(16))
    """32 hexadecimal digits: the client's, where it sent a `traceparent`."""
    parent_span_id: str | None = None
    """The client's span, where it sent one."""
    span_id: str = field(default_factory=lambda: secrets.token_hex(8))
    """Of the whole HTTP request: 16 hexadecimal digits."""
    user: str | None = None
    """Written by who lets it in."""
    key: str | None = None
    """The name of the API key; written by who lets it in."""
    key_id: int | None = None
    """Its number, likewise."""
    error_code: str | None = None
    """Written where an error becomes an answer."""
    num_records: int = 0
    """Written by the gateway: the records that were made of it, one per prompt."""

    @property
    def duration_s(self) -> float:
        """Since it arrived."""
        return round(time.monotonic() - self.arrived_s, 6)


def current_origin() -> Origin:
    """Where the request came from that this task works for; an empty one where there is no HTTP request."""
    return _CURRENT.get() or Origin()


def enter_origin(origin: Origin) -> None:
    """From here on this task, and those it starts, work for `origin`."""
    _CURRENT.set(origin)


_CURRENT: ContextVar[Origin | None] = ContextVar("origin", default=None)
