"""POST /v1/embeddings."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from mlx_manager.api.openai.replies import ReplyDialect, ReplyExchangeDep
from mlx_manager.protocols.openai import parse_embeddings, render_embeddings

router = APIRouter()
_DIALECT = ReplyDialect(id_prefix="embd-", parse=parse_embeddings, render=render_embeddings)


@router.post("/embeddings")
async def create_embeddings(exchange: ReplyExchangeDep) -> Response:
    """Embed one or several texts."""
    return await exchange.answer(_DIALECT)
