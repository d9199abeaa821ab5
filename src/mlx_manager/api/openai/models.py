"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from mlx_manager.api.state import ModelsDep
from mlx_manager.catalog import ModelEntry, ModelKind
from mlx_manager.errors import ModelNotFound
from mlx_manager.ipc import ServingReport
from mlx_manager.pool import ModelStatus
from mlx_manager.protocols.openai import ModelList, ModelObject, ServingObject, encode_json

router = APIRouter()


@router.get("/models")
async def list_models(models: ModelsDep) -> Response:
    """Every model that can be asked for, the default model first: many clients take the first."""
    statuses = sorted(models.statuses(), key=lambda status: status.entry.name != models.default_model)
    listed = ModelList(data=[model for status in statuses for model in _render_names(status)])
    return Response(encode_json(listed), media_type="application/json")


@router.get("/models/{model_id:path}")
async def retrieve_model(model_id: str, models: ModelsDep) -> Response:
    """One model."""
    statuses = models.statuses()
    # a name of its own wins over an alias
    for model in (
        *map(_render_model, statuses),
        *(alias for status in statuses for alias in _render_names(status)[1:]),
    ):
        if model.id == model_id:
            return Response(encode_json(model), media_type="application/json")
    names = ", ".join(status.entry.name for status in statuses) or "none"
    raise ModelNotFound(f"There is no model {model_id!r}. Models here: {names}.", param="model")


def _render_names(status: ModelStatus) -> list[ModelObject]:
    """The model, and behind it once more under each of its aliases: clients offer what is listed."""
    model = _render_model(status)
    return [model, *(msgspec.structs.replace(model, id=alias) for alias in status.overrides.aliases)]


def _render_model(status: ModelStatus) -> ModelObject:
    entry, report = status.entry, status.report
    max_context = report.max_context if report else entry.max_context
    return ModelObject(
        id=entry.name,
        root=entry.name,
        aliases=status.overrides.aliases,
        kind=entry.kind.value,
        capabilities=_capabilities(entry),
        created=entry.created_unix_s,
        state=status.state.value,
        architecture=entry.architecture,
        quantization=entry.quantization,
        size_bytes=entry.size_bytes,
        max_context=max_context,
        context_length=max_context,
        serving=_render_serving(report) if report else None,
    )


def _render_serving(report: ServingReport) -> ServingObject:
    return ServingObject(
        path=report.path,
        reason=report.reason,
        attention=report.attention,
        dtype=report.dtype,
        family=report.family,
        warning=report.warning,
    )


def _capabilities(entry: ModelEntry) -> tuple[str, ...]:
    extras = (("tools", entry.has_tools), ("thinking", entry.has_thinking))
    return (*_CAPABILITIES[entry.kind], *(word for word, has_it in extras if has_it))


_CAPABILITIES = {
    ModelKind.TEXT: ("chat", "completions"),
    ModelKind.VISION: ("chat", "completions", "vision"),
    ModelKind.EMBEDDING: ("embeddings",),
    ModelKind.RERANKER: ("rerank",),
}
