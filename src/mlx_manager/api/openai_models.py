"""Models as OpenAI's dialect lists them."""

from __future__ import annotations

from collections.abc import Iterable

from mlx_manager.api.listed_model import ListedModel
from mlx_manager.catalog import ModelEntry, ModelKind
from mlx_manager.ipc import ServingReport
from mlx_manager.pool import ModelStatus
from mlx_manager.protocols.openai import ModelList, ModelObject, ServingObject


def list_of(listed: Iterable[ListedModel]) -> ModelList:
    """The models, in their order."""
    return ModelList(data=[render(one) for one in listed])


def render(listed: ListedModel) -> ModelObject:
    """One model by one of its names: clients offer what is listed."""
    targets = listed.offer.asked if listed.offer else ()
    if listed.status is None:
        root = listed.offer.models[0] if listed.offer else listed.name
        return ModelObject(id=listed.name, created=0, root=root, kind="route", state="routed", targets=targets)
    return _render_model(listed.name, listed.status, targets)


def _render_model(name: str, status: ModelStatus, targets: tuple[str, ...]) -> ModelObject:
    entry, report = status.entry, status.report
    max_context = report.max_context if report else entry.max_context
    return ModelObject(
        id=name,
        root=entry.name,
        aliases=status.overrides.aliases,
        kind=entry.kind.value,
        capabilities=_capabilities(entry),
        created=entry.created_unix_s,
        state=status.state.value,
        architecture=entry.architecture,
        family=entry.family or None,
        quantization=entry.quantization,
        size_bytes=entry.size_bytes,
        max_context=max_context,
        context_length=max_context,
        serving=_render_serving(report) if report else None,
        targets=targets,
    )


def _render_serving(report: ServingReport) -> ServingObject:
    return ServingObject(
        path=report.path,
        reason=report.reason,
        attention=report.attention,
        dtype=report.dtype,
        kv_cache_bits=report.kv_cache_bits,
        kv_bytes_per_token=report.kv_bytes_per_token,
        family=report.family,
        warning=report.warning,
        draft_model=report.draft_model,
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
