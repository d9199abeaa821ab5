"""GET /v1/models and /v1/models/{id}, in the dialect of whoever asks."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from mlx_manager.api import anthropic_models, openai_models
from mlx_manager.api.dialect import speaks_anthropic
from mlx_manager.api.json_answer import json_answer
from mlx_manager.api.listed_model import ListedModel, listed_for
from mlx_manager.api.state import ModelsDep, PlainGatewayDep
from mlx_manager.api.who import AccessDep, CallerDep
from mlx_manager.errors import ModelNotFound
from mlx_manager.gateway import find_offers

router = APIRouter(prefix="/v1", tags=["models"])


async def _listed(
    models: ModelsDep, gateway: PlainGatewayDep, access: AccessDep, caller: CallerDep
) -> list[ListedModel]:
    return listed_for(caller, models, find_offers(gateway, lambda: access.store.current, caller))


_ListedDep = Annotated[list[ListedModel], Depends(_listed)]


@router.get("/models")
@router.head("/models", include_in_schema=False)
async def list_models(request: Request, listed: _ListedDep, _: CallerDep) -> Response:
    """Every name that may be asked for, those of routes too; the default model first: many clients take the first."""
    if speaks_anthropic(request.scope):
        return json_answer(anthropic_models.page_of(listed, request.query_params))
    return json_answer(openai_models.list_of(listed))


@router.get("/models/{model_id:path}")
async def retrieve_model(model_id: str, request: Request, listed: _ListedDep, caller: CallerDep) -> Response:
    """One model."""
    caller.check_model(model_id)
    for one in listed:
        if one.name == model_id:
            is_anthropic = speaks_anthropic(request.scope)
            return json_answer(anthropic_models.render(one) if is_anthropic else openai_models.render(one))
    names = ", ".join(one.name for one in listed) or "none"
    raise ModelNotFound(f"There is no model {model_id!r}. Models here: {names}.", param="model")
