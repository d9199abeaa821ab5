"""Models as OpenAI's dialect lists them."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mlx_manager.catalog import ModelEntry, ModelKind
from mlx_manager.ipc import ServingReport
from mlx_manager.pool import ModelStatus
from mlx_manager.protocols.openai import ModelList, ModelObject, ServingObject


def list_of(statuses: Iterable[ModelStatus]) -> ModelList:
    """The models, in their order."""
    return ModelList(data=[model for status in statuses for model in names_of(status)])


def names_of(status: ModelStatus) -> list[ModelObject]:
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
