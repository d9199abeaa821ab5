"""One question to a provider, as its trace tells it: what goes along with it, and what came back beside the answer."""

from __future__ import annotations

import secrets
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Call:
    """One attempt to have a request answered. Written by the backend that is asked, but where a field says so."""

    trace_id: str = ""
    """Written by the gateway, like the next: 32 hexadecimal digits."""
    span_id: str = field(default_factory=lambda: secrets.token_hex(8))
    """16 of them."""
    address: str | None = None
    """Host of a provider; None on this machine."""
    port: int | None = None
    status: int | None = None
    """Of the last HTTP answer."""
    num_retries: int = 0
    """How often it was sent again."""
    headers_s: float | None = None
    """When the last HTTP answer began, on the monotonic clock."""
    answer_id: str | None = None
    """The provider's own."""
    answer_model: str | None = None
    """The model that the provider says has answered."""

    @property
    def traceparent(self) -> str | None:
        """The W3C header that makes the provider's own trace a part of this one."""
        return f"00-{self.trace_id}-{self.span_id}-01" if self.trace_id else None


def current_call() -> Call:
    """The attempt that this task makes; an empty one outside of any."""
    return _CURRENT.get() or Call()


def enter_call(call: Call) -> None:
    """From here on this task makes `call`."""
    _CURRENT.set(call)


_CURRENT: ContextVar[Call | None] = ContextVar("call", default=None)
