"""Anthropic's dialect: its routes, and what its clients probe."""

from fastapi import APIRouter

from mlx_manager.api.anthropic import messages, probes

router = APIRouter(tags=["anthropic"])
router.include_router(messages.router)
router.include_router(probes.router)

__all__ = ["router"]
