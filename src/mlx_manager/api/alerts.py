"""GET /admin/alerts: what fires now, and what has cleared."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Depends
from starlette.responses import Response

from mlx_manager.api.json_answer import json_answer
from mlx_manager.api.state import AlertsDep
from mlx_manager.api.who import admit_admin
from mlx_manager.observability.alerts import Alert

router = APIRouter(prefix="/admin", tags=["alerts"], dependencies=[Depends(admit_admin)])


class Alerts(msgspec.Struct, frozen=True, kw_only=True):
    """The body of GET /admin/alerts."""

    firing: list[Alert]
    past: list[Alert]
    """Those that have cleared, the last first."""


@router.get("/alerts")
async def list_alerts(alerts: AlertsDep) -> Response:
    """Alerts that fire now, and those that have cleared since the start."""
    body = Alerts(firing=list(alerts.firing.values()), past=list(reversed(alerts.past)))
    return json_answer(body)
