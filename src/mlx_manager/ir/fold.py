"""The whole answer, folded from its events: a non-streamed answer is this and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from mlx_manager.ir.events import (
    ChoiceEnd,
    Event,
    Finished,
    FinishReason,
    PartDelta,
    PartEnd,
    PartKind,
    PartStart,
    TokenLogprob,
    Usage,
)


@dataclass
class Part:
    """One complete part of a choice. A tool call has an id and a name, and its arguments as `text`."""

    kind: PartKind
    call_id: str | None = None
    tool_name: str | None = None
    text: str = ""
    signature: str = ""


@dataclass
class Choice:
    """One complete choice. `finish_reason` is set by its `ChoiceEnd`."""

    parts: list[Part] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason = FinishReason.STOP
    stop_sequence: str | None = None
    is_context_full: bool = False

    def text_of(self, kind: PartKind) -> str:
        """All text of the parts of one kind, joined."""
        return "".join(part.text for part in self.parts if part.kind is kind)


@dataclass
class Answer:
    """A complete answer, choices in order of their index."""

    choices: list[Choice]
    usage: Usage


async def fold(events: AsyncIterator[Event], num_choices: int) -> Answer:
    """Read `events` to their end and return the answer they spell.

    Raises whatever the stream raises, and `ValueError` when it ends without `Finished`.
    """
    choices = [Choice() for _ in range(num_choices)]
    async for event in events:
        match event:
            case PartStart(choice, kind, call_id, tool_name):
                choices[choice].parts.append(Part(kind, call_id, tool_name))
            case PartDelta(choice, text, logprobs):
                choices[choice].parts[-1].text += text
                choices[choice].logprobs.extend(logprobs)
            case PartEnd(choice, is_withdrawn=True):
                choices[choice].parts.pop()
            case PartEnd(choice, signature=signature):
                choices[choice].parts[-1].signature = signature
            case ChoiceEnd(choice):
                choices[choice].finish_reason = event.reason
                choices[choice].stop_sequence = event.stop_sequence
                choices[choice].is_context_full = event.is_context_full
            case Finished(usage):
                return Answer(choices, usage)
            case _:
                pass
    raise ValueError("the answer's stream ended before its Finished event")
