"""gpt-oss: answers are messages, each with a header that names its channel and, for a call, the tool it goes to.

The format is OpenAI's "harmony": https://github.com/openai/harmony
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mlx_manager.ir import PartKind, Tool
from mlx_manager.parsing.cursor import Cursor, Malformed, Reading
from mlx_manager.parsing.emitter import Emitter
from mlx_manager.parsing.grammar import GrammarWriter, json_value, literal, parameters_of
from mlx_manager.parsing.json_text import read_value
from mlx_manager.parsing.style import AnswerStyle

_START, _CHANNEL, _MESSAGE, _CONSTRAIN = "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"
_ENDS = ("<|end|>", "<|call|>", "<|return|>")
_BODY_STOPS = (*_ENDS, _START, _CHANNEL)
_RECIPIENT = re.compile(r"to=([^\s<]+)")
_CHANNEL_NAME = re.compile(r"<\|channel\|>\s*(\w+)")
_MOST_HEADER_CHARACTERS = 512


@dataclass(frozen=True)
class HarmonyStyle(AnswerStyle):
    """The answer follows `<|start|>assistant`, so its first header begins in the middle."""

    @property
    def markers(self) -> tuple[str, ...]:
        """See `AnswerStyle`."""
        return (_START, _CHANNEL, _MESSAGE, _CONSTRAIN, *_ENDS)

    @property
    def makes_calls(self) -> bool:
        """See `AnswerStyle`."""
        return True

    @property
    def can_answer_in_a_form(self) -> bool:
        """See `AnswerStyle`."""
        return True

    @property
    def reasoning_end(self) -> str:
        """See `AnswerStyle`."""
        return f"{_ENDS[0]}{_START}assistant{_CHANNEL}final{_MESSAGE}"

    def starts_in_reasoning(self, prompt: str) -> bool:
        """See `AnswerStyle`. Every answer begins with a header."""
        return False

    def read(
        self, cursor: Cursor, out: Emitter, tools: tuple[Tool, ...], *, starts_in_reasoning: bool
    ) -> Reading[None]:
        """See `AnswerStyle`."""
        stop = _START
        while stop:
            header = yield from _read_header(cursor, out, stop)
            if header is None:
                stop = yield from cursor.until(_BODY_STOPS, out.text)
            else:
                out.marker()
                stop = yield from _read_body(cursor, out, header, bool(tools))
            if stop in _ENDS:
                out.marker()
                yield from cursor.skip_whitespace()
                yield from cursor.literal(_START)

    def lark(
        self,
        tools: tuple[Tool, ...],
        *,
        parallel: bool,
        required: bool,
        special_ids: Mapping[str, int] = {},
        starts_in_reasoning: bool = False,
        may_reason: bool = True,
        form: str = "",
    ) -> str:
        """See `AnswerStyle`. A call ends the answer, so there is never more than one."""
        writer = GrammarWriter(special_ids)
        channel, message, end = writer.marker(_CHANNEL), writer.marker(_MESSAGE), writer.until("message_rest", _ENDS[0])
        calls = [
            f"{literal(f'commentary to=functions.{tool.name} ')} {writer.marker(_CONSTRAIN)} "
            f'"json" {message} {json_value(parameters_of(tool))}'
            for tool in tools
        ]
        writer.rule("call", f"{channel} ({' | '.join(calls)})")
        preamble = '"analysis"' if required or form else '("analysis" | "commentary")'
        writer.rule("thoughts", f'{channel} {preamble} {message} {end} {writer.marker(_START)} "assistant"')
        text = writer.rule("form", form) if form else writer.rule("TEXT", "/(?s:.*)/")
        final = "" if required else f' | {channel} "final" {message} {text}'
        writer.rule("start", f"{'thoughts* ' if may_reason or not (required or form) else ''}(call{final})")
        return writer.text()


@dataclass(frozen=True)
class _Header:
    channel: str
    recipient: str


def _read_header(cursor: Cursor, out: Emitter, stop: str) -> Reading[_Header | None]:
    """The header after `stop`; None where there is none, and then what was read of it is out as text."""
    cursor.mark()
    if stop != _CHANNEL:
        yield from cursor.literal("assistant")
        yield from cursor.skip_whitespace()
        if not (yield from cursor.literal(_CHANNEL)) and not (yield from cursor.literal("to=")):
            out.text(cursor.unmark())
            return None
    try:
        yield from cursor.collect_until((_MESSAGE,), _MOST_HEADER_CHARACTERS)
    except Malformed:
        cursor.unmark()  # a header that was cut off says nothing yet
        return _Header("", "")
    spelled = (_CHANNEL if stop == _CHANNEL else "") + cursor.unmark()
    channel, recipient = _CHANNEL_NAME.search(spelled), _RECIPIENT.search(spelled)
    return _Header(channel[1] if channel else "", recipient[1] if recipient else "")


def _read_body(cursor: Cursor, out: Emitter, header: _Header, has_tools: bool) -> Reading[str]:
    """What a message says, up to the marker that ends it; that marker."""
    emit = out.reasoning if header.channel == "analysis" and not header.recipient else out.text
    if has_tools and header.recipient.startswith("functions."):
        cursor.mark()
        try:
            yield from cursor.skip_whitespace()
            if (yield from cursor.peek()) != "{":
                raise Malformed
            out.start_call(header.recipient.removeprefix("functions."))
            yield from read_value(cursor, out.arguments)
            out.end_call()
            cursor.unmark()
        except Malformed:
            out.hand_back(cursor.unmark(), PartKind.TEXT)
    return (yield from cursor.until(_BODY_STOPS, emit))
