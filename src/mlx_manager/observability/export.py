"""Sends spans and the GenAI metrics on through Pydantic Logfire: to Logfire itself, or to any OTLP endpoint.

Logfire is imported only when there is somewhere to send to, which the standard variables say.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mlx_manager import __version__
from mlx_manager.observability.spans import SERVER_ADDRESS, Span

if TYPE_CHECKING:
    from logfire import Logfire

_VARIABLES = ("LOGFIRE_TOKEN", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_CREDENTIALS = "logfire_credentials.json"
_FLUSH_MS = 5_000


class SpanExporter(Protocol):
    """Whoever gets spans besides the span store. Used by one thread."""

    def export(self, spans: Sequence[Span]) -> None:
        """Send them on, now or soon. Raises nothing: what cannot be sent is logged."""
        ...

    def close(self) -> None:
        """Send what is left, within seconds."""
        ...


def open_exporter(environ: Mapping[str, str] = os.environ) -> SpanExporter | None:
    """What sends spans where the environment says; None where it names nobody."""
    has_credentials = (Path(environ.get("LOGFIRE_CREDENTIALS_DIR", ".logfire")) / _CREDENTIALS).exists()
    if not has_credentials and not any(environ.get(name) for name in _VARIABLES):
        return None
    return LogfireExporter()


class LogfireExporter:
    """Spans through Logfire's own pipeline, with the ids and times that they have here."""

    def __init__(self) -> None:
        # takes half a second, and most servers send nothing
        import logfire  # noqa: PLC0415

        self._ids = _GivenIds()
        self._logfire: Logfire = logfire.configure(
            local=True,
            send_to_logfire="if-token-present",
            service_name=os.environ.get("OTEL_SERVICE_NAME") or "mlx-manager",
            service_version=__version__,
            console=False,
            inspect_arguments=False,
            distributed_tracing=True,
            advanced=logfire.AdvancedOptions(id_generator=self._ids),  # type: ignore[arg-type]
        )
        self._tracer = self._logfire.config.get_tracer_provider().get_tracer("mlx_manager", __version__)
        self._tokens = self._logfire.metric_histogram("gen_ai.client.token.usage", unit="{token}")
        self._duration_s = self._logfire.metric_histogram("gen_ai.server.request.duration", unit="s")
        self._ttft_s = self._logfire.metric_histogram("gen_ai.server.time_to_first_token", unit="s")
        self._token_s = self._logfire.metric_histogram("gen_ai.server.time_per_output_token", unit="s")
        self._cost_usd = self._logfire.metric_counter("mlx_manager.cost", unit="USD")

    def export(self, spans: Sequence[Span]) -> None:
        """Send them on, in batches that Logfire's own thread sends."""
        from opentelemetry.context import Context  # noqa: PLC0415
        from opentelemetry.trace import (  # noqa: PLC0415
            NonRecordingSpan,
            SpanContext,
            SpanKind,
            Status,
            StatusCode,
            TraceFlags,
            set_span_in_context,
        )

        for span in spans:
            self._ids.next_trace_id, self._ids.next_span_id = int(span.trace_id, 16), int(span.span_id, 16)
            context = Context()
            if span.parent_id:
                parent_id = int(span.parent_id, 16)
                parent = SpanContext(self._ids.next_trace_id, parent_id, is_remote=True, trace_flags=TraceFlags(1))
                context = set_span_in_context(NonRecordingSpan(parent), context)
            sent = self._tracer.start_span(
                span.name,
                context=context,
                kind=SpanKind[_kind(span)],
                attributes=span.attributes,
                start_time=span.start_unix_ns,
            )
            if span.error:
                sent.set_status(Status(StatusCode.ERROR, span.error))
            sent.end(span.end_unix_ns)
            self._measure(span)

    def close(self) -> None:
        """Send what is left."""
        self._logfire.shutdown(_FLUSH_MS)

    def _measure(self, span: Span) -> None:
        said = span.attributes
        if "gen_ai.operation.name" not in said:
            return
        labels: dict[str, Any] = {name: said[name] for name in _METRIC_LABELS if name in said}
        for kind, number in _numbers(said, "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"):
            self._tokens.record(number, labels | {"gen_ai.token.type": kind.split(".")[-1].removesuffix("_tokens")})
        for _, number in _numbers(said, "gen_ai.response.time_to_first_chunk"):
            self._ttft_s.record(number, labels)
        for _, number in _numbers(said, "mlx_manager.time_per_output_token"):
            self._token_s.record(number, labels)
        for _, number in _numbers(said, "mlx_manager.cost_usd"):
            self._cost_usd.add(number, labels)
        self._duration_s.record((span.end_unix_ns - span.start_unix_ns) / 1e9, labels)


def _kind(span: Span) -> str:
    if "http.request.method" in span.attributes:
        return "SERVER"
    return "CLIENT" if SERVER_ADDRESS in span.attributes else "INTERNAL"


class _GivenIds:
    """An id generator that draws nothing. Written before each span."""

    next_trace_id = 0
    next_span_id = 0

    def generate_span_id(self) -> int:
        """The id of the span that is being sent."""
        return self.next_span_id

    def generate_trace_id(self) -> int:
        """Its trace, asked for where it has no parent."""
        return self.next_trace_id

    def is_trace_id_random(self) -> bool:
        """Most are the client's."""
        return False


_METRIC_LABELS = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "error.type")


def _numbers(attributes: Mapping[str, object], *names: str) -> Iterator[tuple[str, float]]:
    for name in names:
        value = attributes.get(name)
        if isinstance(value, int | float):
            yield name, value
