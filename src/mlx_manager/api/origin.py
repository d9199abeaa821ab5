"""Where a request came from, read off its connection and headers. What clients send is bounded and made printable."""

from __future__ import annotations

import re
import secrets

from starlette.datastructures import Headers
from starlette.types import Scope

from mlx_manager.api.dialect import speaks_anthropic
from mlx_manager.ir import Origin, printable

_MAX_LENGTH = 200
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_NOTHING = re.compile(r"0+")


def origin_of(scope: Scope, request_id: str) -> Origin:
    """The origin of an HTTP request. A W3C `traceparent` of the client's is followed; a broken one counts as none."""
    headers = Headers(scope=scope)
    client = scope.get("client")
    trace_id, parent_span_id = _trace_of(headers.get("traceparent", ""))
    return Origin(
        request_id=request_id,
        path=printable(str(scope["path"]), _MAX_LENGTH),
        dialect=_dialect_of(scope),
        client_address=client[0] if client else None,
        user_agent=printable(headers.get("user-agent", ""), _MAX_LENGTH) or None,
        trace_id=trace_id,
        parent_span_id=parent_span_id,
    )


def is_accountable(scope: Scope) -> bool:
    """Whether an HTTP request asks for work, so that it is accounted for even when nobody takes it up."""
    return scope["method"] == "POST" and str(scope["path"]).startswith("/v1/")


def _dialect_of(scope: Scope) -> str | None:
    if not str(scope["path"]).startswith("/v1/"):
        return None
    return "anthropic" if speaks_anthropic(scope) else "openai"


def _trace_of(traceparent: str) -> tuple[str, str | None]:
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or _NOTHING.fullmatch(found["trace"]) or _NOTHING.fullmatch(found["span"]):
        return secrets.token_hex(16), None
    return found["trace"], found["span"]
