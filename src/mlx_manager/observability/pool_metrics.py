"""How models, engines and memory stand, as metrics: read off the pool whenever somebody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mlx_manager.ipc import EngineStats
from mlx_manager.pool import ModelState, ModelStatus, PoolStats

_BLOCKS = ("free", "cached", "used")
# name, help, field of EngineStats
_ENGINE_GAUGES = (
    ("batch_size", "Sequences in the engine's batch after its last step.", "num_running"),
    ("queued_requests", "Requests that wait in the engine's queue.", "num_waiting"),
    ("kv_arena_bytes", "Memory that the KV cache holds.", "arena_bytes"),
    ("device_memory_active_bytes", "Memory that MLX holds in the worker.", "active_memory_bytes"),
    ("device_memory_peak_bytes", "The most that MLX has held in the worker.", "peak_memory_bytes"),
)
_ENGINE_COUNTERS = (
    ("engine_steps", "Steps of the engine since the model was loaded.", "num_steps"),
    ("engine_prompt_tokens", "Prompt tokens of requests that began to answer.", "num_prompt_tokens"),
    ("engine_cached_tokens", "Those of them that the prefix cache had.", "num_cached_tokens"),
    ("engine_restored_tokens", "Prompt tokens that came from the prefix cache on disk.", "num_restored_tokens"),
    ("engine_generated_tokens", "Tokens that were generated.", "num_generated_tokens"),
    ("engine_drafted_tokens", "Guesses at next tokens that were run.", "num_drafted_tokens"),
    ("engine_accepted_drafts", "Those of them that came true.", "num_accepted_drafts"),
    ("engine_grammar_masks", "Tokens that a grammar was asked about.", "num_grammar_masks"),
    ("engine_grammar_compute_seconds", "What their masks took beside the forward pass.", "grammar_compute_s"),
    ("engine_grammar_wait_seconds", "What steps waited for masks after it.", "grammar_wait_s"),
    ("engine_preemptions", "Sequences that gave up their blocks to others.", "num_preemptions"),
    ("engine_aborted_requests", "Requests that were aborted.", "num_aborted_requests"),
)
_POOL_GAUGES = (
    ("memory_planned_bytes", "What the memory budget counts for all models.", "planned_bytes"),
    ("memory_measured_bytes", "What all workers took when they were last looked at.", "measured_bytes"),
    ("memory_system_available_bytes", "Memory that the system has available.", "system_available_bytes"),
    ("memory_floor_bytes", "Below so much available memory, idle models give way.", "memory_floor_bytes"),
)
_POOL_COUNTERS = (
    ("model_loads", "Loads that ended well.", "num_loads"),
    ("model_load_failures", "Loads that failed.", "num_failed_loads"),
    ("model_load_refusals", "Loads for which no room could be made.", "num_refused"),
    ("model_evictions", "Models that were unloaded.", "num_evictions"),
    ("model_trims", "Idle models whose caches were given back.", "num_trims"),
)


class PoolCollector(Collector):
    """`statuses` and `pool_stats` are called at each scrape, from the event loop."""

    def __init__(
        self, version: str, statuses: Callable[[], Sequence[ModelStatus]], pool_stats: Callable[[], PoolStats | None]
    ) -> None:
        self._version = version
        self._statuses = statuses
        self._pool_stats = pool_stats

    def collect(self) -> Iterator[Metric]:
        """One family after the other."""
        yield _gauge("build_info", "The version, as a label.", ("version",), [((self._version,), 1)])
        yield _gauge("event_loop_tasks", "Tasks of the gateway's event loop.", (), [((), len(asyncio.all_tasks()))])
        statuses = self._statuses()
        yield from self._models(statuses)
        yield from self._engines({s.entry.name: s.stats for s in statuses if s.stats is not None})
        stats = self._pool_stats()
        if stats is None:
            return
        yield _gauge("memory_budget_bytes", "For all models together.", (), [((), stats.budget_bytes or 0)])
        for name, text, field in _POOL_GAUGES:
            yield _gauge(name, text, (), [((), getattr(stats, field))])
        for name, text, field in _POOL_COUNTERS:
            yield _counter(name, text, (), [((), getattr(stats, field))])

    def _models(self, statuses: Sequence[ModelStatus]) -> Iterator[Metric]:
        warm = [status for status in statuses if status.state is not ModelState.COLD]
        states = [((s.entry.name, state.value), int(s.state is state)) for s in warm for state in ModelState]
        yield _gauge("model_state", "1 for the state that a model is in; cold ones are left out.", _STATE, states)
        for name, text, field in (
            ("model_memory_planned_bytes", "What the memory budget counts for a model.", "planned_bytes"),
            ("model_memory_measured_bytes", "What its worker took when it was last looked at.", "measured_bytes"),
            ("model_requests_in_flight", "Requests that it is answering.", "num_in_flight"),
            ("model_requests_waiting_for_load", "Requests that wait for it to be loaded.", "num_waiting"),
        ):
            yield _gauge(name, text, _MODEL, [((s.entry.name,), getattr(s, field)) for s in warm])
        deaths = [((s.entry.name,), s.num_worker_deaths) for s in statuses if s.num_worker_deaths]
        yield _counter(
            "worker_restarts", "Workers that ended unasked; the next request starts another.", _MODEL, deaths
        )
        faults = [((s.entry.name, fault.value), num) for s in statuses for fault, num in s.num_by_fault.items()]
        yield _counter("worker_faults", "The same by why: they died, hung, or leaked memory.", _FAULT, faults)
        given_up = [((s.entry.name,), int(s.is_given_up)) for s in warm]
        yield _gauge(
            "model_given_up", "1 where a model failed too often in a row to be tried again now.", _MODEL, given_up
        )

    def _engines(self, engines: dict[str, EngineStats]) -> Iterator[Metric]:
        blocks = [
            ((name, state), getattr(stats, f"num_blocks_{state}"))
            for name, stats in engines.items()
            for state in _BLOCKS
        ]
        yield _gauge("kv_blocks", "KV blocks of 32 tokens, by state.", _STATE, blocks)
        for name, text, field in _ENGINE_GAUGES:
            yield _gauge(name, text, _MODEL, [((model,), getattr(stats, field)) for model, stats in engines.items()])
        ratios = [
            ((model,), stats.num_cached_tokens / stats.num_prompt_tokens)
            for model, stats in engines.items()
            if stats.num_prompt_tokens
        ]
        yield _gauge("prefix_hit_ratio", "Of all prompt tokens, the part the prefix cache had.", _MODEL, ratios)
        for name, text, field in _ENGINE_COUNTERS:
            yield _counter(name, text, _MODEL, [((model,), getattr(stats, field)) for model, stats in engines.items()])


_MODEL = ("model",)
_STATE = ("model", "state")
_FAULT = ("model", "fault")
_Samples = Sequence[tuple[tuple[str, ...], float]]


def _gauge(name: str, text: str, labels: tuple[str, ...], samples: _Samples) -> Metric:
    return _filled(GaugeMetricFamily(f"mlx_manager_{name}", text, labels=labels), samples)


def _counter(name: str, text: str, labels: tuple[str, ...], samples: _Samples) -> Metric:
    return _filled(CounterMetricFamily(f"mlx_manager_{name}", text, labels=labels), samples)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, samples: _Samples) -> Metric:
    for labels, value in samples:
        family.add_metric(labels, value)
    return family
