"""POST /v1/chat/completions."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from mlx_manager.api.openai.answer import Dialect, ExchangeDep
from mlx_manager.protocols.openai import ChatEncoder, parse_chat, render_chat

router = APIRouter()
_DIALECT = Dialect(id_prefix="chatcmpl-", parse=parse_chat, encoder=ChatEncoder, render=render_chat)


@router.post("/chat/completions")
async def create_chat_completion(exchange: ExchangeDep) -> Response:
    """Answer a conversation."""
    return await exchange.answer(_DIALECT)
