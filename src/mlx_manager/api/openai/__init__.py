"""The OpenAI dialect's routes."""

from fastapi import APIRouter

from mlx_manager.api.openai import chat, completions, embeddings, models, rerank, responses

router = APIRouter(prefix="/v1", tags=["openai"])
router.include_router(chat.router)
router.include_router(completions.router)
router.include_router(responses.router)
router.include_router(embeddings.router)
router.include_router(rerank.router)
router.include_router(models.router)

__all__ = ["router"]
