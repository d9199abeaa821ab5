"""What one side of Anthropic's dialect says, the other understands: requests both ways, and streams both ways."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_manager.errors import GenerationFailed, MlxManagerError, QueueFull, UnsupportedParameter
from mlx_manager.ir import (
    ChatPrompt,
    ChoiceEnd,
    Event,
    Finished,
    FinishReason,
    GenerationRequest,
    Grammar,
    GrammarKind,
    ImageContent,
    Message,
    PartDelta,
    PartEnd,
    PartKind,
    PartStart,
    PromptReady,
    Role,
    Sampling,
    TextContent,
    TextPrompt,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
    Usage,
)
from mlx_manager.protocols.anthropic import AnswerForm, MessageEncoder, parse_messages
from mlx_manager.protocols.anthropic.client import StreamDecoder, render_request

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
NAMES = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)
OBJECTS = st.dictionaries(WORDS, VALUES, max_size=3)
TEXTS = st.builds(TextContent, WORDS)
IMAGES = st.builds(ImageContent, data=st.binary(min_size=1, max_size=8), media_type=st.just("image/png")) | st.builds(
    ImageContent, url=st.just("https://x/y.png")
)
CONTENTS = st.lists(TEXTS | IMAGES, min_size=1, max_size=3).map(tuple)
TEXTS_ONLY = st.lists(TEXTS, min_size=1, max_size=2).map(tuple)
TOOLS = st.lists(
    st.builds(
        Tool,
        name=NAMES,
        description=WORDS | st.just(""),
        parameters=st.dictionaries(WORDS.filter(lambda key: key != "type"), VALUES, min_size=1, max_size=2).map(
            lambda schema: json.dumps({"type": "object"} | schema, ensure_ascii=False)
        ),
        strict=st.booleans(),
    ),
    max_size=3,
    unique_by=lambda tool: tool.name,
).map(tuple)


@st.composite
def turns(draw: st.DrawFn) -> list[Message]:
    """A conversation of well-formed turns: every call is answered, and the user speaks last."""
    messages: list[Message] = []
    if draw(st.booleans()):
        messages.append(Message(role=Role.SYSTEM, content=draw(TEXTS_ONLY)))
    num_calls = 0
    for _ in range(draw(st.integers(0, 3))):
        messages.append(Message(role=Role.USER, content=draw(CONTENTS)))
        if draw(st.booleans()):
            messages.append(Message(role=Role.SYSTEM, content=draw(TEXTS_ONLY)))
        reasoning = draw(WORDS | st.just(""))
        calls = tuple(
            ToolCall(
                call_id=f"call_{num_calls + index}",
                name=draw(NAMES),
                arguments=json.dumps(draw(OBJECTS), ensure_ascii=False),
            )
            for index in range(draw(st.integers(0, 2)))
        )
        num_calls += len(calls)
        messages.append(
            Message(
                role=Role.ASSISTANT,
                content=draw(TEXTS_ONLY if not calls else TEXTS_ONLY | st.just(())),
                reasoning=reasoning,
                reasoning_signature=draw(st.sampled_from(["", "another's"])) if reasoning else "",
                tool_calls=calls,
            )
        )
        messages += [
            Message(
                role=Role.TOOL,
                content=draw(CONTENTS | st.just(())),
                name=call.name,
                tool_call_id=call.call_id,
                is_error=draw(st.booleans()),
            )
            for call in calls
        ]
    return [*messages, Message(role=Role.USER, content=draw(CONTENTS))]


@st.composite
def requests(draw: st.DrawFn) -> GenerationRequest:
    tools = draw(TOOLS)
    modes = [ToolChoice(), ToolChoice(mode=ToolChoiceMode.NONE)]
    if tools:
        named = ToolChoice(mode=ToolChoiceMode.REQUIRED, names=(draw(st.sampled_from(tools)).name,))
        modes += [ToolChoice(mode=ToolChoiceMode.REQUIRED), named]
    choice = draw(st.sampled_from(modes))
    has_schema = choice.mode is not ToolChoiceMode.REQUIRED and draw(st.booleans())
    schema = json.dumps(draw(OBJECTS)) if has_schema else None
    budget = draw(st.none() | st.integers(1, 9999))
    effort = draw(st.sampled_from([None, "low", "high"]))
    thinking = draw(
        st.sampled_from(
            [Thinking(effort=effort), Thinking(is_enabled=False), Thinking(is_enabled=True, budget_tokens=budget)]
        )
    )
    param = "output_config.format.schema"
    return GenerationRequest(
        request_id="r",
        model=draw(WORDS),
        prompt=ChatPrompt(
            messages=tuple(draw(turns())),
            tools=tools,
            tool_choice=choice,
            parallel_tool_calls=draw(st.booleans()) if choice.mode is not ToolChoiceMode.NONE else True,
            thinking=thinking,
        ),
        sampling=Sampling(
            max_tokens=draw(st.integers(1, 9999)),
            fits_context=True,
            temperature=draw(st.none() | st.floats(0, 1)),
            top_p=draw(st.none() | st.floats(0, 1)),
            top_k=draw(st.none() | st.integers(0, 100)),
            stop=tuple(draw(st.lists(WORDS, max_size=3))),
            grammar=Grammar(kind=GrammarKind.JSON_SCHEMA, param=param, text=schema) if schema else None,
        ),
    )


@settings(deadline=None, max_examples=150)
@given(requests(), st.booleans())
def test_a_request_is_the_same_after_it_was_rendered_and_parsed(request: GenerationRequest, stream: bool) -> None:
    body = json.dumps(render_request(request, stream=stream)).encode()
    call = parse_messages(body, answer_id="r")
    assert call.request == request
    assert call.stream == stream
    assert call.ignored == ()


PIECES = st.lists(WORDS, min_size=1, max_size=3)
ENDS = st.sampled_from(
    [
        ChoiceEnd(0, FinishReason.STOP),
        ChoiceEnd(0, FinishReason.STOP, "END"),
        ChoiceEnd(0, FinishReason.LENGTH),
        ChoiceEnd(0, FinishReason.LENGTH, is_context_full=True),
        ChoiceEnd(0, FinishReason.TOOL_CALLS),
    ]
)


@st.composite
def parts(draw: st.DrawFn) -> list[Event]:
    kind = draw(st.sampled_from(PartKind))
    signature = draw(st.sampled_from(["", "another's"])) if kind is PartKind.REASONING else ""
    is_call = kind is PartKind.TOOL_CALL
    pieces = draw(PIECES)
    return [
        PartStart(0, kind, "call_1", draw(NAMES)) if is_call else PartStart(0, kind),
        *(PartDelta(0, piece) for piece in pieces),
        PartEnd(0, signature=signature),
    ]


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    num_prompt = draw(st.integers(1, 999))
    usage = Usage(
        num_prompt_tokens=num_prompt,
        num_cached_tokens=draw(st.integers(0, num_prompt)),
        num_completion_tokens=draw(st.integers(0, 999)),
        num_reasoning_tokens=draw(st.integers(0, 99)),
    )
    body = [event for part in draw(st.lists(parts(), max_size=4)) for event in part]
    return [PromptReady(num_prompt), *body, draw(ENDS), Finished(usage)]


def decoded(stream: bytes) -> list[Event]:
    decoder = StreamDecoder()
    frames = [frame.partition(b"data: ")[2] for frame in stream.split(b"\n\n") if frame]
    return [event for data in frames for event in decoder.decode(data)]


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
        {"type": "message_delta", "delta": {"stop_reason": "pause_turn"}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ]  # fmt: skip
    decoder = StreamDecoder()
    events = [event for each in sent for event in decoder.decode(json.dumps(each).encode())]
    assert events == [
        PromptReady(5),
        PartStart(0, PartKind.TOOL_CALL, "t", "f"),
        PartDelta(0, "{}"),
        PartEnd(0),
        ChoiceEnd(0, FinishReason.STOP),
        Finished(Usage(num_prompt_tokens=5, num_cached_tokens=0, num_completion_tokens=3)),
    ]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}, QueueFull),
        ({"type": "error", "error": {"type": "api_error", "message": "broken"}}, MlxManagerError),
        ("no event", GenerationFailed),
    ],
)
def test_a_stream_that_breaks_raises_what_it_says(data: Any, error: type[MlxManagerError]) -> None:
    encoded = json.dumps(data).encode() if isinstance(data, dict) else b"{"
    with pytest.raises(error):
        StreamDecoder().decode(encoded)


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": TextPrompt(text="raw")},
        {"sampling": Sampling(grammar=Grammar(kind=GrammarKind.REGEX, param="guided_regex", text="a"))},
        {"prompt": ChatPrompt(messages=(), tool_choice=ToolChoice(names=("a", "b")))},
    ],
)
def test_what_the_dialect_cannot_say_is_refused(changes: dict[str, Any]) -> None:
    request = GenerationRequest(request_id="r", model="m", prompt=ChatPrompt(messages=()))
    with pytest.raises(UnsupportedParameter):
        render_request(msgspec.structs.replace(request, **changes))
