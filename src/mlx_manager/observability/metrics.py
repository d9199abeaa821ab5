"""The metrics, in Prometheus's text form: what requests were, and how models, engines and memory stand.

Requests are counted as they end; everything else is read off the pool when somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest

from mlx_manager.ir import RequestRecord
from mlx_manager.observability.budget_use import BudgetUse
from mlx_manager.observability.limit_metrics import LeftAloneCollector, LimitCollector
from mlx_manager.observability.pool_metrics import PoolCollector
from mlx_manager.observability.spans import Attempt
from mlx_manager.pool import ModelStatus, PoolStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
_GAP_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
_UNKNOWN_MODEL = ""
_MAX_MODELS = 1_000
"""Names under which somebody answered: some providers take any."""


class Metrics:
    """The metrics of one server. What is callable is read at each scrape; no pool, no stats, and no `home`, no disk."""

    def __init__(
        self,
        version: str,
        statuses: Callable[[], Sequence[ModelStatus]],
        pool_stats: Callable[[], PoolStats | None],
        *,
        budget_uses: Callable[[], Sequence[BudgetUse]] = tuple,
        home: Path | None = None,
    ) -> None:
        self._statuses = statuses
        self._answering: set[str] = set()
        """Names of models that labels may hold."""
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        registry.register(PoolCollector(version, statuses, pool_stats))
        registry.register(LimitCollector(budget_uses, home))
        self._requests = Counter(
            "mlx_manager_requests",
            "Requests that ended, one per prompt.",
            ("path", "model", "backend", "status"),
            registry=registry,
        )
        self._errors = Counter("mlx_manager_errors", "Requests that failed, by code.", ("code",), registry=registry)
        self._tokens = Counter(
            "mlx_manager_tokens",
            "Tokens of ended requests: prompt (of which cached) and completion (of which reasoning).",
            ("model", "kind"),
            registry=registry,
        )
        self._attempts = Counter(
            "mlx_manager_attempts",
            "Backends that were asked, those that were given up for another too; answered, or the code of the error.",
            ("backend", "outcome"),
            registry=registry,
        )
        self._attempt_s = Histogram(
            "mlx_manager_attempt_seconds",
            "From when a backend was asked to the end of its answer.",
            ("backend",),
            buckets=_LATENCY_S,
            registry=registry,
        )
        self._retries = Counter(
            "mlx_manager_provider_retries",
            "Requests that were sent to a provider again.",
            ("backend",),
            registry=registry,
        )
        self._fallbacks = Counter(
            "mlx_manager_fallbacks",
            "Requests that another backend was asked for, by the code of the first one's error.",
            ("reason", "backend"),
            registry=registry,
        )
        self._cost = Counter(
            "mlx_manager_cost_usd",
            "What providers charge for answers, where the price is known.",
            ("model", "backend"),
            registry=registry,
        )
        self._prefix = Counter(
            "mlx_manager_prefix_lookups",
            "Prompts looked up in the prefix cache, by why no more of them was found.",
            ("model", "reason"),
            registry=registry,
        )
        self._queue_s = _histogram(
            "queue_seconds", "From arrival to the admission of the prompt.", _LATENCY_S, registry
        )
        self._ttft_s = _histogram(
            "time_to_first_token_seconds", "From arrival to the first text.", _LATENCY_S, registry
        )
        self._gap_s = _histogram("inter_token_seconds", "Mean time between two tokens of one answer.", _GAP_S, registry)
        self._duration_s = _histogram("request_seconds", "From arrival to the end.", _LATENCY_S, registry)

    def count(self, record: RequestRecord) -> None:
        """A request has ended."""
        model = self._model_label(record)
        self._requests.labels(_path_label(record), model, record.target or "", str(record.status)).inc()
        if record.error_code:
            self._errors.labels(record.error_code).inc()
        if record.fallback_reason:
            self._fallbacks.labels(record.fallback_reason, record.target or "").inc()
        if record.cost_usd:
            self._cost.labels(model, record.target or "").inc(record.cost_usd)
        if record.prefix_reason is not None:
            self._prefix.labels(model, record.prefix_reason.value).inc()
        for kind, num_tokens in (
            ("prompt", record.num_prompt_tokens),
            ("cached", record.num_cached_tokens),
            ("completion", record.num_completion_tokens),
            ("reasoning", record.num_reasoning_tokens),
        ):
            if num_tokens:
                self._tokens.labels(model, kind).inc(num_tokens)
        for histogram, seconds in (
            (self._queue_s, record.queue_s),
            (self._ttft_s, record.ttft_s),
            (self._gap_s, record.inter_token_s),
            (self._duration_s, record.duration_s),
        ):
            if seconds is not None and record.target is not None:
                histogram.labels(model, record.target).observe(seconds)

    def count_attempts(self, attempts: Sequence[Attempt]) -> None:
        """These backends were asked for one request."""
        for attempt in attempts:
            self._attempts.labels(attempt.target, attempt.error_code or "answered").inc()
            self._attempt_s.labels(attempt.target).observe(attempt.ended_s - attempt.started_s)
            if attempt.call.num_retries:
                self._retries.labels(attempt.target).inc(attempt.call.num_retries)

    def show_targets_left_alone(self, find: Callable[[], Mapping[str, int]]) -> None:
        """From now on tell how many there are, by backend; `find` is called at each scrape."""
        self._registry.register(LeftAloneCollector(find))

    def _model_label(self, record: RequestRecord) -> str:
        """Only models of this machine, and those that have answered: clients must not make labels without end."""
        model = record.model or _UNKNOWN_MODEL
        if model in self._answering:
            return model
        has_answered = record.status < 400 and len(self._answering) < _MAX_MODELS
        if not has_answered and not any(status.entry.name == model for status in self._statuses()):
            return _UNKNOWN_MODEL
        self._answering.add(model)
        return model

    def render(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self._registry)


def _histogram(name: str, text: str, buckets: Iterable[float], registry: CollectorRegistry) -> Histogram:
    return Histogram(f"mlx_manager_{name}", text, ("model", "backend"), buckets=tuple(buckets), registry=registry)


def _path_label(record: RequestRecord) -> str:
    """Only paths that are served, for the same reason."""
    return record.path if record.answer_id is not None else ""
