"""Chat answers: events to chunks, and the folded answer to one body."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mlx_manager.ir import (
    Answer,
    Choice,
    ChoiceEnd,
    Event,
    Finished,
    PartDelta,
    PartKind,
    PartStart,
    TokenLogprob,
)
from mlx_manager.protocols.openai.answers import (
    Body,
    ChatChoice,
    ChatChunkChoice,
    ChatLogprobs,
    ChatMessageObject,
    TokenLogprobObject,
    TopLogprobObject,
)
from mlx_manager.protocols.openai.envelope import Envelope, finite, frame, render_usage

_CHUNK = "chat.completion.chunk"


class ChatEncoder:
    """Encodes one streamed chat answer. The first chunk of each choice carries the role and no text."""

    def __init__(self, envelope: Envelope, *, include_usage: bool) -> None:
        self._envelope = envelope
        self._include_usage = include_usage
        # a stream that asked for usage carries it as null until its last chunk
        self._no_usage: msgspec.UnsetType | None = None if include_usage else msgspec.UNSET
        self._open_kinds: dict[int, PartKind] = {}
        """By choice, the kind of its open part; a choice is here once its role has been sent."""

    def encode(self, event: Event) -> bytes:
        """See `Encoder.encode`."""
        match event:
            case PartDelta(choice, text, logprobs):
                return self._more(choice, text, logprobs) if text or logprobs else b""
            case PartStart(choice, kind):
                return self._begin(choice, kind)
            case ChoiceEnd(choice, reason):
                end = ChatChunkChoice(index=choice, delta=ChatMessageObject(), finish_reason=reason.value)
                # a choice may end without having said anything
                return self._begin(choice, PartKind.TEXT) + self._chunk(end)
            case Finished(usage):
                return self._envelope.last_frames(_CHUNK, usage if self._include_usage else None)
            case _:
                return b""

    def _begin(self, choice: int, kind: PartKind) -> bytes:
        has_begun = choice in self._open_kinds
        self._open_kinds[choice] = kind
        if has_begun:
            return b""
        return self._chunk(ChatChunkChoice(index=choice, delta=ChatMessageObject(role="assistant", content="")))

    def _more(self, choice: int, text: str, logprobs: Sequence[TokenLogprob]) -> bytes:
        delta = _delta(self._open_kinds[choice], text)
        return self._chunk(ChatChunkChoice(index=choice, delta=delta, logprobs=_render_logprobs(logprobs)))

    def _chunk(self, choice: ChatChunkChoice) -> bytes:
        return frame(self._envelope.body(_CHUNK, [choice], self._no_usage))


def render_chat(answer: Answer, envelope: Envelope) -> Body:
    """The whole answer as one body."""
    choices = [_render_choice(index, choice) for index, choice in enumerate(answer.choices)]
    return envelope.body("chat.completion", choices, render_usage(answer.usage))


def _render_choice(index: int, choice: Choice) -> ChatChoice:
    message = ChatMessageObject(
        role="assistant",
        content=choice.text_of(PartKind.TEXT),
        reasoning_content=choice.text_of(PartKind.REASONING) or None,
        refusal=None,
    )
    return ChatChoice(
        index=index,
        message=message,
        logprobs=_render_logprobs(choice.logprobs),
        finish_reason=choice.finish_reason.value,
    )


def _delta(kind: PartKind, text: str) -> ChatMessageObject:
    if kind is PartKind.REASONING:
        return ChatMessageObject(reasoning_content=text)
    return ChatMessageObject(content=text)


def _render_logprobs(logprobs: Sequence[TokenLogprob]) -> ChatLogprobs | None:
    content = [
        TokenLogprobObject(
            entry.token,
            finite(entry.logprob),
            list(entry.token_bytes),
            [TopLogprobObject(other.token, finite(other.logprob), list(other.token_bytes)) for other in entry.top],
        )
        for entry in logprobs
    ]
    return ChatLogprobs(content) if content else None
