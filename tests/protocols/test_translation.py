"""What came in OpenAI's dialect, went out in Anthropic's and came back is the same: requests, answers and streams."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from hypothesis import given, settings
from msgspec.structs import replace

from mlx_manager.ir import Answer, ChatPrompt, Event, FinishReason, GenerationRequest, PartKind, fold
from mlx_manager.protocols import anthropic, openai
from mlx_manager.protocols.anthropic.client_request import render_request as render_messages
from mlx_manager.protocols.anthropic.client_stream import MessageDecoder
from mlx_manager.protocols.openai.client_request import render_request as render_chat
from mlx_manager.protocols.openai.client_stream import ChunkDecoder
from tests.protocols.drawn import answers, requests


def by_openai(request: GenerationRequest) -> GenerationRequest:
    """Sent to somebody who speaks OpenAI's dialect, as they read it."""
    _, body = render_chat(request, is_extended=True, provider="up")
    (read,) = openai.parse_chat(json.dumps(body).encode(), answer_id="r").requests
    return read


def by_anthropic(request: GenerationRequest) -> GenerationRequest:
    """Sent to somebody who speaks Anthropic's dialect, as they read it."""
    body = json.dumps(render_messages(request, provider="up")).encode()
    return anthropic.parse_messages(body, answer_id="r").request


@settings(max_examples=150, deadline=None)
@given(requests(is_shared=True))
def test_a_request_survives_the_other_dialect(request: GenerationRequest) -> None:
    first = by_openai(request)
    assert by_openai(by_anthropic(first)) == first
    # the other way, but for how a dialect names its schema's field and whether it lowers max_tokens to what fits
    again, sampling = by_anthropic(first), request.sampling
    passed_on = request.passed_on
    assert replace(again, sampling=sampling, passed_on=passed_on) == replace(request, sampling=sampling)
    assert (again.sampling.grammar is None) == (sampling.grammar is None)
    assert isinstance(again.prompt, ChatPrompt)


async def told_by_openai(events: list[Event]) -> list[Event]:
    """Streamed in OpenAI's dialect, and read again."""
    encoder = openai.ChatEncoder(openai.Envelope("id", 0, "m", "f"), include_usage=True)
    decoder = ChunkDecoder(GenerationRequest(request_id="r", model="m", prompt=ChatPrompt(messages=())))
    frames = b"".join(encoder.encode(event) for event in events).split(b"\n\n")
    read = [event for frame in frames if frame for event in decoder.decode(frame.removeprefix(b"data: "))]
    return [*read, *decoder.end()]


async def told_by_anthropic(events: list[Event]) -> list[Event]:
    """Streamed in Anthropic's dialect, and read again."""
    encoder = anthropic.MessageEncoder(anthropic.AnswerForm(id="msg_1", model="m"))
    decoder = MessageDecoder()
    frames = b"".join(encoder.encode(event) for event in events).split(b"\n\n")
    read = [event for frame in frames if frame for event in decoder.decode(frame.partition(b"data: ")[2])]
    return [*read, *decoder.end()]


async def folded(events: list[Event]) -> Answer:
    async def stream() -> AsyncIterator[Event]:
        for event in events:
            yield event

    return await fold(stream(), 1)


def pieces(answer: Answer) -> list[tuple[PartKind, str | None, str | None, str]]:
    """The parts; texts that follow each other are one in OpenAI's dialect."""
    found: list[tuple[PartKind, str | None, str | None, str]] = []
    for part in answer.choices[0].parts:
        if found and found[-1][0] is part.kind is not PartKind.TOOL_CALL:
            found[-1] = (part.kind, None, None, found[-1][3] + part.text)
        else:
            found.append((part.kind, part.call_id, part.tool_name, part.text))
    return found


@settings(max_examples=150, deadline=None)
@given(answers(is_shared=True))
async def test_an_answer_survives_the_other_dialect(events: list[Event]) -> None:
    expected = await folded(events)
    answer = await folded(await told_by_openai(await told_by_anthropic(await told_by_openai(events))))
    assert (pieces(answer), answer.usage) == (pieces(expected), expected.usage)
    reason = expected.choices[0].finish_reason
    if reason is FinishReason.STOP and any(part.kind is PartKind.TOOL_CALL for part in expected.choices[0].parts):
        # some servers end every answer so
        reason = FinishReason.TOOL_CALLS
    assert answer.choices[0].finish_reason is reason
