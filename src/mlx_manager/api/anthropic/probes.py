"""What clients of this dialect ask to see whether a server is there at all."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from starlette.responses import Response

from mlx_manager.api.who import admit_anybody

router = APIRouter(include_in_schema=False, dependencies=[Depends(admit_anybody)])


@router.head("/")
async def answer_probe() -> Response:
    """Claude Code asks this of its base URL before its first request."""
    return Response()


@router.get("/api/hello")
@router.head("/api/hello")
async def say_hello() -> Response:
    """The provider's own sign of life."""
    return Response(b'{"message": "hello"}', media_type="application/json")
