"""The stream of a chat answer, as any server of the dialect sends it, to the events that it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from mlx_manager.errors import GenerationFailed
from mlx_manager.ir import (
    ChoiceEnd,
    Event,
    Finished,
    FinishReason,
    PartDelta,
    PartEnd,
    PartKind,
    PartStart,
    PromptReady,
    TokenLogprob,
    TopLogprob,
    Usage,
)

_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    # the provider took the answer back; what there is of it has been sent
    "content_filter": FinishReason.STOP,
}


class _Lenient(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that are not ours to read are passed over."""


class _Function(_Lenient, frozen=True, kw_only=True):
    name: str | None = None
    arguments: str | None = None


class _Call(_Lenient, frozen=True, kw_only=True):
    index: int = 0
    id: str | None = None
    function: _Function = _Function()


class _Delta(_Lenient, frozen=True, kw_only=True):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Top(_Lenient, frozen=True, kw_only=True):
    token: str
    logprob: float
    bytes: list[int] | None = None


class _Logprob(_Top, frozen=True, kw_only=True):
    top_logprobs: list[_Top] = []


class _Logprobs(_Lenient, frozen=True, kw_only=True):
    content: list[_Logprob] | None = None


class _Choice(_Lenient, frozen=True, kw_only=True):
    index: int = 0
    delta: _Delta = _Delta()
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _PromptDetails(_Lenient, frozen=True, kw_only=True):
    cached_tokens: int | None = None


class _CompletionDetails(_Lenient, frozen=True, kw_only=True):
    reasoning_tokens: int | None = None


class _Usage(_Lenient, frozen=True, kw_only=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Chunk(_Lenient, frozen=True, kw_only=True):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: dict[str, Any] | str | None = None


_chunks: msgspec.json.Decoder[_Chunk] = msgspec.json.Decoder(_Chunk)


@dataclass
class _Open:
    """What is being said in one choice."""

    kind: PartKind | None = None
    call_index: int | None = None


class ChatDecoder:
    """Reads the `data` of one stream's frames, in order. Keeps state: one per stream."""

    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}
        self._usage = _Usage()
        self._has_begun = False
        self._has_ended = False

    def decode(self, data: bytes) -> list[Event]:
        """The events of one frame; `[DONE]` is the last.

        Raises `GenerationFailed` for an error of the other server's, and for what is not of the dialect.
        """
        if data.strip() == b"[DONE]":
            return self.finish()
        try:
            chunk = _chunks.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise GenerationFailed(f"The provider sent what is no chunk of a chat: {error}.") from None
        if chunk.error is not None:
            said = chunk.error if isinstance(chunk.error, str) else chunk.error.get("message")
            raise GenerationFailed(f"The provider failed: {said}")
        if chunk.usage is not None:
            self._usage = chunk.usage
        events: list[Event] = []
        if not self._has_begun:
            self._has_begun = True
            events.append(PromptReady(chunk.usage.prompt_tokens if chunk.usage else 0))
        for choice in chunk.choices:
            events += self._decode_choice(choice)
        return events

    def finish(self) -> list[Event]:
        """The end of the stream, also of one that sends no `[DONE]`."""
        if self._has_ended:
            return []
        self._has_ended = True
        cached, thought = self._usage.prompt_tokens_details, self._usage.completion_tokens_details
        return [
            Finished(
                Usage(
                    num_prompt_tokens=self._usage.prompt_tokens,
                    num_cached_tokens=(cached.cached_tokens if cached else None) or 0,
                    num_completion_tokens=self._usage.completion_tokens,
                    num_reasoning_tokens=(thought.reasoning_tokens if thought else None) or 0,
                )
            )
        ]

    def _decode_choice(self, choice: _Choice) -> Iterator[Event]:
        state = self._open.setdefault(choice.index, _Open())
        delta = choice.delta
        logprobs = _logprobs_of(choice.logprobs)
        for kind, text in (
            (PartKind.REASONING, delta.reasoning_content or delta.reasoning),
            (PartKind.TEXT, delta.content or delta.refusal),
        ):
            if text:
                yield from _switch(state, choice.index, PartStart(choice.index, kind), None)
                yield PartDelta(choice.index, text, logprobs)
                logprobs = ()
        for call in delta.tool_calls or ():
            start = PartStart(choice.index, PartKind.TOOL_CALL, call.id, call.function.name)
            yield from _switch(state, choice.index, start, call.index)
            if call.function.arguments or logprobs:
                yield PartDelta(choice.index, call.function.arguments or "", logprobs)
                logprobs = ()
        if logprobs:
            yield from _switch(
                state, choice.index, PartStart(choice.index, state.kind or PartKind.TEXT), state.call_index
            )
            yield PartDelta(choice.index, "", logprobs)
        if choice.finish_reason is not None:
            if state.kind is not None:
                yield PartEnd(choice.index)
                state.kind = None
            yield ChoiceEnd(choice.index, _REASONS.get(choice.finish_reason, FinishReason.STOP))


def _switch(state: _Open, choice: int, start: PartStart, call_index: int | None) -> Iterator[Event]:
    """End the open part and begin another, unless it is the one that goes on."""
    if state.kind is start.kind and state.call_index == call_index:
        return
    if state.kind is not None:
        yield PartEnd(choice)
    state.kind, state.call_index = start.kind, call_index
    yield start


def _logprobs_of(sent: _Logprobs | None) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(
            entry.token,
            _bytes_of(entry),
            entry.logprob,
            tuple(TopLogprob(top.token, _bytes_of(top), top.logprob) for top in entry.top_logprobs),
        )
        for entry in ((sent.content or ()) if sent else ())
    )


def _bytes_of(entry: _Top) -> bytes:
    return entry.token.encode() if entry.bytes is None else bytes(value & 0xFF for value in entry.bytes)
