"""The alphabet of an answer. Every backend speaks it and every dialect is encoded from it.

Order, per request:  PromptReady, then per choice  (PartStart PartDelta* PartEnd)* ChoiceEnd,  then Finished.
Choices interleave freely; `choice` counts from 0. A failure is raised by the stream, it is not an event.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from mlx_manager.ir.prefix import PrefixReport
from mlx_manager.ir.timings import Timings


class PartKind(StrEnum):
    """What a part of an answer holds."""

    TEXT = "text"
    REASONING = "reasoning"
    TOOL_CALL = "tool_call"


class FinishReason(StrEnum):
    """Why a choice ended."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    """A provider's policy ended it; nothing here does."""


class TopLogprob(msgspec.Struct, frozen=True):
    """An alternative to a chosen token. `token_bytes` are its exact UTF-8 bytes, which may be part of a character."""

    token: str
    token_bytes: bytes
    logprob: float


class TokenLogprob(msgspec.Struct, frozen=True):
    """A chosen token and its alternatives, likeliest first. Natural logarithms, of the unmodified distribution."""

    token: str
    token_bytes: bytes
    logprob: float
    top: tuple[TopLogprob, ...] = ()


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a request cost, in tokens. The prompt counts once, however many choices were made of it."""

    num_prompt_tokens: int
    num_cached_tokens: int
    """Prompt tokens whose keys and values were found in the prefix cache."""
    num_completion_tokens: int
    num_reasoning_tokens: int = 0
    """Completion tokens that were spent on thinking."""
    num_cache_written_tokens: int | None = None
    """Prompt tokens that a provider has put into its cache, and asks more for; None where the backend does not say."""
    cost_usd: float | None = None
    """What the provider itself says that it cost."""


class PromptReady(msgspec.Struct, frozen=True, tag="prompt_ready"):
    """The prompt is tokenized and admitted; work on it begins."""

    num_prompt_tokens: int
    prefix: PrefixReport | None = None
    """What the prefix cache had of it; None where the backend does not say."""
    timings: Timings | None = None
    """Until now, for an answer that does not come to its end; None where the backend does not say."""


class PartStart(msgspec.Struct, frozen=True, tag="part_start"):
    """A part begins. A tool call has an id and a name; its deltas are the text of its arguments, a JSON object."""

    choice: int
    kind: PartKind = PartKind.TEXT
    call_id: str | None = None
    tool_name: str | None = None


class PartDelta(msgspec.Struct, frozen=True, tag="part_delta"):
    """More of the open part. `text` may be empty where only log-probabilities are new."""

    choice: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class PartEnd(msgspec.Struct, frozen=True, tag="part_end"):
    """The open part is complete."""

    choice: int
    is_withdrawn: bool = False
    """What looked like a tool call turned out to be none: its text follows as text, and the part does not count."""
    signature: str = ""
    """Of reasoning: what proves it to the provider that it came from, to be sent back with it."""


class ChoiceEnd(msgspec.Struct, frozen=True, tag="choice_end"):
    """A choice is complete. `stop_sequence` is the stop string that ended it, if one did."""

    choice: int
    reason: FinishReason
    stop_sequence: str | None = None
    is_context_full: bool = False
    """Of the reason LENGTH: it was the context that had no more room, the request would have allowed more."""


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The answer is complete; the last event."""

    usage: Usage
    timings: Timings | None = None
    """None where the backend does not say."""


Event = PromptReady | PartStart | PartDelta | PartEnd | ChoiceEnd | Finished
