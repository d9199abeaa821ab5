"""POST /v1/completions."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from mlx_manager.api.openai.answer import Dialect, ExchangeDep
from mlx_manager.protocols.openai import CompletionEncoder, parse_completion, render_completion

router = APIRouter()
_DIALECT = Dialect(id_prefix="cmpl-", parse=parse_completion, encoder=CompletionEncoder, render=render_completion)


@router.post("/completions")
async def create_completion(exchange: ExchangeDep) -> Response:
    """Continue one or several texts."""
    return await exchange.answer(_DIALECT)
