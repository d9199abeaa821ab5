"""What is written in OpenAI's dialect is read back as it was: requests, answers, and conversations of items."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from mlx_manager.errors import ProviderFailed
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
    Role,
    Sampling,
    TextContent,
    TextPrompt,
    Thinking,
    TokenLogprob,
    TokenPrompt,
    Tool,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
    TopLogprob,
    Usage,
    VideoContent,
    fold,
)
from mlx_manager.protocols.openai import ChatEncoder, CompletionEncoder, Envelope, parse_chat, parse_completion
from mlx_manager.protocols.openai.client_request import render_request
from mlx_manager.protocols.openai.client_stream import ChunkDecoder

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
NAMES = st.sampled_from(["f", "get_weather", "a.b-c"])
NUMBER = st.integers(0, 1000)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
OBJECTS = st.dictionaries(TEXT, JSON, max_size=3)
IMAGES = st.builds(
    ImageContent,
    data=st.binary(max_size=6).map(b"?".__add__),
    media_type=st.sampled_from(["image/png", "image/jpeg"]),
    detail=st.sampled_from([None, "low", "high"]),
) | st.builds(ImageContent, url=st.just("https://example.com/a.png"), detail=st.none())
FRAMES = st.builds(ImageContent, data=st.binary(max_size=6).map(b"?".__add__), media_type=st.just("image/png"))
VIDEOS = (
    st.builds(VideoContent, data=st.binary(min_size=1, max_size=6), media_type=st.just("video/mp4"))
    | st.builds(VideoContent, url=st.just("https://example.com/a.mp4"))
    | st.builds(VideoContent, frames=st.lists(FRAMES, min_size=1, max_size=3).map(tuple))
)
CONTENT = st.lists(st.builds(TextContent, TEXT) | IMAGES | VIDEOS, max_size=3).map(tuple)
OPTIONAL = st.none() | TEXT


@st.composite
def turns(draw: st.DrawFn) -> list[Message]:
    """A turn of somebody; an assistant's with what its calls were answered."""
    role = draw(st.sampled_from([Role.SYSTEM, Role.USER, Role.ASSISTANT]))
    if role is not Role.ASSISTANT:
        return [Message(role=role, content=draw(CONTENT), name=draw(OPTIONAL))]
    names = draw(st.lists(NAMES, max_size=2))
    calls = tuple(
        ToolCall(call_id=f"call_{draw(st.uuids())}", name=name, arguments=json.dumps(draw(OBJECTS))) for name in names
    )
    said = Message(
        role=role,
        content=tuple(draw(st.lists(st.builds(TextContent, TEXT), max_size=2))),
        reasoning=draw(TEXT | st.just("")),
        tool_calls=calls,
    )
    answers = [
        Message(role=Role.TOOL, content=draw(CONTENT), name=call.name, tool_call_id=call.call_id) for call in calls
    ]
    return [said, *answers]


TOOLS = st.builds(
    Tool,
    name=NAMES,
    description=TEXT | st.just(""),
    parameters=st.dictionaries(TEXT, JSON, max_size=2).map(
        lambda properties: json.dumps({"type": "object", "properties": properties}, ensure_ascii=False)
    ),
    strict=st.booleans(),
)
EFFORTS = st.sampled_from(["low", "medium", "high"])
THINKING = st.builds(Thinking, is_enabled=st.sampled_from([None, True, False])) | st.builds(
    Thinking, is_enabled=st.booleans(), effort=EFFORTS
)
GRAMMARS = st.sampled_from(
    [
        None,
        Grammar(kind=GrammarKind.JSON_OBJECT, param="response_format"),
        Grammar(kind=GrammarKind.JSON_SCHEMA, param="response_format.json_schema.schema", text='{"type": "object"}'),
        Grammar(kind=GrammarKind.REGEX, param="guided_regex", text="[ab]+"),
        Grammar(kind=GrammarKind.LARK, param="guided_grammar", text='start: "ä"'),
    ]
)
SHARE = st.none() | st.sampled_from([0.0, 0.5, 1.0])


@st.composite
def samplings(draw: st.DrawFn) -> Sampling:
    logprobs = draw(st.booleans())
    return Sampling(
        max_tokens=draw(st.none() | st.integers(1, 2**40)),
        temperature=draw(SHARE),
        top_p=draw(SHARE),
        top_k=draw(st.none() | NUMBER),
        min_p=draw(SHARE),
        seed=draw(st.none() | st.integers(0, 2**63 - 1)),
        repetition_penalty=draw(st.none() | st.just(1.5)),
        presence_penalty=draw(st.sampled_from([0.0, -2.0, 1.5])),
        frequency_penalty=draw(st.sampled_from([0.0, -2.0, 1.5])),
        logit_bias=draw(st.dictionaries(NUMBER, st.sampled_from([-100.0, 5.5]), max_size=2)),
        grammar=draw(GRAMMARS),
        stop=tuple(draw(st.lists(TEXT, max_size=3))),
        logprobs=logprobs,
        top_logprobs=draw(st.integers(0, 20)) if logprobs else 0,
    )


@st.composite
def requests(draw: st.DrawFn) -> GenerationRequest:
    tools = tuple(draw(st.lists(TOOLS, max_size=3, unique_by=lambda tool: tool.name)))
    sampling = draw(samplings())
    choice = ToolChoice()
    if tools:
        modes = [ToolChoiceMode.AUTO, *([ToolChoiceMode.REQUIRED] if sampling.grammar is None else [])]
        names = draw(st.lists(st.sampled_from([tool.name for tool in tools]), max_size=2, unique=True))
        choice = ToolChoice(mode=draw(st.sampled_from(modes)), names=tuple(names))
        if draw(st.booleans()) and draw(st.booleans()):
            choice = ToolChoice(mode=ToolChoiceMode.NONE)
    # a function that is named is called once
    is_named = choice.mode is ToolChoiceMode.REQUIRED and len(choice.names) == 1
    messages = [message for turn in draw(st.lists(turns(), min_size=1, max_size=4)) for message in turn]
    return GenerationRequest(
        request_id="r",
        model=draw(TEXT),
        prompt=ChatPrompt(
            messages=tuple(messages),
            tools=tools,
            tool_choice=choice,
            parallel_tool_calls=draw(st.booleans()) and not is_named if tools else True,
            thinking=draw(THINKING),
            template_kwargs=draw(st.dictionaries(st.sampled_from(["x", "y"]), JSON, max_size=2)),
        ),
        sampling=sampling,
        num_choices=draw(st.integers(1, 16)),
    )


@settings(max_examples=150, deadline=None)
@given(requests())
def test_a_request_is_read_back_as_it_was_written(request: GenerationRequest) -> None:
    path, body = render_request(request, is_extended=True, provider="up")
    call = parse_chat(json.dumps(body).encode(), answer_id="r")
    assert call.requests == (request,)
    assert (path, call.stream, call.include_usage, call.ignored) == ("/chat/completions", True, True, ())


PROMPTS = st.builds(TextPrompt, text=TEXT) | st.builds(
    TokenPrompt, token_ids=st.lists(NUMBER, min_size=1, max_size=3).map(tuple)
)


@settings(max_examples=50, deadline=None)
@given(PROMPTS, samplings(), st.booleans())
def test_a_raw_prompt_is_read_back_as_it_was_written(
    prompt: TextPrompt | TokenPrompt, sampling: Sampling, echo: bool
) -> None:
    sampling = replace(sampling, top_logprobs=min(sampling.top_logprobs, 5))
    echo = echo and not sampling.logprobs
    request = GenerationRequest(request_id="r", model="m", prompt=prompt, sampling=sampling, echo=echo)
    path, body = render_request(request, is_extended=True, provider="up")
    assert parse_completion(json.dumps(body).encode(), answer_id="r").requests == (request,)
    assert path == "/completions"


def test_pictures_are_called_what_they_are() -> None:
    image = ImageContent(data=b"\xff\xd8\xff\xe0", media_type="image/png")
    prompt = ChatPrompt(messages=(Message(role=Role.USER, content=(image,)),))
    _, body = render_request(
        GenerationRequest(request_id="r", model="m", prompt=prompt), is_extended=False, provider="up"
    )
    assert body["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/jpeg;base64,")


ENVELOPE = Envelope("id", 0, "m", "f")
LOGPROB = st.builds(
    lambda token, logprob, top: TokenLogprob(token, token.encode(), logprob, top),
    TEXT,
    st.sampled_from([-0.5, -20.0]),
    st.lists(st.builds(lambda token: TopLogprob(token, token.encode(), -1.0), TEXT), max_size=2).map(tuple),
)


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """The events of an answer of one or two choices, one after the other; no part has the kind of that before it."""
    events: list[Event] = []
    for choice in range(draw(st.integers(1, 2))):
        last: PartKind | None = None
        for kind in draw(st.lists(st.sampled_from(list(PartKind)), max_size=4)):
            if kind is last and kind is not PartKind.TOOL_CALL:
                continue
            last = kind
            is_call = kind is PartKind.TOOL_CALL
            events.append(
                PartStart(choice, kind, f"call_{draw(NUMBER)}" if is_call else None, draw(NAMES) if is_call else None)
            )
            for text in draw(st.lists(TEXT, min_size=1, max_size=3)):
                events.append(PartDelta(choice, text, tuple(draw(st.lists(LOGPROB, max_size=1)))))
            events.append(PartEnd(choice))
        events.append(ChoiceEnd(choice, draw(st.sampled_from(list(FinishReason)))))
    tokens = st.integers(0, 10**6)
    events.append(
        Finished(
            Usage(
                num_prompt_tokens=draw(tokens),
                num_cached_tokens=draw(tokens),
                num_completion_tokens=draw(tokens),
                num_reasoning_tokens=draw(tokens),
            )
        )
    )
    return events


def asked(num_choices: int, *, is_chat: bool = True) -> GenerationRequest:
    prompt = ChatPrompt(messages=()) if is_chat else TextPrompt(text="a" * 8)
    return GenerationRequest(request_id="r", model="m", prompt=prompt, num_choices=num_choices)


def decoded(stream: bytes, request: GenerationRequest) -> list[Event]:
    """What is read of the frames of a stream."""
    decoder = ChunkDecoder(request)
    read = [
        event for frame in stream.split(b"\n\n") if frame for event in decoder.decode(frame.removeprefix(b"data: "))
    ]
    assert decoder.is_done
    return [*read, *decoder.end()]


async def folded(events: list[Event]) -> Any:
    async def stream() -> AsyncIterator[Event]:
        for event in events:
            yield event

    return await fold(stream(), 2)


@settings(max_examples=150, deadline=None)
@given(answers())
async def test_an_answer_is_read_back_as_it_was_written(events: list[Event]) -> None:
    encoder = ChatEncoder(ENVELOPE, include_usage=True)
    num_choices = sum(isinstance(event, ChoiceEnd) for event in events)
    read = decoded(b"".join(encoder.encode(event) for event in events), asked(num_choices))
    expected = await folded(events)
    for choice in expected.choices:
        if choice.finish_reason is FinishReason.STOP and any(part.call_id for part in choice.parts):
            # some servers end every answer so
            choice.finish_reason = FinishReason.TOOL_CALLS
    assert await folded(read) == expected
    assert sum(isinstance(event, PartStart) for event in read) == sum(isinstance(event, PartEnd) for event in read)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(TEXT, st.lists(LOGPROB, max_size=1).map(tuple)), min_size=1, max_size=3))
async def test_a_completion_is_read_back_as_it_was_written(pieces: list[tuple[str, tuple[TokenLogprob, ...]]]) -> None:
    usage = Usage(num_prompt_tokens=3, num_cached_tokens=1, num_completion_tokens=2)
    said = [PartDelta(0, text, logprobs) for text, logprobs in pieces]
    events: list[Event] = [PartStart(0), *said, PartEnd(0), ChoiceEnd(0, FinishReason.LENGTH), Finished(usage)]
    encoder = CompletionEncoder(ENVELOPE, include_usage=True)
    read = await folded(decoded(b"".join(encoder.encode(event) for event in events), asked(1, is_chat=False)))
    expected = await folded(events)
    # alternatives are told with the chosen token among them
    told = [(entry.token, entry.logprob) for entry in read.choices[0].logprobs]
    assert told == [(entry.token, entry.logprob) for entry in expected.choices[0].logprobs]
    assert (read.choices[0].parts, read.usage) == (expected.choices[0].parts, usage)
    assert read.choices[0].finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b'{"choices": [{"delta": {"content": 5}}]}',
        b'{"choices": [{"index": 1, "delta": {"content": "a"}}]}',
        b'{"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]}',
        b'{"error": {"message": "boom"}}',
        b'{"error": "boom"}',
        b"\xff",
    ],
)
def test_what_is_no_chunk_fails_the_answer(data: bytes) -> None:
    with pytest.raises(ProviderFailed):
        list(ChunkDecoder(asked(1)).decode(data))


CHUNKS: list[dict[str, Any]] = [
    {"id": "x", "choices": [{"index": 0, "delta": {"role": "assistant", "content": None, "tool_calls": None}}]},
    {"choices": [{"index": 0, "delta": {"reasoning": "hm"}, "logprobs": None}], "usage": None},
    {"choices": [{"index": 0, "delta": {"content": "hi", "unknown": 1}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [{"function": {"name": "g", "arguments": None}}]}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "content_filter"}], "usage": {"prompt_tokens": 3}},
    {"choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]},
]
SAID = [
    PartStart(0, PartKind.REASONING),
    PartDelta(0, "hm"),
    PartEnd(0),
    PartStart(0),
    PartDelta(0, "hi"),
    PartEnd(0),
    PartStart(0, PartKind.TOOL_CALL, "call_0_0", "f"),
    PartDelta(0, "{}"),
    PartEnd(0),
    PartStart(0, PartKind.TOOL_CALL, "call_0_1", "g"),
    PartEnd(0),
    ChoiceEnd(0, FinishReason.CONTENT_FILTER),
]


@pytest.mark.parametrize("num_chunks", [len(CHUNKS), 5])
def test_other_servers_streams_are_read(num_chunks: int) -> None:
    """Nulls where nothing is, names of their own, calls without index or id, no [DONE]; a stream may also break off."""
    decoder = ChunkDecoder(asked(1))
    events = [event for chunk in CHUNKS[:num_chunks] for event in decoder.decode(json.dumps(chunk).encode())]
    if num_chunks == len(CHUNKS):
        usage = Usage(num_prompt_tokens=3, num_cached_tokens=0, num_completion_tokens=0)
        assert [*events, *decoder.end()] == [*SAID, Finished(usage)]
    else:
        with pytest.raises(ProviderFailed):
            list(decoder.end())


def test_usage_is_estimated_where_nobody_says_it() -> None:
    decoder = ChunkDecoder(asked(1, is_chat=False))
    chunk = {"choices": [{"text": "abcdefgh", "finish_reason": "length"}]}
    *_, last = [*decoder.decode(json.dumps(chunk).encode()), *decoder.end()]
    assert last == Finished(Usage(num_prompt_tokens=2, num_cached_tokens=0, num_completion_tokens=2))
