"""The figures of a run, computed from the records of its streams. Pure: no clock, no socket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlx_manager.bench.client import StreamRecord


@dataclass(frozen=True)
class Interruption:
    """What a long prompt does to the streams that already run: their inter-token times without it and during it."""

    idle_p50_s: float | None
    idle_p95_s: float | None
    during_p50_s: float | None
    during_p95_s: float | None
    intruder_ttft_s: float | None

    @property
    def p95_ratio(self) -> float | None:
        """How much longer the 95th percentile gets."""
        return self.during_p95_s / self.idle_p95_s if self.during_p95_s and self.idle_p95_s else None


@dataclass(frozen=True)
class Figures:
    """One workload on one server. Times in seconds; None where no stream gave anything to compute it from."""

    num_requests: int
    num_failed: int
    num_prompt_tokens: int
    num_cached_tokens: int
    num_completion_tokens: int
    wall_s: float
    """From the first request sent to the last piece of text."""
    output_tokens_per_s: float
    ttft_p50_s: float | None
    ttft_max_s: float | None
    inter_token_p50_s: float | None
    """Between one piece of text and the next of the same stream."""
    inter_token_p95_s: float | None
    interruption: Interruption | None = None

    @classmethod
    def of(cls, streams: Sequence[StreamRecord]) -> Figures:
        """The figures of streams that belong to one run; failed ones only count as such. `streams` is not empty."""
        answered = [stream for stream in streams if stream.error is None and stream.arrivals]
        waits = [stream.arrivals[0] - stream.sent_at for stream in answered]
        gaps = [gap for stream in answered for gap in inter_token_times(stream)]
        num_tokens = sum(stream.num_completion_tokens for stream in answered)
        began_at = min(stream.sent_at for stream in streams)
        wall_s = max((stream.arrivals[-1] for stream in answered), default=began_at) - began_at
        return cls(
            num_requests=len(streams),
            num_failed=len(streams) - len(answered),
            num_prompt_tokens=sum(stream.num_prompt_tokens or 0 for stream in answered),
            num_cached_tokens=sum(stream.num_cached_tokens for stream in answered),
            num_completion_tokens=num_tokens,
            wall_s=wall_s,
            output_tokens_per_s=num_tokens / wall_s if wall_s > 0 else 0.0,
            ttft_p50_s=percentile(waits, 50),
            ttft_max_s=max(waits, default=None),
            inter_token_p50_s=percentile(gaps, 50),
            inter_token_p95_s=percentile(gaps, 95),
            interruption=_interruption(answered),
        )


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The value below which `percent` (0 to 100) of `values` lie, linear between neighbours; None of none."""
    if not values:
        return None
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def inter_token_times(stream: StreamRecord) -> list[float]:
    """Seconds between the pieces of one stream, in order; one less than it has pieces."""
    return [later - earlier for earlier, later in zip(stream.arrivals, stream.arrivals[1:], strict=False)]


def _interruption(streams: Sequence[StreamRecord]) -> Interruption | None:
    intruder = next((stream for stream in streams if stream.is_intruder), None)
    running = [stream for stream in streams if not stream.is_intruder]
    if intruder is None or not running:
        return None
    # before that, the running streams' own prompts interrupt each other
    all_run_at = max(stream.arrivals[0] for stream in running)
    idle: list[float] = []
    during: list[float] = []
    for stream in running:
        for earlier, later in zip(stream.arrivals, stream.arrivals[1:], strict=False):
            if earlier >= all_run_at and later <= intruder.sent_at:
                idle.append(later - earlier)
            elif later > intruder.sent_at and earlier < intruder.arrivals[0]:
                during.append(later - earlier)
    return Interruption(
        idle_p50_s=percentile(idle, 50),
        idle_p95_s=percentile(idle, 95),
        during_p50_s=percentile(during, 50),
        during_p95_s=percentile(during, 95),
        intruder_ttft_s=intruder.ttft_s,
    )
