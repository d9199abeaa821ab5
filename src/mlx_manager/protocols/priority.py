"""How urgent a request is: a field of some dialects, and a header in all of them."""

from __future__ import annotations

from mlx_manager.errors import InvalidRequest
from mlx_manager.ir import Priority


def parse_priority(field: str | None, header: str | None) -> Priority:
    """The priority that the body asks for, or else the header X-Priority. Raises `InvalidRequest`."""
    if field is not None or header is None:
        return Priority(field or Priority.NORMAL)
    word = header.strip().lower()
    if word not in list(Priority):
        raise InvalidRequest(
            f"The header X-Priority cannot be {word[:40]!r}: send high, normal or low.", param="X-Priority"
        )
    return Priority(word)
