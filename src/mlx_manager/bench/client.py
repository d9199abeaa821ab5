"""One streamed chat request over HTTP, and when each piece of its answer arrived."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

Message = dict[str, Any]


class ServerRefused(Exception):
    """The server answered a request with an error, or ended its stream with one."""


@dataclass(frozen=True)
class Target:
    """A server and the model to ask it for. `url` is the address before `/v1`."""

    url: str
    model: str
    api_key: str | None = None

    def open(self) -> httpx.AsyncClient:
        """A client for many requests at once. Answers may take as long as they like; connections may not."""
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return httpx.AsyncClient(
            base_url=self.url.rstrip("/").removesuffix("/v1"),
            headers=headers,
            timeout=httpx.Timeout(None, connect=10.0),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            trust_env=False,
        )


@dataclass
class StreamRecord:
    """What happened to one request. Times are seconds on one monotonic clock."""

    sent_at: float
    is_intruder: bool = False
    arrivals: list[float] = field(default_factory=list)
    """When each piece of the answer with text in it arrived."""
    ended_at: float = 0.0
    text: str = ""
    num_prompt_tokens: int | None = None
    """From the server's usage; None where it sent none."""
    num_cached_tokens: int = 0
    usage_completion_tokens: int | None = None
    error: str | None = None

    @property
    def num_completion_tokens(self) -> int:
        """The server's own count, or the pieces with text where it gave none."""
        return len(self.arrivals) if self.usage_completion_tokens is None else self.usage_completion_tokens

    @property
    def ttft_s(self) -> float | None:
        """Time to the first text; None where none came."""
        return self.arrivals[0] - self.sent_at if self.arrivals else None


async def stream_chat(
    client: httpx.AsyncClient,
    model: str,
    messages: Sequence[Message],
    *,
    max_tokens: int,
    is_intruder: bool = False,
    on_piece: Callable[[], None] = lambda: None,
) -> StreamRecord:
    """Ask for a greedy streamed answer and follow it to its end. A failure is recorded, not raised."""
    body = {
        "model": model,
        "messages": list(messages),
        "max_tokens": max_tokens,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    record = StreamRecord(sent_at=time.perf_counter(), is_intruder=is_intruder)
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != httpx.codes.OK:
                await response.aread()
                raise ServerRefused(f"HTTP {response.status_code}: {response.text[:300]}")
            async for line in response.aiter_lines():
                if line.startswith("data:") and _take(record, line[5:].strip()):
                    on_piece()
    except (httpx.HTTPError, ServerRefused) as error:
        record.error = str(error) or type(error).__name__
    record.ended_at = time.perf_counter()
    return record


def _take(record: StreamRecord, payload: str) -> bool:
    """Add one SSE payload to the record; whether it brought text. Raises `ServerRefused` on an error event."""
    if payload == "[DONE]":
        return False
    arrived_at = time.perf_counter()
    chunk: dict[str, Any] = json.loads(payload)
    if chunk.get("error"):
        raise ServerRefused(f"the stream ended with {json.dumps(chunk['error'])[:300]}")
    if usage := chunk.get("usage"):
        record.num_prompt_tokens = usage.get("prompt_tokens", usage.get("input_tokens"))
        record.usage_completion_tokens = usage.get("completion_tokens", usage.get("output_tokens"))
        record.num_cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    text = "".join(_text_of(choice.get("delta") or {}) for choice in chunk.get("choices") or ())
    if text:
        record.arrivals.append(arrived_at)
        record.text += text
    return bool(text)


def _text_of(delta: dict[str, Any]) -> str:
    """Reasoning counts as much as the answer: both are tokens that the server made."""
    return (delta.get("reasoning_content") or delta.get("reasoning") or "") + (delta.get("content") or "")
