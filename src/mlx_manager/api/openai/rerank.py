"""POST /v1/rerank."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from mlx_manager.api.openai.replies import ReplyDialect, ReplyExchangeDep
from mlx_manager.protocols.openai import parse_rerank, render_rerank

router = APIRouter()
_DIALECT = ReplyDialect(id_prefix="rerank-", parse=parse_rerank, render=render_rerank)


@router.post("/rerank")
async def rank_documents(exchange: ReplyExchangeDep) -> Response:
    """Order documents by how well they answer a query."""
    return await exchange.answer(_DIALECT)
