"""An answer told as the items of a response, and sent back as the input of the next, is the same conversation."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_manager.ir import (
    ChatPrompt,
    ChoiceEnd,
    Event,
    Finished,
    FinishReason,
    Message,
    PartDelta,
    PartEnd,
    PartKind,
    PartStart,
    PromptReady,
    Role,
    Usage,
)
from mlx_manager.protocols.openai.responses import (
    ResponseBuilder,
    ResponseCall,
    encode_response,
    parse_response,
    read_response_request,
)

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
OBJECTS = st.dictionaries(TEXT, TEXT, max_size=2).map(json.dumps)
NAMES = st.sampled_from(["f", "ns__g"])
TOOLS = [
    {"type": "function", "name": "f"},
    {"type": "namespace", "name": "ns", "tools": [{"type": "function", "name": "g"}]},
]
Said = tuple[PartKind, str, str | None, str | None]


@st.composite
def parts(draw: st.DrawFn) -> list[Said]:
    """What an answer says, in any order; thinking does not follow on thinking."""
    said: list[Said] = []
    for index, kind in enumerate(draw(st.lists(st.sampled_from(list(PartKind)), min_size=1, max_size=6))):
        if kind is PartKind.TOOL_CALL:
            said.append((kind, draw(OBJECTS), f"call_{index}", draw(NAMES)))
        elif not (said and said[-1][0] is kind is PartKind.REASONING):
            said.append((kind, draw(TEXT), None, None))
    return said


def call_of(given: list[Any], **sent: Any) -> ResponseCall:
    body = {"model": "m", "input": given, "tools": TOOLS} | sent
    wire = read_response_request(json.dumps(body).encode())
    return parse_response(wire, referenced={}, answer_id="resp_1", created_unix_s=0)


def response_of(call: ResponseCall, said: list[Said]) -> list[dict[str, Any]]:
    """The items that `said` is answered with."""
    events: list[Event] = [PromptReady(1)]
    for kind, text, call_id, name in said:
        events += [PartStart(0, kind, call_id, name), PartDelta(0, text), PartEnd(0)]
    events += [ChoiceEnd(0, FinishReason.STOP)]
    events += [Finished(Usage(num_prompt_tokens=1, num_cached_tokens=0, num_completion_tokens=1))]
    builder = ResponseBuilder(call.opening, call.form)
    for event in events:
        builder.add(event)
    items: list[dict[str, Any]] = msgspec.json.decode(encode_response(builder.response))["output"]
    return items


def told(messages: tuple[Message, ...]) -> list[Said]:
    """What messages of the assistant say, part by part."""
    found: list[Said] = []
    for message in messages:
        assert message.role is Role.ASSISTANT
        if message.reasoning:
            found.append((PartKind.REASONING, message.reasoning, None, None))
        found += [(PartKind.TEXT, piece.text, None, None) for piece in message.content]  # type: ignore[union-attr]
        found += [(PartKind.TOOL_CALL, call.arguments, call.call_id, call.name) for call in message.tool_calls]
    return found


@settings(max_examples=150, deadline=None)
@given(parts(), st.booleans(), st.booleans())
def test_an_answer_comes_back_as_it_was(said: list[Said], has_summary: bool, is_packed: bool) -> None:
    reasoning = {"summary": "auto"} if has_summary else None
    include = ["reasoning.encrypted_content"] if is_packed else []
    asked = {"role": "user", "content": "hi"}
    items = response_of(call_of([asked], reasoning=reasoning, include=include), said)
    if is_packed:
        # a client that keeps nothing but what is packed
        items = [item | {"summary": [], "content": None} if item["type"] == "reasoning" else item for item in items]
    prompt = call_of([asked, *items]).request.prompt
    assert isinstance(prompt, ChatPrompt)
    assert told(prompt.messages[1:]) == said
