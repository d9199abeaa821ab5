"""What of the running server follows a changed setting at once. The rest follows with a load, or a restart."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from mlx_manager.app.observing import alert_limits
from mlx_manager.app.parts import Parts
from mlx_manager.catalog.settings import Settings
from mlx_manager.observability.alerts import AlertWatch
from mlx_manager.observability.tracer import Tracer
from mlx_manager.storage.audit import AuditLog


@dataclass(frozen=True)
class Followers:
    """The parts that can change while they run; others look at the settings in force whenever they need them."""

    parts: Parts
    audit: AuditLog
    alerts: AlertWatch
    tracer: Tracer | None

    def follow(self, settings: Settings) -> None:
        """From now on these hold."""
        logging.getLogger().setLevel(settings.log_level.upper())
        self.audit.follow(max_rows=settings.audit_max_rows, max_age_s=settings.audit_max_age_h * 3600)
        self.alerts.follow(alert_limits(settings), webhook_url=settings.alert_webhook, period_s=settings.alert_period_s)
        if self.tracer is not None:
            self.tracer.follow(
                max_bytes=settings.trace_max_bytes,
                max_age_s=settings.trace_max_age_h * 3600,
                with_content=settings.has_trace_content,
            )
        self.parts.follow(settings)
