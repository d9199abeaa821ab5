"""Models as Anthropic's dialect lists them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from mlx_manager.errors import InvalidRequest
from mlx_manager.pool import ModelStatus
from mlx_manager.protocols.anthropic import ModelObject, ModelPage

_MOST_PER_PAGE = 1000
_PER_PAGE = 20


def page_of(statuses: Sequence[ModelStatus], query: Mapping[str, str]) -> ModelPage:
    """The models that `query` asks for, by `limit`, `after_id` and `before_id`. Raises `InvalidRequest`."""
    models = [model for status in statuses for model in names_of(status)]
    limit = _limit(query.get("limit"))
    ids = [model.id for model in models]
    start, end = 0, len(models)
    if "after_id" in query:
        start = _index(ids, query["after_id"], "after_id") + 1
    if "before_id" in query:
        end = _index(ids, query["before_id"], "before_id")
        start = max(start, end - limit)
    page = models[start : min(end, start + limit)]
    has_more = start > 0 if "before_id" in query else start + limit < end
    return ModelPage(
        data=page,
        has_more=has_more,
        first_id=page[0].id if page else None,
        last_id=page[-1].id if page else None,
    )


def names_of(status: ModelStatus) -> list[ModelObject]:
    """The model, and behind it once more under each of its aliases."""
    entry, report = status.entry, status.report
    max_context = report.max_context if report else entry.max_context
    model = ModelObject(
        id=entry.name,
        display_name=entry.name,
        created_at=datetime.fromtimestamp(entry.created_unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        max_input_tokens=max_context,
        max_tokens=max_context,
    )
    aliases = (msgspec.structs.replace(model, id=alias, display_name=alias) for alias in status.overrides.aliases)
    return [model, *aliases]


def _limit(sent: str | None) -> int:
    if sent is None:
        return _PER_PAGE
    if not sent.isascii() or not sent.isdigit() or not 1 <= int(sent[:6]) <= _MOST_PER_PAGE:
        raise InvalidRequest(f"limit cannot be {sent[:20]!r}: send a number from 1 to {_MOST_PER_PAGE}.", param="limit")
    return int(sent)


def _index(ids: Sequence[str], model_id: str, name: str) -> int:
    if model_id not in ids:
        raise InvalidRequest(f"{name} is no model here: {model_id[:80]!r}.", param=name)
    return ids.index(model_id)
