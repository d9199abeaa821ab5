"""What the gateway adds to an answer: the same requests through HTTP and in an engine's own process, taken in pairs.

Both processes live all the while and are asked in turn, each pair in the other order than the one before, because a
shared machine drifts by more than what is looked for: what counts is the median of the differences within the pairs.
The HTTP times include the client's own work. Where the time to the first token goes is told by the traces' spans.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx

from benchmarks.figures import Figure
from benchmarks.servers import PROGRAMS, RIVALS, running, server_environment
from mlx_manager.bench import Prose, Target
from mlx_manager.bench.client import stream_chat

_OURS = next(rival for rival in RIVALS if rival.name == "ours")
_NUM_TOKENS = 48
_NUM_FIRST = 5
"""Pairs that are not counted: kernels are compiled and connections opened in them."""
_TRACE_PATIENCE_S = 5.0
_PARTS = (
    ("to the gateway", "sent", "POST /v1/chat/completions"),
    ("read, parsed, planned", "POST /v1/chat/completions", "attempt local"),
    ("over to the worker", "attempt local", "prepare prompt"),
    ("template and tokenizer", "prepare prompt", "queue"),
    ("queue and prefix lookup", "queue", "prefill"),
    ("prefill", "prefill", "decode"),
    ("from the first token to the first text at the client", "decode", "arrived"),
)
"""Of the time to the first token: (what, the span that begins it, the span that ends it)."""

Times = list[float]
"""Seconds from a request to each piece of its text."""


@dataclass(frozen=True)
class Pair:
    """One prompt, asked both ways."""

    inside: Times
    through: Times
    parts_s: dict[str, float]


def gateway_overhead(tiny: Path, folder: Path, openblas: Path | None, num_pairs: int) -> list[Figure]:
    """What HTTP, the gateway and the border to the worker add, on a model so small that it shows."""
    with _engine_alone(tiny, folder, openblas) as engine, running(_OURS, tiny, folder, openblas) as url:
        pairs = asyncio.run(_take_pairs(engine, Target(url, tiny.name), num_pairs + _NUM_FIRST))
    counted = [pair for pair in pairs[_NUM_FIRST:] if len(pair.inside) > 1 and len(pair.through) > 1]
    figures = [
        *_compared("TTFT", "to TTFT", [(pair.inside[0], pair.through[0]) for pair in counted], 5.0),
        *_compared("per token", "per token", [(_step_s(pair.inside), _step_s(pair.through)) for pair in counted], 0.3),
        Figure("pairs of requests", len(counted), ""),
    ]
    traced = [pair.parts_s for pair in counted if pair.parts_s]
    return figures + [
        Figure(f"of TTFT, {what}", 1000 * median(parts[what] for parts in traced), "ms")
        for what, _, _ in _PARTS
        if traced
    ]


def _compared(name: str, added: str, pairs: Sequence[tuple[float, float]], at_most_ms: float) -> list[Figure]:
    added_s = [through - inside for inside, through in pairs]
    low_s, _, high_s = quantiles(added_s, n=4)
    return [
        Figure(f"{name}, engine alone", 1000 * median(inside for inside, _ in pairs), "ms"),
        Figure(f"{name}, through the gateway", 1000 * median(through for _, through in pairs), "ms"),
        Figure(f"gateway adds {added} (median of the pairs)", 1000 * median(added_s), "ms", at_most_ms),
        Figure(f"half of the pairs add {added} at least", 1000 * low_s, "ms"),
        Figure(f"and at most {added}", 1000 * high_s, "ms"),
    ]


def _step_s(times: Times) -> float:
    return (times[-1] - times[0]) / (len(times) - 1)


@contextmanager
def _engine_alone(model: Path, folder: Path, openblas: Path | None) -> Iterator[subprocess.Popen[str]]:
    """A process that answers a prompt a line with the times of its pieces, ended when the block is left."""
    with subprocess.Popen(
        [PROGRAMS / "python", "-m", "benchmarks.in_process", model, str(_NUM_TOKENS)],
        cwd=Path(__file__).resolve().parent.parent,
        env=server_environment(folder, openblas),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def _take_pairs(engine: subprocess.Popen[str], target: Target, num_pairs: int) -> list[Pair]:
    prose = Prose(time.time_ns())
    pairs = []
    async with target.open() as client:
        for index in range(num_pairs):
            prompt = prose.story_request(60)
            if index % 2:
                inside = await asyncio.to_thread(_time_inside, engine, prompt)
                through, parts_s = await _time_through(client, target.model, prompt)
            else:
                through, parts_s = await _time_through(client, target.model, prompt)
                inside = await asyncio.to_thread(_time_inside, engine, prompt)
            pairs.append(Pair(inside, through, parts_s))
    return pairs


def _time_inside(engine: subprocess.Popen[str], prompt: str) -> Times:
    if engine.stdin is None or engine.stdout is None:
        raise RuntimeError("the engine's process has no pipes")
    print(json.dumps(prompt), file=engine.stdin, flush=True)
    line = engine.stdout.readline()
    if not line:
        raise RuntimeError("the engine's own process has ended: its messages are above")
    timed: Times = json.loads(line)
    return timed


async def _time_through(client: httpx.AsyncClient, model: str, prompt: str) -> tuple[Times, dict[str, float]]:
    trace_id = secrets.token_hex(16)
    client.headers["traceparent"] = f"00-{trace_id}-{secrets.token_hex(8)}-01"
    unix_s = time.time() - time.perf_counter()
    record = await stream_chat(client, model, [{"role": "user", "content": prompt}], max_tokens=_NUM_TOKENS)
    if record.error is not None:
        raise RuntimeError(record.error)
    times = [arrived_at - record.sent_at for arrived_at in record.arrivals]
    starts = {"sent": unix_s + record.sent_at, "arrived": unix_s + record.arrivals[0]} if times else {}
    starts |= await _span_starts(client, trace_id)
    is_whole = all(name in starts for _, begin, end in _PARTS for name in (begin, end))
    return times, {what: starts[end] - starts[begin] for what, begin, end in _PARTS} if is_whole else {}


async def _span_starts(client: httpx.AsyncClient, trace_id: str) -> dict[str, float]:
    """When each span of a trace began first, by name, in Unix seconds; traces are written a moment later."""
    deadline_s = time.monotonic() + _TRACE_PATIENCE_S
    spans: list[dict[str, Any]] = []
    while time.monotonic() < deadline_s:
        await asyncio.sleep(0.05)
        spans = (await client.get(f"/admin/traces/{trace_id}")).json().get("spans", [])
        if any(span["name"].startswith("POST ") for span in spans) and any(s["name"] == "decode" for s in spans):
            break
    starts: dict[str, float] = {}
    for span in spans:
        starts.setdefault(span["name"], span["start_unix_ns"] / 1e9)
    return starts
