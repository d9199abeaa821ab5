"""The stream of somebody who speaks OpenAI's dialect, as ir events. The other way round: `chat` and `completions`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import msgspec

from mlx_manager.errors import ProviderBusy, ProviderFailed
from mlx_manager.ir import (
    ChoiceEnd,
    Event,
    Finished,
    FinishReason,
    GenerationRequest,
    PartDelta,
    PartEnd,
    PartKind,
    PartStart,
    TextPrompt,
    TokenLogprob,
    TokenPrompt,
    TopLogprob,
    Usage,
    estimate_tokens,
    printable,
)
from mlx_manager.protocols.openai.answers import (
    ChatChunk,
    ChatChunkChoice,
    ChatLogprobs,
    ChatMessageObject,
    CompletionChoice,
    CompletionChunk,
    CompletionLogprobs,
    ContentPartObject,
    FunctionObject,
    ToolCallObject,
    TopLogprobObject,
    UsageObject,
)

DONE = b"[DONE]"
_REASONS = {
    "stop": FinishReason.STOP,
    "content_filter": FinishReason.CONTENT_FILTER,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
}
_BUSY = (429, 503, 529, "429", "503", "529", "rate_limit_exceeded", "rate_limit_error", "overloaded_error")
"""Codes and types of errors in the middle of a stream that mean no more than later."""
_CHARACTERS_PER_TOKEN = 4
_MOST_USD = 1_000_000
"""No answer costs this much, and no number of dollars is more."""
_NO_DELTA, _NO_FUNCTION = ChatMessageObject(), FunctionObject()
_chat_chunks: msgspec.json.Decoder[ChatChunk] = msgspec.json.Decoder(ChatChunk)
_completion_chunks: msgspec.json.Decoder[CompletionChunk] = msgspec.json.Decoder(CompletionChunk)


@dataclass
class _WaitingCall:
    """A tool call that began before the one that is open was complete: an answer has one open part at a time."""

    call_id: str
    name: str
    arguments: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass
class _OpenChoice:
    """What is known of one choice so far."""

    kind: PartKind | None = None
    """Of the open part."""
    call_index: int = -1
    """Of the open tool call; those before it are complete."""
    arguments: str = ""
    """Of the open tool call, so far."""
    waiting: dict[int, _WaitingCall] = field(default_factory=dict)
    """By index. While there are any, a tool call is open."""
    has_calls: bool = False
    has_ended: bool = False

    @property
    def has_whole_call(self) -> bool:
        """Whether nothing can follow in the open part, if it is a tool call."""
        if self.kind is not PartKind.TOOL_CALL:
            return True
        if not self.arguments.rstrip().endswith("}"):
            return False
        try:
            msgspec.json.decode(self.arguments)
        except (msgspec.DecodeError, RecursionError):
            return False
        return True


class ChunkDecoder:
    """Decodes the answer to `request`. Raises `ProviderFailed` for what is not the dialect."""

    def __init__(self, request: GenerationRequest) -> None:
        self._choices = [_OpenChoice() for _ in range(request.num_choices)]
        self._prompt = request.prompt
        self._num_characters = 0
        self._usage: UsageObject | None = None
        self.is_done = False
        """Whether the provider said that nothing follows."""
        self.answer_id: str | None = None
        self.answer_model: str | None = None

    def decode(self, data: bytes) -> Iterator[Event]:
        """The events that one message of the stream adds."""
        if data.strip() == DONE:
            self.is_done = True
            return
        chunks = _completion_chunks if isinstance(self._prompt, TextPrompt | TokenPrompt) else _chat_chunks
        try:
            chunk = chunks.decode(data)
        except msgspec.ValidationError as error:
            raise ProviderFailed(f"The provider sent a message in another form than OpenAI's ({error}).") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ProviderFailed(f"The provider sent what is no JSON ({error}).") from None
        if chunk.error:
            raise _failure_of(chunk.error)
        if self.answer_id is None and chunk.id:
            self.answer_id, self.answer_model = printable(str(chunk.id)), printable(str(chunk.model or ""))
        if chunk.usage is not None:
            self._usage = chunk.usage
        for choice in chunk.choices or ():
            yield from self._decode_choice(choice)

    def end(self) -> Iterator[Event]:
        """The last events. Raises `ProviderFailed` where the answer is not complete."""
        if not all(choice.has_ended for choice in self._choices):
            raise ProviderFailed("The provider's stream broke off before the end of the answer.")
        yield Finished(self._estimate() if self._usage is None else _usage_of(self._usage))

    def _decode_choice(self, chunk: ChatChunkChoice | CompletionChoice) -> Iterator[Event]:
        index = chunk.index
        if not 0 <= index < len(self._choices):
            raise ProviderFailed(f"The provider sent a choice {index} that nobody asked for.")
        choice = self._choices[index]
        if choice.has_ended:
            return
        if isinstance(chunk, CompletionChoice):
            yield from self._more(index, PartKind.TEXT, chunk.text, _of_completion(chunk.logprobs))
        else:
            yield from self._more_of_chat(index, chunk.delta or _NO_DELTA, _of_chat(chunk.logprobs))
        reason = chunk.finish_reason
        # some servers send an empty one with every chunk
        if reason:
            choice.has_ended = True
            yield from self._close(index)
            ended = _REASONS.get(reason, FinishReason.STOP)
            yield ChoiceEnd(index, FinishReason.TOOL_CALLS if choice.has_calls and reason == "stop" else ended)

    def _more_of_chat(
        self, index: int, delta: ChatMessageObject, logprobs: tuple[TokenLogprob, ...]
    ) -> Iterator[Event]:
        """Log-probabilities belong to whatever the chunk adds first, and without any, to what is open."""
        if thought := delta.reasoning_content or delta.reasoning:
            yield from self._more(index, PartKind.REASONING, thought, logprobs)
            logprobs = ()
        for part_kind, text in _texts_of(delta):
            yield from self._more(index, part_kind, text, logprobs)
            logprobs = ()
        calls = delta.tool_calls or ()
        if delta.function_call is not None:
            calls = [ToolCallObject(index=0, function=delta.function_call)]
        for call in calls:
            yield from self._more_of_call(index, call, logprobs)
            logprobs = ()
        if logprobs:
            kind = self._choices[index].kind
            if kind is PartKind.TOOL_CALL:
                yield PartDelta(index, "", logprobs)
            else:
                yield from self._more(index, kind or PartKind.TEXT, "", logprobs)

    def _more(
        self, index: int, kind: PartKind, text: str | None, logprobs: tuple[TokenLogprob, ...]
    ) -> Iterator[Event]:
        if not text and not logprobs:
            return
        if self._choices[index].kind is not kind:
            yield from self._close(index)
            self._choices[index].kind = kind
            yield PartStart(index, kind)
        self._num_characters += len(text or "")
        yield PartDelta(index, text or "", logprobs)

    def _more_of_call(self, index: int, call: ToolCallObject, logprobs: tuple[TokenLogprob, ...]) -> Iterator[Event]:
        choice = self._choices[index]
        function = call.function or _NO_FUNCTION
        text = _arguments_of(function)
        # who sends no index sends calls whole
        call_index = max((choice.call_index, *choice.waiting)) + 1 if call.index is None else call.index
        self._num_characters += len(text)
        if call_index == choice.call_index and choice.kind is PartKind.TOOL_CALL:
            choice.arguments += text
            if text or logprobs:
                yield PartDelta(index, text, logprobs)
        elif call_index in choice.waiting:
            waiting = choice.waiting[call_index]
            waiting.arguments += text
            waiting.logprobs += logprobs
        elif call_index < choice.call_index or (call_index == choice.call_index and not function.name):
            raise ProviderFailed("The provider sent more of a tool call after it was complete.")
        elif not function.name:
            raise ProviderFailed("The provider sent a tool call without the name of its tool.")
        else:
            call_id = call.id or f"call_{index}_{call_index}"
            choice.has_calls = True
            choice.waiting[call_index] = _WaitingCall(call_id, function.name, text, logprobs)
        yield from self._begin_calls(index)

    def _begin_calls(self, index: int, *, is_end: bool = False) -> Iterator[Event]:
        """Those that wait, each once the one before it is complete; at the end all of them. The last one stays open."""
        choice = self._choices[index]
        while choice.waiting and (is_end or choice.has_whole_call):
            if choice.kind is not None:
                yield PartEnd(index)
            choice.call_index = min(choice.waiting)
            call = choice.waiting.pop(choice.call_index)
            choice.kind, choice.arguments = PartKind.TOOL_CALL, call.arguments
            yield PartStart(index, PartKind.TOOL_CALL, call.call_id, call.name)
            if call.arguments or call.logprobs:
                yield PartDelta(index, call.arguments, call.logprobs)

    def _close(self, index: int) -> Iterator[Event]:
        yield from self._begin_calls(index, is_end=True)
        if self._choices[index].kind is not None:
            self._choices[index].kind = None
            yield PartEnd(index)

    def _estimate(self) -> Usage:
        """For providers that send no usage."""
        return Usage(
            num_prompt_tokens=estimate_tokens(self._prompt),
            num_cached_tokens=0,
            num_completion_tokens=max(self._num_characters // _CHARACTERS_PER_TOKEN, 1),
        )


def _failure_of(error: str | Mapping[str, Any]) -> ProviderFailed:
    fields: Mapping[str, Any] = {"message": error} if isinstance(error, str) else error
    said = " ".join(str(fields.get("message")).split())[:300]
    is_busy = fields.get("code") in _BUSY or fields.get("type") in _BUSY
    return (ProviderBusy if is_busy else ProviderFailed)(f"The provider broke off: {said}")


def _texts_of(delta: ChatMessageObject) -> Sequence[tuple[PartKind, str]]:
    """What a chunk adds in words: a text, or parts of it as some servers send them, thoughts among them."""
    content = delta.content or delta.refusal
    if isinstance(content, list):
        return [
            (PartKind.REASONING if part.type == "thinking" else PartKind.TEXT, text)
            for part in content
            if (text := _text_of(part))
        ]
    return [(PartKind.TEXT, content)] if content else ()


def _text_of(part: ContentPartObject) -> str:
    if isinstance(part.thinking, list):
        return "".join(piece.text or "" for piece in part.thinking)
    return part.thinking or part.text or part.refusal or ""


def _arguments_of(function: FunctionObject) -> str:
    """Some servers send the object itself, not its text."""
    arguments = function.arguments
    return json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, dict) else arguments or ""


def _usage_of(usage: UsageObject) -> Usage:
    cached, thought = usage.prompt_tokens_details, usage.completion_tokens_details
    return Usage(
        num_prompt_tokens=usage.prompt_tokens or 0,
        num_cached_tokens=(cached.cached_tokens if cached else None) or 0,
        num_completion_tokens=usage.completion_tokens or 0,
        num_reasoning_tokens=(thought.reasoning_tokens if thought else None) or 0,
        cost_usd=_dollars(usage.cost),
    )


def _dollars(said: Any) -> float | None:
    is_number = isinstance(said, int | float) and not isinstance(said, bool)
    return float(said) if is_number and 0 <= said < _MOST_USD else None


def _of_chat(sent: ChatLogprobs | None) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(
            entry.token,
            _bytes_of(entry.token, entry.bytes),
            entry.logprob,
            tuple(_top_of(other) for other in entry.top_logprobs),
        )
        for entry in ((sent.content or ()) if sent else ())
    )


def _top_of(entry: TopLogprobObject) -> TopLogprob:
    return TopLogprob(entry.token, _bytes_of(entry.token, entry.bytes), entry.logprob)


def _of_completion(sent: CompletionLogprobs | None) -> tuple[TokenLogprob, ...]:
    if sent is None:
        return ()
    rows = zip_longest(sent.tokens, sent.token_logprobs, sent.top_logprobs or ())
    return tuple(
        TokenLogprob(
            token or "",
            (token or "").encode(),
            logprob or 0.0,
            tuple(TopLogprob(other, other.encode(), value) for other, value in (top or {}).items()),
        )
        for token, logprob, top in rows
    )


def _bytes_of(token: str, sent: list[int] | None) -> bytes:
    return token.encode() if sent is None else bytes(value & 0xFF for value in sent)
