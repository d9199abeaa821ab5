"""Feeds texts to the parser of a style, in pieces, and folds what comes out."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_manager.ir import Event, PartDelta, PartEnd, PartKind, PartStart, Tool
from mlx_manager.parsing import AnswerParser, AnswerStyle

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "units": {"enum": ["metric", "imperial"]},
    },
    "required": ["city"],
}
SEARCH = {
    "type": "object",
    "properties": {
        "query": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "filters": {"type": "object"},
        "exact": {"type": "boolean"},
        "score": {"type": "number"},
    },
    "required": ["query"],
}
TOOLS = (
    Tool(name="get_weather", parameters=json.dumps(WEATHER)),
    Tool(name="web-search", parameters=json.dumps(SEARCH)),
    Tool(name="ping", parameters='{"type": "object", "properties": {}}'),
)


@dataclass(frozen=True)
class Part:
    """One part of an answer: of a call, the tool's name and its arguments."""

    kind: PartKind
    text: str
    name: str | None = None

    def __repr__(self) -> str:
        return f"{self.kind.value}{f' {self.name}' if self.name else ''}: {self.text!r}"


def text(content: str) -> Part:
    return Part(PartKind.TEXT, content)


def reasoning(content: str) -> Part:
    return Part(PartKind.REASONING, content)


def call(name: str, /, **arguments: Any) -> Part:
    return Part(PartKind.TOOL_CALL, json.dumps(arguments, sort_keys=True), name)


def read(
    style: AnswerStyle, pieces: Iterable[str], *, tools: tuple[Tool, ...] = TOOLS, starts_in_reasoning: bool = False
) -> list[Part]:
    """The parts of an answer; arguments as JSON in one spelling, so that they have to be JSON."""
    return [_spelled(part) for part in raw(style, pieces, tools=tools, starts_in_reasoning=starts_in_reasoning)]


def raw(
    style: AnswerStyle,
    pieces: Iterable[str],
    *,
    tools: tuple[Tool, ...] = TOOLS,
    starts_in_reasoning: bool = False,
    is_cut: bool = False,
    is_required: bool = True,
) -> list[Part]:
    """The same with arguments as they were streamed. `is_cut` by its length, where a call was required or not."""
    parser = AnswerParser(
        0,
        style,
        tools,
        starts_in_reasoning=starts_in_reasoning,
        are_calls_enforced=is_cut and is_required,
        is_call_required=is_cut and is_required,
    )
    events: list[Event] = []
    for piece in pieces:
        events += parser.feed(piece)
    return fold(events + parser.finish(is_cut=is_cut))


def fold(events: Sequence[Event]) -> list[Part]:
    """Events in their order: a part starts, has deltas, ends; neighbouring texts are one."""
    parts: list[Part] = []
    open_part: PartStart | None = None
    content = ""
    for event in events:
        match event:
            case PartStart():
                assert open_part is None, "a part starts inside another"
                open_part, content = event, ""
            case PartDelta(text=more):
                assert open_part is not None, "text outside of a part"
                assert more, "a delta without text"
                content += more
            case PartEnd(is_withdrawn=is_withdrawn):
                assert open_part is not None, "the end of no part"
                if not is_withdrawn:
                    parts.append(Part(open_part.kind, content, open_part.tool_name))
                open_part = None
            case _:
                raise AssertionError(event)
    assert open_part is None, "a part that does not end"
    return _joined(parts)


def splits(whole: str, number: int, seed: int = 0) -> Iterable[list[str]]:
    """`number` ways to cut a text into pieces: all characters alone, then at random places."""
    yield list(whole)
    drawn = random.Random(f"{seed} {whole}")
    for _ in range(number - 1):
        num_cuts = drawn.randint(1, min(24, max(1, len(whole) - 1)))
        places = sorted({0, len(whole), *(drawn.randint(0, len(whole)) for _ in range(num_cuts))})
        yield [whole[start:end] for start, end in itertools.pairwise(places)]


def _joined(parts: list[Part]) -> list[Part]:
    """Where a call was withdrawn, text follows text."""
    joined: list[Part] = []
    for part in parts:
        if joined and part.kind is joined[-1].kind is not PartKind.TOOL_CALL:
            joined[-1] = Part(part.kind, joined[-1].text + part.text)
        else:
            joined.append(part)
    return joined


def _spelled(part: Part) -> Part:
    if part.kind is not PartKind.TOOL_CALL:
        return part
    arguments = json.loads(part.text)
    assert isinstance(arguments, dict), part
    return Part(part.kind, json.dumps(arguments, sort_keys=True), part.name)
