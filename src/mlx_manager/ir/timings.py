"""When a worker did what for one request. Times are seconds of the machine's monotonic clock, which all its processes
share, so that they can be set beside those of the gateway."""

from __future__ import annotations

import msgspec


class PrefillChunk(msgspec.Struct, frozen=True, array_like=True):
    """One step that computed a part of the prompt; others may have shared the step."""

    start_s: float
    end_s: float
    num_tokens: int


class Timings(msgspec.Struct, frozen=True, array_like=True):
    """One request, from its arrival in the worker to its last token. None is what is not there yet."""

    received_s: float
    queued_s: float
    """The prompt was rendered and tokenized, and a grammar compiled; it waits for room in the batch."""
    admitted_s: float
    prefill: tuple[PrefillChunk, ...]
    """In order; the last one stands for all that came after it where there were very many."""
    first_token_s: float | None = None
    last_token_s: float | None = None
    parse_s: float | None = None
    """Spent on detokenizing and parsing, all in all."""
