"""Models as Anthropic's dialect lists them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from mlx_manager.api.listed_model import ListedModel
from mlx_manager.errors import InvalidRequest
from mlx_manager.protocols.anthropic import ModelObject, ModelPage

_MOST_PER_PAGE = 1000
_PER_PAGE = 20


def page_of(listed: Iterable[ListedModel], query: Mapping[str, str]) -> ModelPage:
    """The models that `query` asks for, by `limit`, `after_id` and `before_id`. Raises `InvalidRequest`."""
    models = [render(one) for one in listed]
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


def render(listed: ListedModel) -> ModelObject:
    """One model by one of its names; of what a provider answers, neither its age nor its context is known."""
    status = listed.status
    report = status.report if status else None
    max_context = report.max_context if report else status.entry.max_context if status else None
    created_unix_s = status.entry.created_unix_s if status else 0
    return ModelObject(
        id=listed.name,
        display_name=listed.name,
        created_at=datetime.fromtimestamp(created_unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        max_input_tokens=max_context,
        max_tokens=max_context,
    )


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
