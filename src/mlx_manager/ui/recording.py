"""What somebody does with models in the console goes into the list of changes, as it does over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nicegui import background_tasks, ui

from mlx_manager.storage.store import Change
from mlx_manager.ui.console import Console, viewer_of


def actor_here() -> str:
    """Whoever's page this is. Call it from a handler, before it waits: the page may be gone afterwards."""
    request = ui.context.client.request
    return "console" if request is None else viewer_of(request).label


def record(
    console: Console, action: str, subject: str, detail: Mapping[str, Any] | None = None, *, actor: str | None = None
) -> None:
    """Record that `actor` did `action` (a noun and a verb) with `subject`; None is whoever's page this is."""
    change = Change(
        actor=actor_here() if actor is None else actor, action=action, subject=subject, detail=dict(detail or {})
    )
    background_tasks.create(console.note_change(change), name=f"record {action}")
