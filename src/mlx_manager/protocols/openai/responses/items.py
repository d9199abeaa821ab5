"""The items of a conversation as `ir.Message`s: what belongs to one turn of the assistant becomes one message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mlx_manager.errors import InvalidRequest, UnsupportedParameter
from mlx_manager.ir import Content, Message, Role, TextContent, ToolCall
from mlx_manager.protocols.documents import parse_document_url, parse_file
from mlx_manager.protocols.images import parse_image_url
from mlx_manager.protocols.openai.conversation import parse_arguments
from mlx_manager.protocols.openai.responses.reasoning import unpack_reasoning
from mlx_manager.protocols.openai.responses.tools import flat_name
from mlx_manager.protocols.openai.responses.wire import (
    Item,
    SentCallOutput,
    SentFunctionCall,
    SentMessage,
    SentPart,
    SentReasoning,
    SentReference,
)

_ROLES = {"user": Role.USER, "assistant": Role.ASSISTANT, "system": Role.SYSTEM, "developer": Role.SYSTEM}
_TEXTS = ("input_text", "output_text", "text")


@dataclass
class _Turn:
    """What the assistant has thought, said and called since somebody else spoke."""

    reasoning: list[str] = field(default_factory=list)
    content: list[Content] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)

    def message(self) -> Message | None:
        """All of it; None for nothing."""
        if not (self.reasoning or self.content or self.calls):
            return None
        return Message(
            role=Role.ASSISTANT,
            content=tuple(self.content),
            reasoning="\n".join(self.reasoning),
            tool_calls=tuple(self.calls),
        )


class ItemReader:
    """Reads items in their order. References must have been resolved.

    A turn of the assistant is thinking, then text, then calls; an item that is out of this order begins a new turn.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.unread: list[str] = []
        """Fields with thinking that another provider has encrypted: it cannot be told to the model."""
        self._turn = _Turn()
        self._has_spoken = False
        self._calls: dict[str, str] = {}
        """Names of the functions called, by the ids of the calls."""
        self._answered: set[str] = set()

    def read(self, items: Sequence[Item], at: str) -> None:
        """Take `items`, which come from the field `at`. Raises `InvalidRequest`."""
        for index, item in enumerate(items):
            self._read(item, f"{at}[{index}]")

    def finish(self) -> tuple[Message, ...]:
        """All messages."""
        self._end_turn()
        return tuple(self.messages)

    def _read(self, item: Item, at: str) -> None:
        match item:
            case SentMessage():
                self._read_message(item, at)
            case SentFunctionCall():
                self._read_call(item, at)
            case SentCallOutput():
                self._read_output(item, at)
            case SentReasoning():
                self._read_reasoning(item, at)
            case SentReference():
                raise InvalidRequest(f"{at}.id names {item.id[:80]!r}, which is not stored here.", param=f"{at}.id")
            case _:
                raise UnsupportedParameter(
                    f"{at} is of type {item.type[:40]!r}, which is not supported: send messages, reasoning, function "
                    "calls and their outputs.",
                    param=f"{at}.type",
                )

    def _read_message(self, item: SentMessage, at: str) -> None:
        content = parse_parts(item.content, f"{at}.content")
        role = _ROLES[item.role]
        if role is not Role.ASSISTANT:
            self._end_turn()
            self.messages.append(Message(role=role, content=content))
            return
        if self._turn.calls or self._has_spoken:
            self._end_turn()
        self._turn.content.extend(content)
        self._has_spoken = True

    def _read_call(self, item: SentFunctionCall, at: str) -> None:
        if item.call_id in self._calls and item.call_id not in self._answered:
            raise InvalidRequest(
                f"{at}.call_id {item.call_id[:80]!r} is the id of a call before it that has no output yet.",
                param=f"{at}.call_id",
            )
        name = flat_name(item.name, item.namespace)
        self._calls[item.call_id] = name
        self._answered.discard(item.call_id)
        arguments = parse_arguments(item.arguments)
        self._turn.calls.append(ToolCall(call_id=item.call_id, name=name, arguments=arguments))

    def _read_output(self, item: SentCallOutput, at: str) -> None:
        if item.call_id not in self._calls:
            known = ", ".join(repr(known_id) for known_id in self._calls) or "none"
            raise InvalidRequest(
                f"{at}.call_id cannot be {item.call_id[:80]!r}: name a function_call before it (there: {known[:500]}).",
                param=f"{at}.call_id",
            )
        if item.call_id in self._answered:
            raise InvalidRequest(
                f"{at}.call_id {item.call_id[:80]!r} has an output before it: send one for each call.",
                param=f"{at}.call_id",
            )
        self._end_turn()
        self._answered.add(item.call_id)
        content = parse_parts(item.output, f"{at}.output")
        name = self._calls[item.call_id]
        self.messages.append(Message(role=Role.TOOL, content=content, name=name, tool_call_id=item.call_id))

    def _read_reasoning(self, item: SentReasoning, at: str) -> None:
        packed = item.encrypted_content
        text = unpack_reasoning(packed) if packed else None
        if text is None:
            text = "\n".join(thought.text for thought in (item.content or item.summary))
        if packed and not text:
            self.unread.append(f"{at}.encrypted_content")
        if not text:
            return
        if self._turn.content or self._turn.calls:
            self._end_turn()
        self._turn.reasoning.append(text)

    def _end_turn(self) -> None:
        message = self._turn.message()
        if message is None and self._has_spoken:
            message = Message(role=Role.ASSISTANT)
        if message is not None:
            self.messages.append(message)
        self._turn, self._has_spoken = _Turn(), False


def parse_parts(content: str | list[SentPart], at: str) -> tuple[Content, ...]:
    """The content of a message or of a call's output. Raises `InvalidRequest`."""
    if isinstance(content, str):
        return (TextContent(content),) if content else ()
    return tuple(_parse_part(part, f"{at}[{index}]") for index, part in enumerate(content))


def _parse_part(part: SentPart, at: str) -> Content:
    if part.type in _TEXTS:
        if part.text is None:
            raise InvalidRequest(f"{at}.text is required: send a string.", param=f"{at}.text")
        return TextContent(part.text)
    if part.type == "refusal":
        return TextContent(part.refusal or "")
    if part.type == "input_image" and part.image_url is not None:
        return parse_image_url(part.image_url, part.detail, at=f"{at}.image_url")
    if part.type == "input_image":
        raise UnsupportedParameter(
            f"{at} is a picture without image_url: files are not kept here, send a data URL or an https address.",
            param=f"{at}.image_url",
        )
    if part.type == "input_file" and part.file_url is not None:
        if part.file_data is not None:
            raise InvalidRequest(f"{at}.file_url and file_data exclude each other: send one.", param=f"{at}.file_url")
        return parse_document_url(part.file_url, part.filename or "", at=f"{at}.file_url")
    if part.type == "input_file":
        return parse_file(part.file_data, part.filename, at=at)
    raise UnsupportedParameter(
        f"{at} is of type {part.type[:40]!r}, which is not supported: send parts of type input_text, input_image or "
        "input_file.",
        param=f"{at}.type",
    )
