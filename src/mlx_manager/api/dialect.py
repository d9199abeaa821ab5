"""Which dialect a request is in, as far as its path and headers tell."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import Scope

VERSION_HEADER = "anthropic-version"
"""Sent by every client of Anthropic's dialect."""


def speaks_anthropic(scope: Scope) -> bool:
    """Whether an HTTP request is in Anthropic's dialect; any other is in OpenAI's."""
    path = str(scope["path"])
    return path == "/v1/messages" or path.startswith("/v1/messages/") or VERSION_HEADER in Headers(scope=scope)
