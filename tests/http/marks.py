"""Cache marks of Anthropic's dialect, which only providers are told."""

from __future__ import annotations

import re

import msgspec


def unmarked(said: object) -> bytes:
    """Anything of `ir` as JSON, as a model here is told it: without its cache marks."""
    return re.sub(rb'"cache_ttl":"[a-z0-9]+"', b'"cache_ttl":null', msgspec.json.encode(said))
