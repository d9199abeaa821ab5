"""The OpenAI dialect's routes."""

from fastapi import APIRouter, Depends

from mlx_manager.api.openai import chat, completions, embeddings, rerank, responses, tokens
from mlx_manager.api.who import admit_inference

router = APIRouter(prefix="/v1", tags=["openai"], dependencies=[Depends(admit_inference)])
router.include_router(chat.router)
router.include_router(completions.router)
router.include_router(responses.router)
router.include_router(embeddings.router)
router.include_router(rerank.router)

tokens_router = APIRouter(tags=["openai"], dependencies=[Depends(admit_inference)])
tokens_router.include_router(tokens.router)

__all__ = ["router", "tokens_router"]
