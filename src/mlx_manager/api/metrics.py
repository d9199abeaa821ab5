"""GET /metrics, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from starlette.responses import Response

from mlx_manager.api.state import MetricsDep
from mlx_manager.api.who import admit_admin
from mlx_manager.observability.metrics import CONTENT_TYPE

router = APIRouter(tags=["metrics"], dependencies=[Depends(admit_admin)])


@router.get("/metrics")
@router.head("/metrics", include_in_schema=False)
async def metrics(metrics: MetricsDep) -> Response:
    """Counters, latencies and the engines' books, in Prometheus's text form."""
    return Response(metrics.render(), media_type=CONTENT_TYPE)
