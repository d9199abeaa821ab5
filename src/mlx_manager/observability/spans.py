"""Spans: what happened when in one request. Made from the account of a request once it is over, off its path.

Names and attributes are those of OpenTelemetry's semantic conventions for generative AI, where there are any.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from mlx_manager.ir import (
    Call,
    ChatPrompt,
    EmbeddingRequest,
    GenerationRequest,
    Origin,
    RequestRecord,
    RerankRequest,
    Timings,
)
from mlx_manager.observability.scrub import scrub

Attribute = str | int | float | bool | list[str]
_PROVIDERS = {"local": "mlx_manager"}
_REQUEST_PARAMETERS = (
    ("gen_ai.request.temperature", "temperature"),
    ("gen_ai.request.top_p", "top_p"),
    ("gen_ai.request.top_k", "top_k"),
    ("gen_ai.request.max_tokens", "max_tokens"),
    ("gen_ai.request.seed", "seed"),
    ("gen_ai.request.presence_penalty", "presence_penalty"),
    ("gen_ai.request.frequency_penalty", "frequency_penalty"),
)
_PENALTIES = ("gen_ai.request.presence_penalty", "gen_ai.request.frequency_penalty")
SERVER_ADDRESS = "server.address"
"""Only spans of requests to providers have it."""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """One span. Ids are hexadecimal digits, 32 of a trace and 16 of a span; times are Unix nanoseconds."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    start_unix_ns: int
    end_unix_ns: int
    error: str | None = None
    """The code of the error that ended it."""
    attributes: dict[str, Attribute] = {}


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One backend that was asked. Times are monotonic seconds."""

    target: str
    model: str
    """That it was asked for."""
    started_s: float
    ended_s: float
    error_code: str | None = None
    call: Call


@dataclass(frozen=True)
class Planning:
    """How it was found out who is to answer. Times are monotonic seconds."""

    started_s: float
    ended_s: float
    steps: tuple[str, ...]
    """For people."""


@dataclass(frozen=True, kw_only=True)
class RequestTrace:
    """What the gateway knows of one request that is over. Times are monotonic seconds."""

    record: RequestRecord
    origin: Origin
    request: Any
    arrived_s: float
    ended_s: float
    attempts: tuple[Attempt, ...]
    timings: Timings | None = None
    planning: Planning | None = None
    finish_reasons: tuple[str, ...] = ()
    answer: str | None = None
    """All text of the answer, where it may be kept."""


@dataclass(frozen=True)
class HttpTrace:
    """One HTTP request that is over."""

    origin: Origin
    status: int
    ended_s: float


def http_span(trace: HttpTrace) -> Span:
    """The span of the whole HTTP request, to which the others belong."""
    origin = trace.origin
    attributes: dict[str, Attribute] = {
        "http.request.method": "POST",
        "url.path": origin.path,
        "http.response.status_code": trace.status,
        "mlx_manager.request_id": origin.request_id,
    }
    for name, value in (("client.address", origin.client_address), ("user_agent.original", origin.user_agent)):
        if value is not None:
            attributes[name] = value
    return Span(
        trace_id=origin.trace_id,
        span_id=origin.span_id,
        parent_id=origin.parent_span_id,
        name=f"POST {origin.path}",
        start_unix_ns=_unix_ns(origin, origin.arrived_s),
        end_unix_ns=_unix_ns(origin, trace.ended_s),
        error=origin.error_code if trace.status >= 400 else None,
        attributes=attributes,
    )


def request_spans(trace: RequestTrace, *, with_content: bool) -> list[Span]:
    """The spans of one request to a model, the one that holds the others first."""
    record, origin = trace.record, trace.origin
    operation = _operation(trace.request)
    attributes: dict[str, Attribute] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": _PROVIDERS.get(record.target or "", record.target or "none"),
        "mlx_manager.status": record.status,
        "mlx_manager.num_attempts": record.num_attempts,
    }
    attributes |= _known(
        {
            "gen_ai.request.model": record.model,
            "gen_ai.response.id": record.answer_id,
            "gen_ai.response.finish_reasons": list(trace.finish_reasons) or None,
            "gen_ai.response.time_to_first_chunk": record.ttft_s,
            "gen_ai.usage.input_tokens": record.num_prompt_tokens,
            "gen_ai.usage.output_tokens": record.num_completion_tokens,
            "gen_ai.usage.cache_read.input_tokens": record.num_cached_tokens,
            "gen_ai.usage.reasoning.output_tokens": record.num_reasoning_tokens,
            "error.type": record.error_code,
            "mlx_manager.priority": record.priority,
            "mlx_manager.fallback_reason": record.fallback_reason,
            "mlx_manager.cost_usd": record.cost_usd,
            "mlx_manager.time_per_output_token": record.inter_token_s,
            "mlx_manager.user": record.user,
            "mlx_manager.key": record.key,
        }
    )
    if isinstance(trace.request, GenerationRequest):
        attributes |= _parameters(trace.request)
        if with_content:
            attributes |= _content(trace.request, trace.answer)
    maker = _Maker(origin, record.answer_id or origin.request_id)
    name = f"{operation} {record.model}" if record.model else operation
    root = maker.span(name, trace.arrived_s, trace.ended_s, parent_id=_root_parent(origin), error=record.error_code)
    root = msgspec.structs.replace(root, attributes=attributes)
    return [root, *_planning_spans(trace.planning, maker, root.span_id), *_attempt_spans(trace, maker, root.span_id)]


def _planning_spans(planning: Planning | None, maker: _Maker, parent_id: str) -> Iterator[Span]:
    if planning is not None:
        attributes: dict[str, Attribute] = {"mlx_manager.route.steps": list(planning.steps)}
        yield maker.span("route", planning.started_s, planning.ended_s, parent_id=parent_id, attributes=attributes)


def _attempt_spans(trace: RequestTrace, maker: _Maker, parent_id: str) -> Iterator[Span]:
    for index, attempt in enumerate(trace.attempts):
        span = maker.span(
            f"attempt {attempt.target}",
            attempt.started_s,
            attempt.ended_s,
            parent_id=parent_id,
            error=attempt.error_code,
            attributes={"mlx_manager.backend": attempt.target} | _call_attributes(attempt),
            span_id=attempt.call.span_id,
        )
        yield span
        if index == len(trace.attempts) - 1 and trace.timings is not None:
            yield from _worker_spans(trace, trace.timings, attempt, maker, span.span_id)


def _call_attributes(attempt: Attempt) -> dict[str, Attribute]:
    """What came of the HTTP request to a provider; nothing for what stays on this machine."""
    call = attempt.call
    if call.address is None:
        return {}
    headers_s = None if call.headers_s is None else round(call.headers_s - attempt.started_s, 6)
    return _known(
        {
            "gen_ai.provider.name": attempt.target,
            "gen_ai.request.model": attempt.model,
            "gen_ai.response.id": call.answer_id,
            "gen_ai.response.model": call.answer_model or None,
            SERVER_ADDRESS: call.address,
            "server.port": call.port,
            "http.response.status_code": call.status,
            "http.request.resend_count": call.num_retries or None,
            "mlx_manager.time_to_headers": headers_s,
            "error.type": attempt.error_code,
        }
    )


def _worker_spans(
    trace: RequestTrace, timings: Timings, attempt: Attempt, maker: _Maker, parent_id: str
) -> Iterator[Span]:
    """What the worker did, across the border between the processes."""
    record = trace.record
    yield maker.span("lease", attempt.started_s, timings.received_s, parent_id=parent_id)
    yield maker.span("prepare prompt", timings.received_s, timings.queued_s, parent_id=parent_id)
    yield maker.span("queue", timings.queued_s, timings.admitted_s, parent_id=parent_id)
    yield maker.span(
        "prefix lookup",
        timings.admitted_s,
        timings.admitted_s,
        parent_id=parent_id,
        attributes=_known(
            {
                "mlx_manager.num_cached_tokens": record.num_cached_tokens,
                "mlx_manager.prefix_reason": record.prefix_reason.value if record.prefix_reason else None,
            }
        ),
    )
    for chunk in timings.prefill:
        yield maker.span(
            "prefill",
            chunk.start_s,
            chunk.end_s,
            parent_id=parent_id,
            attributes={"mlx_manager.num_tokens": chunk.num_tokens},
        )
    if timings.first_token_s is None or timings.last_token_s is None:
        # it ended before the first token
        yield maker.span("prefill", timings.admitted_s, trace.ended_s, parent_id=parent_id)
        return
    if not timings.prefill:
        yield maker.span("prefill", timings.admitted_s, timings.first_token_s, parent_id=parent_id)
    yield maker.span(
        "decode",
        timings.first_token_s,
        timings.last_token_s,
        parent_id=parent_id,
        attributes=_known({"mlx_manager.num_tokens": record.num_completion_tokens}),
    )
    if timings.parse_s is not None:
        yield maker.span(
            "parse",
            timings.first_token_s,
            trace.ended_s,
            parent_id=parent_id,
            attributes={"mlx_manager.busy_s": round(timings.parse_s, 6)},
        )


class _Maker:
    """Makes the spans of one request. Their ids follow from what they are of, so that nothing has to be drawn."""

    def __init__(self, origin: Origin, seed: str) -> None:
        self._origin = origin
        self._seed = f"{origin.trace_id}{origin.span_id}{seed}"
        self._num_spans = 0

    def span(
        self,
        name: str,
        start_s: float,
        end_s: float,
        *,
        parent_id: str | None,
        error: str | None = None,
        attributes: dict[str, Attribute] | None = None,
        span_id: str | None = None,
    ) -> Span:
        """The next one, between two monotonic times, with its own `span_id` where it has one already."""
        self._num_spans += 1
        if span_id is None:
            span_id = hashlib.blake2b(f"{self._seed}{self._num_spans}".encode(), digest_size=8).hexdigest()
        start_unix_ns = _unix_ns(self._origin, start_s)
        return Span(
            trace_id=self._origin.trace_id,
            span_id=span_id,
            parent_id=parent_id,
            name=name,
            start_unix_ns=start_unix_ns,
            end_unix_ns=max(start_unix_ns, _unix_ns(self._origin, end_s)),
            error=error,
            attributes=attributes or {},
        )


def _root_parent(origin: Origin) -> str | None:
    return origin.span_id if origin.request_id else origin.parent_span_id


def _unix_ns(origin: Origin, monotonic_s: float) -> int:
    """Both clocks were read at the arrival: a step of the wall clock since then moves nothing."""
    return int((origin.arrived_unix_s + monotonic_s - origin.arrived_s) * 1e9)


def _operation(request: object) -> str:
    match request:
        case GenerationRequest():
            return "chat" if isinstance(request.prompt, ChatPrompt) else "text_completion"
        case EmbeddingRequest():
            return "embeddings"
        case RerankRequest():
            return "rerank"
        case _:
            return "tokenize"


def _parameters(request: GenerationRequest) -> dict[str, Attribute]:
    asked = {name: getattr(request.sampling, field) for name, field in _REQUEST_PARAMETERS}
    # 0 is what they are where the client names none
    asked |= {name: asked[name] or None for name in _PENALTIES}
    if request.num_choices > 1:
        asked["gen_ai.request.choice.count"] = request.num_choices
    return _known(asked)


def _content(request: GenerationRequest, answer: str | None) -> dict[str, Attribute]:
    said = {"gen_ai.input.messages": scrub(msgspec.json.encode(_without_bytes(request.prompt)).decode())}
    return _known(said | {"gen_ai.output.messages": None if answer is None else scrub(answer)})


def _without_bytes(prompt: object) -> object:
    """The prompt as plain values, pictures by their size."""

    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return f"{len(value)} bytes"
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value

    return plain(msgspec.to_builtins(prompt, builtin_types=(bytes,)))


def _known(values: dict[str, Any]) -> dict[str, Attribute]:
    return {name: value for name, value in values.items() if value is not None}
