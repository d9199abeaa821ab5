"""What somebody does with models in the console goes into the list of changes, as it does over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nicegui import background_tasks, ui

from mlx_manager.storage.store import Change
from mlx_manager.ui.console import Console, viewer_of


def record(console: Console, action: str, subject: str, detail: Mapping[str, Any] | None = None) -> None:
    """Record that whoever's page this is did `action` (a noun and a verb) with `subject`. Call it from a handler."""
    request = ui.context.client.request
    actor = "console" if request is None else viewer_of(request).label
    change = Change(actor=actor, action=action, subject=subject, detail=dict(detail or {}))
    background_tasks.create(console.note_change(change), name=f"record {action}")
