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
    FinishReason,
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
    FunctionObject,
    TokenLogprobObject,
    ToolCallObject,
    TopLogprobObject,
)
from mlx_manager.protocols.openai.envelope import Envelope, finite, frame, render_usage

_CHUNK = "chat.completion.chunk"


class ChatEncoder:
    """Encodes one streamed chat answer.

    The first chunk of each choice carries the role and no text; the first of each tool call its id and name.
    """

    def __init__(self, envelope: Envelope, *, include_usage: bool) -> None:
        self._envelope = envelope
        self._include_usage = include_usage
        # a stream that asked for usage carries it as null until its last chunk
        self._no_usage: msgspec.UnsetType | None = None if include_usage else msgspec.UNSET
        self._open_kinds: dict[int, PartKind] = {}
        """By choice, the kind of its open part; a choice is here once its role has been sent."""
        self._num_calls: dict[int, int] = {}
        """By choice, its tool calls so far."""

    def encode(self, event: Event) -> bytes:
        """See `Encoder.encode`."""
        match event:
            case PartDelta(choice, text, logprobs):
                return self._more(choice, text, logprobs) if text or logprobs else b""
            case PartStart():
                return self._begin(event)
            case ChoiceEnd(choice, reason):
                finish_reason = _finish_reason(reason, self._envelope)
                end = ChatChunkChoice(index=choice, delta=ChatMessageObject(), finish_reason=finish_reason)
                # a choice may end without having said anything
                return self._role(choice, PartKind.TEXT) + self._chunk(end)
            case Finished(usage):
                return self._envelope.last_frames(_CHUNK, usage if self._include_usage else None)
            case _:
                return b""

    def _begin(self, start: PartStart) -> bytes:
        frames = self._role(start.choice, start.kind)
        self._open_kinds[start.choice] = start.kind
        if start.kind is not PartKind.TOOL_CALL:
            return frames
        index = self._num_calls.get(start.choice, 0)
        self._num_calls[start.choice] = index + 1
        function = FunctionObject(name=start.tool_name, arguments="")
        return frames + self._chunk(
            ChatChunkChoice(index=start.choice, delta=self._call(index, function, start.call_id))
        )

    def _role(self, choice: int, kind: PartKind) -> bytes:
        if choice in self._open_kinds:
            return b""
        self._open_kinds[choice] = kind
        content = None if kind is PartKind.TOOL_CALL else ""
        return self._chunk(ChatChunkChoice(index=choice, delta=ChatMessageObject(role="assistant", content=content)))

    def _more(self, choice: int, text: str, logprobs: Sequence[TokenLogprob]) -> bytes:
        match self._open_kinds[choice]:
            case PartKind.TOOL_CALL:
                delta = self._call(self._num_calls[choice] - 1, FunctionObject(arguments=text))
            case PartKind.REASONING:
                delta = ChatMessageObject(reasoning_content=text)
            case _:
                delta = ChatMessageObject(content=text)
        return self._chunk(ChatChunkChoice(index=choice, delta=delta, logprobs=_render_logprobs(logprobs)))

    def _call(self, index: int, function: FunctionObject, call_id: str | None = None) -> ChatMessageObject:
        if self._envelope.has_functions:
            return ChatMessageObject(function_call=function)
        call_type = None if call_id is None else "function"
        return ChatMessageObject(
            tool_calls=[ToolCallObject(index=index, id=call_id, type=call_type, function=function)]
        )

    def _chunk(self, choice: ChatChunkChoice) -> bytes:
        return frame(self._envelope.body(_CHUNK, [choice], self._no_usage))


def render_chat(answer: Answer, envelope: Envelope) -> Body:
    """The whole answer as one body."""
    choices = [_render_choice(index, choice, envelope) for index, choice in enumerate(answer.choices)]
    return envelope.body("chat.completion", choices, render_usage(answer.usage))


def _render_choice(index: int, choice: Choice, envelope: Envelope) -> ChatChoice:
    calls = [part for part in choice.parts if part.kind is PartKind.TOOL_CALL]
    functions = [FunctionObject(name=call.tool_name, arguments=call.text) for call in calls]
    message = ChatMessageObject(
        role="assistant",
        content=choice.text_of(PartKind.TEXT) or (None if calls else ""),
        reasoning_content=choice.text_of(PartKind.REASONING) or None,
        tool_calls=None
        if envelope.has_functions or not calls
        else [
            ToolCallObject(id=call.call_id, type="function", function=function)
            for call, function in zip(calls, functions, strict=True)
        ],
        function_call=functions[0] if envelope.has_functions and functions else None,
        refusal=None,
    )
    return ChatChoice(
        index=index,
        message=message,
        logprobs=_render_logprobs(choice.logprobs),
        finish_reason=_finish_reason(choice.finish_reason, envelope),
    )


def _finish_reason(reason: FinishReason, envelope: Envelope) -> str:
    return "function_call" if envelope.has_functions and reason is FinishReason.TOOL_CALLS else reason.value


def _render_logprobs(logprobs: Sequence[TokenLogprob]) -> ChatLogprobs | None:
    content = render_token_logprobs(logprobs)
    return ChatLogprobs(content) if content else None


def render_token_logprobs(logprobs: Sequence[TokenLogprob]) -> list[TokenLogprobObject]:
    """Log-probabilities in the dialect's form."""
    return [
        TokenLogprobObject(
            entry.token,
            finite(entry.logprob),
            list(entry.token_bytes),
            [TopLogprobObject(other.token, finite(other.logprob), list(other.token_bytes)) for other in entry.top],
        )
        for entry in logprobs
    ]
