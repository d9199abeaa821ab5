"""GET /v1/models and /v1/models/{id}, in the dialect of whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from mlx_manager.api import anthropic_models, openai_models
from mlx_manager.api.dialect import speaks_anthropic
from mlx_manager.api.json_answer import json_answer
from mlx_manager.api.state import ModelsDep
from mlx_manager.api.who import admit_inference
from mlx_manager.errors import ModelNotFound
from mlx_manager.pool import ModelStatus

router = APIRouter(prefix="/v1", tags=["models"], dependencies=[Depends(admit_inference)])


class NamedModel(Protocol):
    """A model in either dialect."""

    @property
    def id(self) -> str: ...


@router.get("/models")
async def list_models(request: Request, models: ModelsDep) -> Response:
    """Every model that can be asked for, the default model first: many clients take the first."""
    statuses = sorted(models.statuses(), key=lambda status: status.entry.name != models.default_model)
    if speaks_anthropic(request.scope):
        return json_answer(anthropic_models.page_of(statuses, request.query_params))
    return json_answer(openai_models.list_of(statuses))


@router.get("/models/{model_id:path}")
async def retrieve_model(model_id: str, request: Request, models: ModelsDep) -> Response:
    """One model."""
    statuses = models.statuses()
    render: Callable[[ModelStatus], Sequence[NamedModel]] = openai_models.names_of
    if speaks_anthropic(request.scope):
        render = anthropic_models.names_of
    named = [render(status) for status in statuses]
    # a name of its own wins over an alias
    for model in (*(names[0] for names in named), *(alias for names in named for alias in names[1:])):
        if model.id == model_id:
            return json_answer(model)
    names = ", ".join(status.entry.name for status in statuses) or "none"
    raise ModelNotFound(f"There is no model {model_id!r}. Models here: {names}.", param="model")
