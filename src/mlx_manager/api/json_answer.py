"""Answers in JSON, of the routes that have no dialect's form to keep to."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.responses import Response

_UNKEPT = {"cache-control": "no-store"}


def json_answer(body: object, status: int = 200, *, headers: Mapping[str, str] | None = None) -> Response:
    """Whatever msgspec encodes."""
    return Response(msgspec.json.encode(body), status, headers=headers, media_type="application/json")


def unkept_answer(body: object, status: int = 200) -> Response:
    """The same, of which no cache may keep a copy: what concerns people, and who may what."""
    return json_answer(body, status, headers=_UNKEPT)
