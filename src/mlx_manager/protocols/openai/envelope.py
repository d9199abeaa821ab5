"""What every chunk of one answer repeats, and the frame of Server-Sent Events around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import msgspec

from mlx_manager.errors import MlxManagerError
from mlx_manager.ir import Event, Usage
from mlx_manager.protocols.openai.answers import (
    Body,
    ChatChoice,
    ChatChunkChoice,
    CompletionChoice,
    CompletionTokensDetails,
    PromptTokensDetails,
    UsageObject,
    encode_error,
    encode_json,
)

_DONE = b"data: [DONE]\n\n"


class Encoder(Protocol):
    """Turns the events of one answer into SSE frames. Keeps state: one per answer."""

    def encode(self, event: Event) -> bytes:
        """The frames that `event` adds, each complete; often one, sometimes none."""
        ...


@dataclass(frozen=True)
class Envelope:
    """The fields that all chunks of an answer share. `created` is in Unix seconds."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    has_functions: bool = False
    """Whether tool calls are to be sent in the form before `tool_calls`, in which the request named its functions."""

    def body(
        self,
        object_name: str,
        choices: list[ChatChoice] | list[ChatChunkChoice] | list[CompletionChoice],
        usage: UsageObject | msgspec.UnsetType | None = msgspec.UNSET,
    ) -> Body:
        """A body or chunk of this answer."""
        return Body(
            id=self.id,
            object=object_name,
            created=self.created,
            model=self.model,
            system_fingerprint=self.system_fingerprint,
            choices=choices,
            usage=usage,
        )

    def last_frames(self, object_name: str, usage: Usage | None) -> bytes:
        """The end of the stream; before it, where it was asked for, the chunk with the usage and no choices."""
        if usage is None:
            return _DONE
        return frame(self.body(object_name, [], render_usage(usage))) + _DONE


def frame(chunk: Body) -> bytes:
    """One chunk as an event of the stream."""
    return b"data: " + encode_json(chunk) + b"\n\n"


def error_frame(error: MlxManagerError) -> bytes:
    """An error that came after the stream had begun; nothing follows it."""
    return b"data: " + encode_error(error) + b"\n\n"


def render_usage(usage: Usage) -> UsageObject:
    """Usage in the dialect's form."""
    return UsageObject(
        prompt_tokens=usage.num_prompt_tokens,
        completion_tokens=usage.num_completion_tokens,
        total_tokens=usage.num_prompt_tokens + usage.num_completion_tokens,
        prompt_tokens_details=PromptTokensDetails(usage.num_cached_tokens),
        completion_tokens_details=CompletionTokensDetails(usage.num_reasoning_tokens),
    )


def finite(logprob: float) -> float:
    """A log-probability that JSON can hold; the dialect writes -9999 for a token that cannot occur."""
    return max(logprob, -9999.0)
