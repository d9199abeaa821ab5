"""The open part of an answer as an item of a response: its events while it grows, and the item in the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec.structs import replace

from mlx_manager.ir import PartKind, PartStart, TokenLogprob
from mlx_manager.protocols.openai.answers import TokenLogprobObject
from mlx_manager.protocols.openai.chat import render_token_logprobs
from mlx_manager.protocols.openai.responses.answers import (
    ArgumentsDelta,
    ArgumentsDone,
    FunctionCallItem,
    ItemAdded,
    ItemDone,
    MessageItem,
    OutputItem,
    OutputText,
    PartAdded,
    PartDone,
    ReasoningDelta,
    ReasoningDone,
    ReasoningItem,
    ReasoningText,
    StreamEvent,
    SummaryAdded,
    SummaryDelta,
    SummaryDone,
    SummaryText,
    SummaryTextDone,
    TextDelta,
    TextDone,
)
from mlx_manager.protocols.openai.responses.reasoning import pack_reasoning
from mlx_manager.protocols.openai.responses.server import AnswerForm

Next = Callable[[], int]
"""Gives the number of the next event."""


class OpenPart(Protocol):
    """A part that is being written. `number` gives each event its number in the stream."""

    def start(self, number: Next) -> list[StreamEvent]:
        """The events with which the item begins."""
        ...

    def more(self, text: str, logprobs: Sequence[TokenLogprob], number: Next) -> list[StreamEvent]:
        """The events of more text."""
        ...

    def end(self, status: str, number: Next) -> tuple[OutputItem, list[StreamEvent]]:
        """The item, `completed` or `incomplete`, and the events with which it ends."""
        ...


def open_part(start: PartStart, unique: str, index: int, form: AnswerForm) -> OpenPart:
    """The item at `index` that `start` begins; `unique` is what is random in its id."""
    match start.kind:
        case PartKind.TOOL_CALL:
            namespace, name = form.names.origin(start.tool_name or "")
            call = FunctionCallItem(
                id=f"fc_{unique}",
                status="in_progress",
                call_id=start.call_id or f"call_{unique}",
                name=name,
                arguments="",
                namespace=namespace,
            )
            return _Call(call, index)
        case PartKind.REASONING:
            told = _Summary if form.has_summary else _Reasoning
            return told(f"rs_{unique}", index, form)
        case _:
            return _Text(f"msg_{unique}", index)


class _Text:
    def __init__(self, item_id: str, index: int) -> None:
        self._id = item_id
        self._index = index
        self._pieces: list[str] = []
        self._logprobs: list[TokenLogprobObject] = []

    def start(self, number: Next) -> list[StreamEvent]:
        item = MessageItem(id=self._id, status="in_progress")
        return [
            ItemAdded(sequence_number=number(), output_index=self._index, item=item),
            PartAdded(sequence_number=number(), item_id=self._id, output_index=self._index, part=OutputText(text="")),
        ]

    def more(self, text: str, logprobs: Sequence[TokenLogprob], number: Next) -> list[StreamEvent]:
        rendered = render_token_logprobs(logprobs)
        self._pieces.append(text)
        self._logprobs += rendered
        return [
            TextDelta(
                sequence_number=number(), item_id=self._id, output_index=self._index, delta=text, logprobs=rendered
            )
        ]

    def end(self, status: str, number: Next) -> tuple[OutputItem, list[StreamEvent]]:
        part = OutputText(text="".join(self._pieces), logprobs=self._logprobs)
        item = MessageItem(id=self._id, status=status, content=[part])
        return item, [
            TextDone(
                sequence_number=number(),
                item_id=self._id,
                output_index=self._index,
                text=part.text,
                logprobs=self._logprobs,
            ),
            PartDone(sequence_number=number(), item_id=self._id, output_index=self._index, part=part),
            ItemDone(sequence_number=number(), output_index=self._index, item=item),
        ]


class _Reasoning:
    """Thinking, told as the text that it is."""

    def __init__(self, item_id: str, index: int, form: AnswerForm) -> None:
        self._id = item_id
        self._index = index
        self._form = form
        self._pieces: list[str] = []

    def start(self, number: Next) -> list[StreamEvent]:
        item = ReasoningItem(id=self._id, status="in_progress", summary=[], content=[])
        return [
            ItemAdded(sequence_number=number(), output_index=self._index, item=item),
            PartAdded(sequence_number=number(), item_id=self._id, output_index=self._index, part=ReasoningText("")),
        ]

    def more(self, text: str, logprobs: Sequence[TokenLogprob], number: Next) -> list[StreamEvent]:
        if not text:
            return []
        self._pieces.append(text)
        return [ReasoningDelta(sequence_number=number(), item_id=self._id, output_index=self._index, delta=text)]

    def end(self, status: str, number: Next) -> tuple[OutputItem, list[StreamEvent]]:
        part = ReasoningText("".join(self._pieces))
        item = ReasoningItem(
            id=self._id, status=status, summary=[], content=[part], encrypted_content=_packed(part.text, self._form)
        )
        return item, [
            ReasoningDone(sequence_number=number(), item_id=self._id, output_index=self._index, text=part.text),
            PartDone(sequence_number=number(), item_id=self._id, output_index=self._index, part=part),
            ItemDone(sequence_number=number(), output_index=self._index, item=item),
        ]


class _Summary:
    """Thinking, told as its own summary."""

    def __init__(self, item_id: str, index: int, form: AnswerForm) -> None:
        self._id = item_id
        self._index = index
        self._form = form
        self._pieces: list[str] = []

    def start(self, number: Next) -> list[StreamEvent]:
        item = ReasoningItem(id=self._id, status="in_progress", summary=[])
        return [
            ItemAdded(sequence_number=number(), output_index=self._index, item=item),
            SummaryAdded(sequence_number=number(), item_id=self._id, output_index=self._index, part=SummaryText("")),
        ]

    def more(self, text: str, logprobs: Sequence[TokenLogprob], number: Next) -> list[StreamEvent]:
        if not text:
            return []
        self._pieces.append(text)
        return [SummaryDelta(sequence_number=number(), item_id=self._id, output_index=self._index, delta=text)]

    def end(self, status: str, number: Next) -> tuple[OutputItem, list[StreamEvent]]:
        part = SummaryText("".join(self._pieces))
        item = ReasoningItem(
            id=self._id, status=status, summary=[part], encrypted_content=_packed(part.text, self._form)
        )
        return item, [
            SummaryTextDone(sequence_number=number(), item_id=self._id, output_index=self._index, text=part.text),
            SummaryDone(sequence_number=number(), item_id=self._id, output_index=self._index, part=part),
            ItemDone(sequence_number=number(), output_index=self._index, item=item),
        ]


def _packed(text: str, form: AnswerForm) -> str | None:
    return pack_reasoning(text) if form.has_encrypted_reasoning else None


class _Call:
    def __init__(self, item: FunctionCallItem, index: int) -> None:
        self._item = item
        self._index = index
        self._pieces: list[str] = []

    def start(self, number: Next) -> list[StreamEvent]:
        return [ItemAdded(sequence_number=number(), output_index=self._index, item=self._item)]

    def more(self, text: str, logprobs: Sequence[TokenLogprob], number: Next) -> list[StreamEvent]:
        if not text:
            return []
        self._pieces.append(text)
        return [ArgumentsDelta(sequence_number=number(), item_id=self._item.id, output_index=self._index, delta=text)]

    def end(self, status: str, number: Next) -> tuple[OutputItem, list[StreamEvent]]:
        item = replace(self._item, status=status, arguments="".join(self._pieces))
        done = ArgumentsDone(
            sequence_number=number(),
            item_id=item.id,
            output_index=self._index,
            name=item.name,
            arguments=item.arguments,
        )
        return item, [done, ItemDone(sequence_number=number(), output_index=self._index, item=item)]
