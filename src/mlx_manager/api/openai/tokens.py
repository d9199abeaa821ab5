"""POST /tokenize and POST /detokenize, in the form that vLLM gave them."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from mlx_manager.api.openai.replies import ReplyDialect, ReplyExchangeDep
from mlx_manager.gateway import Gateway
from mlx_manager.protocols.openai import parse_detokenize, parse_tokenize, render_detokenize, render_tokenize

router = APIRouter()
_TOKENIZE = ReplyDialect(id_prefix="tok-", parse=parse_tokenize, render=render_tokenize, ask=Gateway.tokenize)
_DETOKENIZE = ReplyDialect(id_prefix="tok-", parse=parse_detokenize, render=render_detokenize, ask=Gateway.tokenize)


@router.post("/tokenize")
async def tokenize(exchange: ReplyExchangeDep) -> Response:
    """The tokens of a text, or of a conversation in the model's own template."""
    return await exchange.answer(_TOKENIZE)


@router.post("/detokenize")
async def detokenize(exchange: ReplyExchangeDep) -> Response:
    """The text of tokens."""
    return await exchange.answer(_DETOKENIZE)
