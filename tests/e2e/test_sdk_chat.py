"""Chat through the official SDK, synchronous and not, streamed and not, on the starter model."""

from __future__ import annotations

import asyncio
import math
import re
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from tests.e2e.server_process import ServerProcess

FRANCE: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "The capital of France is Paris."
STORY: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Tell me a long story about a lighthouse."}]


def text_of(chunks: list[ChatCompletionChunk], choice: int = 0) -> str:
    return "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices if c.index == choice)


def test_an_answer_and_what_it_used(idle_server: ServerProcess) -> None:
    for _ in range(2):
        answer = idle_server.sdk.chat.completions.create(model=idle_server.model, messages=FRANCE, temperature=0)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", ANSWER, "stop")
    assert (answer.model, answer.object) == (idle_server.model, "chat.completion")
    usage = answer.usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    # The end token is generated, though not shown.
    assert (usage.prompt_tokens, usage.completion_tokens) == (37, 8)
    details = usage.prompt_tokens_details
    assert details is not None
    assert details.cached_tokens is not None
    assert 32 <= details.cached_tokens < 37


def test_a_stream_says_the_same_in_many_chunks(idle_server: ServerProcess) -> None:
    stream = idle_server.sdk.chat.completions.create(
        model=idle_server.model, messages=FRANCE, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert text_of(chunks) == ANSWER
    assert sum(1 for chunk in chunks if chunk.choices and chunk.choices[0].delta.content) >= 6
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices].count("stop") == 1
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (37, 8)
    assert len({chunk.id for chunk in chunks}) == 1


async def test_many_at_once_answer_as_alone(idle_server: ServerProcess) -> None:
    countries = ("France", "Germany", "Italy", "Spain", "Japan", "Egypt")

    async def ask(country: str, *, is_streamed: bool) -> str:
        messages: list[ChatCompletionMessageParam] = [
            {"role": "user", "content": f"What is the capital of {country}? Answer in one short sentence."}
        ]
        create = client.chat.completions.create
        if not is_streamed:
            answer = await create(model=idle_server.model, messages=messages, temperature=0, max_tokens=10)
            return answer.choices[0].message.content or ""
        stream = await create(model=idle_server.model, messages=messages, temperature=0, max_tokens=10, stream=True)
        return text_of([chunk async for chunk in stream])

    async with idle_server.async_sdk() as client:
        alone = [await ask(country, is_streamed=False) for country in countries]
        together = await asyncio.gather(*(ask(country, is_streamed=s) for s in (True, False) for country in countries))
    assert list(together) == alone * 2
    assert "Paris" in alone[0]
    assert len(set(alone)) == len(alone)


def test_choices_and_seeds(idle_server: ServerProcess) -> None:
    def ask(seed: int, temperature: float = 1.2) -> list[str | None]:
        answer = idle_server.sdk.chat.completions.create(
            model=idle_server.model, messages=STORY, n=3, seed=seed, temperature=temperature, max_tokens=12
        )
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 3 * 12
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        return [choice.message.content for choice in answer.choices]

    first = ask(5)
    assert len(set(first)) == 3
    assert ask(5) == first
    assert ask(6) != first
    assert len(set(ask(5, temperature=0))) == 1


def test_choices_of_a_stream_are_those_of_the_whole_answer(idle_server: ServerProcess) -> None:
    create = idle_server.sdk.chat.completions.create
    whole = create(model=idle_server.model, messages=STORY, n=3, seed=9, temperature=1.0, max_tokens=10)
    chunks = list(
        create(model=idle_server.model, messages=STORY, n=3, seed=9, temperature=1.0, max_tokens=10, stream=True)
    )
    assert [text_of(chunks, index) for index in range(3)] == [choice.message.content for choice in whole.choices]


@pytest.mark.parametrize(
    ("stop", "left"),
    [
        ("ital of Fr", "The cap"),  # begins and ends inside tokens
        (" Paris", "The capital of France is"),
        (["Berlin", "s Paris.", "Paris"], "The capital of France is "),  # the one that is complete first
        ("The", ""),
        (["Rome", "France?"], ANSWER),  # a beginning of a stop string is not one
    ],
)
def test_stop_strings_never_leak(idle_server: ServerProcess, stop: str | list[str], left: str) -> None:
    create = idle_server.sdk.chat.completions.create
    whole = create(model=idle_server.model, messages=FRANCE, temperature=0, stop=stop)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (left, "stop")
    chunks = list(create(model=idle_server.model, messages=FRANCE, temperature=0, stop=stop, stream=True))
    assert text_of(chunks) == left


def test_log_probabilities_spell_the_answer(idle_server: ServerProcess) -> None:
    create = idle_server.sdk.chat.completions.create
    answer = create(
        model=idle_server.model, messages=FRANCE, temperature=0, logprobs=True, top_logprobs=3, max_tokens=7
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(entry.token for entry in logprobs.content) == ANSWER
    assert b"".join(bytes(entry.bytes or []) for entry in logprobs.content) == ANSWER.encode()
    for entry in logprobs.content:
        assert len(entry.top_logprobs) == 3
        assert (entry.top_logprobs[0].token, entry.top_logprobs[0].logprob) == (entry.token, entry.logprob)
        assert math.fsum(math.exp(top.logprob) for top in entry.top_logprobs) <= 1.0001
    plain = create(model=idle_server.model, messages=FRANCE, temperature=0, max_tokens=3)
    assert plain.choices[0].logprobs is None


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_length_limit(idle_server: ServerProcess, name: str) -> None:
    answer = idle_server.sdk.chat.completions.create(
        model=idle_server.model, messages=FRANCE, temperature=0, extra_body={name: 3}
    )
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("The capital of", "length")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_what_does_not_fit_the_context_is_refused_with_both_lengths(idle_server: ServerProcess) -> None:
    long: list[ChatCompletionMessageParam] = [{"role": "user", "content": "word " * 9000}]
    steps = idle_server.stats()["num_steps"]
    for is_streamed in (False, True):
        with pytest.raises(openai.BadRequestError) as refused:
            idle_server.sdk.chat.completions.create(model=idle_server.model, messages=long, stream=is_streamed)
        assert refused.value.code == "context_length_exceeded"
        assert re.search(r"prompt has 90\d\d tokens.* 8192", refused.value.message)
    with pytest.raises(openai.BadRequestError, match=r"37 tokens.*8190") as refused:
        idle_server.sdk.chat.completions.create(model=idle_server.model, messages=FRANCE, max_tokens=8190)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "max_tokens")
    assert idle_server.stats()["num_steps"] == steps


def test_the_priority_is_a_header_or_a_field(idle_server: ServerProcess) -> None:
    create = idle_server.sdk.chat.completions.create
    for priority in ("high", "normal", "low"):
        answer = create(model=idle_server.model, messages=FRANCE, max_tokens=1, extra_headers={"X-Priority": priority})
        assert answer.choices[0].finish_reason == "length"
        create(model=idle_server.model, messages=FRANCE, max_tokens=1, extra_body={"priority": priority})
    with pytest.raises(openai.BadRequestError, match="urgent"):
        create(model=idle_server.model, messages=FRANCE, max_tokens=1, extra_headers={"X-Priority": "urgent"})


def test_a_model_that_does_not_see_refuses_pictures(idle_server: ServerProcess) -> None:
    picture: ChatCompletionMessageParam = {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}],
    }
    for is_streamed in (False, True):
        with pytest.raises(openai.BadRequestError, match="does not see: leave the images out") as refused:
            idle_server.sdk.chat.completions.create(
                model=idle_server.model, messages=[*FRANCE, picture], stream=is_streamed
            )
        assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "messages")
    url = {"url": "data:video/mp4;base64,aGVsbG8="}
    film: Any = {"role": "user", "content": [{"type": "video_url", "video_url": url}]}
    with pytest.raises(openai.BadRequestError, match="does not see: leave the videos out"):
        idle_server.sdk.chat.completions.create(model=idle_server.model, messages=[*FRANCE, film])
