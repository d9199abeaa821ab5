"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from mlx_manager.api.state import ModelsDep
from mlx_manager.errors import ModelNotFound
from mlx_manager.pool import ModelStatus
from mlx_manager.protocols.openai import ModelList, ModelObject, ServingObject, encode_json

router = APIRouter()


@router.get("/models")
async def list_models(models: ModelsDep) -> Response:
    """Every model that can be asked for, the default model first: many clients take the first."""
    statuses = sorted(models.statuses(), key=lambda status: status.entry.name != models.default_model)
    listed = ModelList(data=[_render_model(status) for status in statuses])
    return Response(encode_json(listed), media_type="application/json")


@router.get("/models/{model_id:path}")
async def retrieve_model(model_id: str, models: ModelsDep) -> Response:
    """One model."""
    statuses = models.statuses()
    for status in statuses:
        if status.entry.name == model_id:
            return Response(encode_json(_render_model(status)), media_type="application/json")
    names = ", ".join(status.entry.name for status in statuses) or "none"
    raise ModelNotFound(f"There is no model {model_id!r}. Models here: {names}.", param="model")


def _render_model(status: ModelStatus) -> ModelObject:
    entry, report = status.entry, status.report
    max_context = report.max_context if report else entry.max_context
    return ModelObject(
        id=entry.name,
        created=entry.created_unix_s,
        state=status.state.value,
        architecture=entry.architecture,
        quantization=entry.quantization,
        size_bytes=entry.size_bytes,
        max_context=max_context,
        context_length=max_context,
        serving=ServingObject(path=report.path, reason=report.reason, attention=report.attention, dtype=report.dtype)
        if report
        else None,
    )
