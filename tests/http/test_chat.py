"""Chat completions through the official SDK, and the shape of what goes over the wire."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from mlx_manager.backends.scripted import script_of
from mlx_manager.ir import (
    ChoiceEnd,
    Finished,
    FinishReason,
    PartDelta,
    PartEnd,
    PartKind,
    PartStart,
    PromptReady,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from tests.http.scripted_server import HELLO, TEXT, Serve, Served

MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]
LOGPROBS = (
    PromptReady(3),
    PartStart(0),
    PartDelta(0, "a", (TokenLogprob("a", b"a", -0.5, (TopLogprob("a", b"a", -0.5), TopLogprob("b", b"b", -1.0))),)),
    PartDelta(0, "", (TokenLogprob("\ufffd", b"\xe2", float("-inf")),)),
    PartEnd(0),
    ChoiceEnd(0, FinishReason.LENGTH),
    Finished(Usage(num_prompt_tokens=3, num_cached_tokens=2, num_completion_tokens=2)),
)
REASONING = (
    PromptReady(3),
    PartStart(0, PartKind.REASONING),
    PartDelta(0, "hm"),
    PartEnd(0),
    PartStart(0),
    PartDelta(0, "yes"),
    PartEnd(0),
    ChoiceEnd(0, FinishReason.STOP),
    Finished(Usage(num_prompt_tokens=3, num_cached_tokens=0, num_completion_tokens=2)),
)
SILENT = (
    PromptReady(3),
    ChoiceEnd(0, FinishReason.STOP),
    Finished(Usage(num_prompt_tokens=3, num_cached_tokens=0, num_completion_tokens=1)),
)


def sdk(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=served.base_url, api_key="none", max_retries=0)


def stream_chunks(served: Served, body: dict[str, Any], path: str = "/v1/chat/completions") -> list[dict[str, Any]]:
    """The decoded chunks of a streamed answer; checks the frames around them."""
    with served.http() as client:
        text = client.post(path, json={**body, "stream": True}).raise_for_status().text
    frames = text.split("\n\n")
    assert frames[-1] == ""
    assert frames[-2] == "data: [DONE]"
    return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]


def test_sdk_gets_one_body(served: Served) -> None:
    with sdk(served) as client:
        answer = client.chat.completions.create(model="m", messages=MESSAGES)
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"
    assert answer.model == "m"
    assert answer.system_fingerprint
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 4, 11)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


def test_sdk_gets_a_stream(served: Served) -> None:
    with sdk(served) as client:
        chunks = list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", *HELLO, None]
    assert [chunk.choices[0].delta.role for chunk in chunks] == ["assistant"] + [None] * 5
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 5 + ["stop"]
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1


async def test_async_sdk_gets_both_forms(served: Served) -> None:
    async with openai.AsyncOpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client:
        answer = await client.chat.completions.create(model="m", messages=MESSAGES)
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        streamed = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert answer.choices[0].message.content == streamed == TEXT


class Person(BaseModel):
    name: str


async def test_sdk_helpers_parse_and_accumulate(serve: Serve) -> None:
    served = serve({"m": script_of(('{"name":', ' "Ada"}'))})
    with sdk(served) as client:
        parsed = client.chat.completions.parse(model="m", messages=MESSAGES, response_format=Person)
    async with openai.AsyncOpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client_async:
        helper = client_async.chat.completions.stream(model="m", messages=MESSAGES, response_format=Person)
        async with helper as stream:
            deltas = [event.delta async for event in stream if event.type == "content.delta"]
            streamed = await stream.get_final_completion()
    assert parsed.choices[0].message.parsed == streamed.choices[0].message.parsed == Person(name="Ada")
    assert "".join(deltas) == '{"name": "Ada"}'


def test_usage_is_the_last_chunk_when_asked_for(served: Served) -> None:
    *others, last = stream_chunks(
        served, {"model": "m", "messages": MESSAGES, "stream_options": {"include_usage": True}}
    )
    assert all(chunk["usage"] is None and chunk["choices"] for chunk in others)
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 4,
        "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def test_usage_is_absent_when_not_asked_for(served: Served) -> None:
    assert all("usage" not in chunk for chunk in stream_chunks(served, {"model": "m", "messages": MESSAGES}))


@pytest.mark.parametrize("script", [LOGPROBS, REASONING, SILENT], ids=["logprobs", "reasoning", "silent"])
def test_body_is_the_fold_of_the_stream(serve: Serve, script: Any) -> None:
    served = serve({"m": script})
    body = {"model": "m", "messages": MESSAGES, "stream_options": {"include_usage": True}}
    with served.http() as client:
        whole = client.post("/v1/chat/completions", json=body).json()
    message: dict[str, Any] = {"role": None, "content": "", "refusal": None}
    logprobs: list[Any] = []
    finish_reason = None
    *chunks, last = stream_chunks(served, body)
    for chunk in chunks:
        (choice,) = chunk["choices"]
        for key, value in choice["delta"].items():
            message[key] = value if key == "role" else (message.get(key) or "") + value
        logprobs += (choice["logprobs"] or {"content": []})["content"]
        finish_reason = choice["finish_reason"]
    assert whole["choices"][0]["message"] == message
    assert (whole["choices"][0]["logprobs"] or {"content": []})["content"] == logprobs
    assert whole["choices"][0]["finish_reason"] == finish_reason
    assert whole["usage"] == last["usage"]


def test_logprobs_have_tokens_bytes_and_alternatives(serve: Serve) -> None:
    with sdk(serve({"m": LOGPROBS})) as client:
        answer = client.chat.completions.create(model="m", messages=MESSAGES, logprobs=True, top_logprobs=2)
    assert answer.choices[0].logprobs is not None
    first, second = answer.choices[0].logprobs.content or []
    assert (first.token, first.logprob, first.bytes) == ("a", -0.5, [97])
    assert [(other.token, other.logprob) for other in first.top_logprobs] == [("a", -0.5), ("b", -1.0)]
    assert (second.bytes, second.logprob) == ([0xE2], -9999.0)
    assert answer.choices[0].finish_reason == "length"


def test_reasoning_is_told_apart_from_text(serve: Serve) -> None:
    with serve({"m": REASONING}).http() as client:
        answer = client.post("/v1/chat/completions", json={"model": "m", "messages": MESSAGES}).json()
    assert answer["choices"][0]["message"]["reasoning_content"] == "hm"
    assert answer["choices"][0]["message"]["content"] == "yes"


def test_choices_of_one_prompt(served: Served) -> None:
    with sdk(served) as client:
        answer = client.chat.completions.create(model="m3", messages=MESSAGES, n=3)
        chunks = list(client.chat.completions.create(model="m3", messages=MESSAGES, n=3, stream=True))
    assert [choice.message.content for choice in answer.choices] == [TEXT] * 3
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    texts = ["", "", ""]
    for chunk in chunks:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [TEXT] * 3


def test_request_ids_of_answers_differ_even_when_the_client_repeats_its_own(served: Served) -> None:
    with served.http() as client:
        for _ in range(2):
            answer = client.post(
                "/v1/chat/completions", json={"model": "m", "messages": MESSAGES}, headers={"x-request-id": "same"}
            )
            assert answer.headers["x-request-id"] == "same"
    first, second = served.backend.requests[-2:]
    assert first.request_id != second.request_id
