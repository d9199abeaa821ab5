"""What one side of Anthropic's dialect says, the other understands: requests both ways, and streams both ways."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from mlx_manager.errors import ProviderBusy, ProviderFailed, UnsupportedParameter
from mlx_manager.ir import (
    ChatPrompt,
    ChoiceEnd,
    Event,
    Finished,
    FinishReason,
    GenerationRequest,
    Grammar,
    GrammarKind,
    PartDelta,
    PartEnd,
    PartKind,
    PartStart,
    PassedOn,
    PromptReady,
    Sampling,
    TextPrompt,
    Tool,
    ToolChoice,
    ToolChoiceMode,
    Usage,
)
from mlx_manager.protocols.anthropic import AnswerForm, MessageEncoder, parse_messages
from mlx_manager.protocols.anthropic.client_request import render_request
from mlx_manager.protocols.anthropic.client_stream import MessageDecoder
from tests.protocols.drawn import answers, requests


@settings(deadline=None, max_examples=150)
@given(requests())
def test_a_request_is_the_same_after_it_was_rendered_and_parsed(request: GenerationRequest) -> None:
    body = json.dumps(render_request(request, provider="up")).encode()
    call = parse_messages(body, answer_id="r")
    assert replace(call.request, passed_on=PassedOn()) == request
    assert (call.stream, call.ignored) == (True, ())


def decoded(stream: bytes) -> list[Event]:
    decoder = MessageDecoder()
    frames = [frame.partition(b"data: ")[2] for frame in stream.split(b"\n\n") if frame]
    events = [event for data in frames for event in decoder.decode(data)]
    assert decoder.is_done
    return [*events, *decoder.end()]


@settings(deadline=None, max_examples=150)
@given(answers(), st.booleans(), st.booleans())
def test_an_answer_is_the_same_after_it_was_encoded_and_decoded(
    events: list[Event], has_marks: bool, streams: bool
) -> None:
    form = AnswerForm(id="msg_1", model="m", has_cache_marks=has_marks, streams_arguments=streams)
    encoder = MessageEncoder(form)
    assert decoded(b"".join(encoder.encode(event) for event in events)) == events


def test_what_providers_send_beside_that_is_passed_over() -> None:
    sent: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "m", "type": "message", "model": "m", "content": [], "new": 1,
                                              "usage": {"input_tokens": 5, "service_tier": "standard"}}},
        {"type": "ping"},
        {"type": "from_the_future"},
        {"type": "content_block_start", "index": 0,
         "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": {}}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "redacted_thinking", "data": "x"}},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "pause_turn"}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ]  # fmt: skip
    decoder = MessageDecoder()
    events = [event for each in sent for event in decoder.decode(json.dumps(each).encode())] + list(decoder.end())
    assert events == [
        PromptReady(5),
        PartStart(0, PartKind.TOOL_CALL, "t", "f"),
        PartDelta(0, "{}"),
        PartEnd(0),
        ChoiceEnd(0, FinishReason.STOP),
        Finished(Usage(num_prompt_tokens=5, num_cache_written_tokens=0, num_cached_tokens=0, num_completion_tokens=3)),
    ]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b'{"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}', ProviderBusy),
        (b'{"type": "error", "error": {"type": "api_error", "message": "broken"}}', ProviderFailed),
        (b'{"type": "content_block_start", "content_block": {"type": "text", "text": 5}, "index": 0}', ProviderFailed),
        (b'{"type": 5}', ProviderFailed),
        (b"{", ProviderFailed),
        (b"\xff", ProviderFailed),
    ],
)
def test_a_stream_that_breaks_raises_what_it_says(data: bytes, error: type[ProviderFailed]) -> None:
    with pytest.raises(error):
        list(MessageDecoder().decode(data))


def test_a_stream_without_an_end_is_no_answer() -> None:
    with pytest.raises(ProviderFailed):
        list(MessageDecoder().end())


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": TextPrompt(text="raw")},
        {"sampling": Sampling(grammar=Grammar(kind=GrammarKind.REGEX, param="guided_regex", text="a"))},
        {"sampling": Sampling(temperature=1.5)},
        {"num_choices": 2},
    ],
)
def test_what_the_dialect_cannot_say_is_refused(changes: dict[str, Any]) -> None:
    request = GenerationRequest(request_id="r", model="m", prompt=ChatPrompt(messages=()))
    with pytest.raises(UnsupportedParameter):
        render_request(msgspec.structs.replace(request, **changes), provider="up")


@pytest.mark.parametrize("mode", [ToolChoiceMode.AUTO, ToolChoiceMode.REQUIRED])
def test_tools_that_may_not_be_called_are_not_shown(mode: ToolChoiceMode) -> None:
    tools = tuple(Tool(name=name) for name in "abc")
    choice = ToolChoice(mode=mode, names=("a", "c"))
    request = GenerationRequest(
        request_id="r", model="m", prompt=ChatPrompt(messages=(), tools=tools, tool_choice=choice)
    )
    body = render_request(request, provider="up")
    assert [tool["name"] for tool in body["tools"]] == ["a", "c"]
    assert body["tool_choice"] == {"type": "auto" if mode is ToolChoiceMode.AUTO else "any"}
