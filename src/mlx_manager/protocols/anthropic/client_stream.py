"""The stream of somebody who speaks Anthropic's Messages, as ir events. The other way round: `stream`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import get_args

import msgspec

from mlx_manager.errors import ProviderBusy, ProviderFailed
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
    Usage,
    printable,
)
from mlx_manager.protocols.anthropic.answers import (
    BlockObject,
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    DeltaObject,
    ErrorBody,
    InputJsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    Ping,
    SignatureDelta,
    StopObject,
    StreamObject,
    TextDelta,
    TextObject,
    ThinkingDelta,
    ThinkingObject,
    ToolUseObject,
    UsageObject,
)
from mlx_manager.protocols.anthropic.signature import is_ours

_BUSY = ("overloaded_error", "rate_limit_error")


class _Inner(msgspec.Struct, frozen=True):
    type: str | None = None


class _Outer(msgspec.Struct, frozen=True):
    """What is looked at first: the dialect may add types, and clients are asked to pass over them."""

    type: str
    content_block: _Inner = _Inner()
    delta: _Inner = _Inner()


def _types_of(union: object) -> frozenset[str | None]:
    return frozenset(str(struct.__struct_config__.tag) for struct in get_args(union)) | {None}


_EVENTS, _BLOCKS, _DELTAS = _types_of(StreamObject), _types_of(BlockObject), _types_of(DeltaObject)
_peeks: msgspec.json.Decoder[_Outer] = msgspec.json.Decoder(_Outer)
_events: msgspec.json.Decoder[StreamObject] = msgspec.json.Decoder(StreamObject)


class MessageDecoder:
    """Decodes one answer. Raises `ProviderFailed` for what is not the dialect."""

    def __init__(self) -> None:
        self._kind: PartKind | None = None
        """Of the open block; None outside of blocks, and in one of a kind that has no part."""
        self._signature = ""
        self._has_arguments = False
        self._usage = UsageObject()
        self._end: ChoiceEnd | None = None
        self.is_done = False
        """Whether the provider said that nothing follows."""
        self.answer_id: str | None = None
        self.answer_model: str | None = None

    def decode(self, data: bytes) -> Iterator[Event]:
        """The events that one message of the stream adds."""
        try:
            peek = _peeks.decode(data)
            is_known = peek.type in _EVENTS and peek.content_block.type in _BLOCKS and peek.delta.type in _DELTAS
            event = _events.decode(data) if is_known else Ping()
        except msgspec.ValidationError as error:
            raise ProviderFailed(f"The provider sent a message in another form than Anthropic's ({error}).") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ProviderFailed(f"The provider sent what is no JSON ({error}).") from None
        yield from self._read(event)

    def end(self) -> Iterator[Event]:
        """The last events. Raises `ProviderFailed` where the answer is not complete."""
        if not self.is_done or self._end is None:
            raise ProviderFailed("The provider's stream broke off before the end of the answer.")
        yield self._end
        yield Finished(_usage_of(self._usage))

    def _read(self, event: StreamObject) -> Iterator[Event]:
        match event:
            case MessageStart(message):
                self._usage = message.usage
                self.answer_id, self.answer_model = printable(message.id), printable(message.model)
                yield PromptReady(_num_prompt_tokens(self._usage))
            case ContentBlockStart(content_block=block):
                yield from self._begin(block)
            case ContentBlockDelta(delta=delta):
                yield from self._more(delta)
            case ContentBlockStop():
                yield from self._close()
            case MessageDelta(delta=stop, usage=usage):
                self._usage = _newer(self._usage, usage)
                if stop.stop_reason is not None:
                    self._end = _end_of(stop)
            case MessageStop():
                self.is_done = True
            case ErrorBody(error=error):
                failure = ProviderBusy if error.type in _BUSY else ProviderFailed
                raise failure(f"The provider broke off: {' '.join(error.message.split())[:300]}")
            case Ping():
                pass

    def _begin(self, block: BlockObject) -> Iterator[Event]:
        self._signature, self._has_arguments = "", False
        match block:
            case ToolUseObject(id=call_id, name=name, input=given):
                self._kind = PartKind.TOOL_CALL
                yield PartStart(0, self._kind, call_id, name)
                text = json.dumps(given, ensure_ascii=False) if given else ""
            case ThinkingObject(thinking=text, signature=self._signature):
                self._kind = PartKind.REASONING
                yield PartStart(0, self._kind)
            case TextObject(text=text):
                self._kind = PartKind.TEXT
                yield PartStart(0)
        if text:
            yield from self._add(text)

    def _more(self, delta: DeltaObject) -> Iterator[Event]:
        if self._kind is None:
            return
        match delta:
            case SignatureDelta(signature):
                self._signature += signature
            case InputJsonDelta(text) | TextDelta(text) | ThinkingDelta(text):
                yield from self._add(text)

    def _add(self, text: str) -> Iterator[Event]:
        if text:
            self._has_arguments = True
            yield PartDelta(0, text)

    def _close(self) -> Iterator[Event]:
        if self._kind is None:
            return
        if self._kind is PartKind.TOOL_CALL and not self._has_arguments:
            yield PartDelta(0, "{}")
        yield PartEnd(0, signature="" if is_ours(self._signature) else self._signature)
        self._kind = None


def _end_of(stop: StopObject) -> ChoiceEnd:
    match stop.stop_reason:
        case "tool_use":
            return ChoiceEnd(0, FinishReason.TOOL_CALLS)
        case "max_tokens":
            return ChoiceEnd(0, FinishReason.LENGTH)
        case "model_context_window_exceeded":
            return ChoiceEnd(0, FinishReason.LENGTH, is_context_full=True)
        case "refusal":
            return ChoiceEnd(0, FinishReason.CONTENT_FILTER)
        case _:
            return ChoiceEnd(0, FinishReason.STOP, stop.stop_sequence)


def _newer(before: UsageObject, now: UsageObject) -> UsageObject:
    """Counts of a later event are totals; those that it leaves out stand."""
    said = {name: value for name in now.__struct_fields__ if (value := getattr(now, name)) is not None}
    return msgspec.structs.replace(before, **said)


def _num_prompt_tokens(usage: UsageObject) -> int:
    """Prompt tokens count in three parts: new, written to the provider's cache, and read from it."""
    parts = (usage.input_tokens, usage.cache_creation_input_tokens, usage.cache_read_input_tokens)
    return sum(part or 0 for part in parts)


def _usage_of(usage: UsageObject) -> Usage:
    return Usage(
        num_prompt_tokens=_num_prompt_tokens(usage),
        num_cached_tokens=usage.cache_read_input_tokens or 0,
        num_completion_tokens=usage.output_tokens or 0,
        num_cache_written_tokens=usage.cache_creation_input_tokens or 0,
        num_reasoning_tokens=usage.output_tokens_details.thinking_tokens if usage.output_tokens_details else 0,
    )
