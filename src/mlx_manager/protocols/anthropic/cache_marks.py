"""Cache marks: up to where a provider is to keep a prompt in its cache, and for how long. Here they change nothing."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from mlx_manager.ir import Content, DocumentContent, ImageContent, TextContent
from mlx_manager.protocols.anthropic.wire import CacheControl

_USUAL_TTL = "5m"


def parse_ttl(mark: CacheControl | None) -> str | None:
    """How long to keep what a mark ends; None where there is none."""
    return None if mark is None else mark.ttl or _USUAL_TTL


def with_mark(pieces: tuple[Content, ...], mark: CacheControl | None) -> tuple[Content, ...]:
    """What a block became, with its mark at the end."""
    if mark is None or not pieces or not isinstance(pieces[-1], TextContent | ImageContent | DocumentContent):
        return pieces
    return (*pieces[:-1], replace(pieces[-1], cache_ttl=parse_ttl(mark)))


def render_mark(cache_ttl: str | None) -> dict[str, Any]:
    """The field of a block that a mark is said in; none where there is none."""
    if cache_ttl is None:
        return {}
    return {"cache_control": {"type": "ephemeral"} | ({} if cache_ttl == _USUAL_TTL else {"ttl": cache_ttl})}
