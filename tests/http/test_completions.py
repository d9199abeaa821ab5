"""Text completions: the prompt's forms, several prompts at once, the older form of log-probabilities."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from mlx_manager.backends.scripted import Pause, script_of
from mlx_manager.errors import ContextLengthExceeded
from mlx_manager.ir import TextPrompt, TokenPrompt
from tests.http.scripted_server import HELLO, TEXT, Serve, Served
from tests.http.test_chat import LOGPROBS, sdk, stream_chunks


def test_sdk_gets_one_body_and_a_stream(served: Served) -> None:
    with sdk(served) as client:
        answer = client.completions.create(model="m", prompt="once", max_tokens=5)
        chunks = list(client.completions.create(model="m", prompt="once", max_tokens=5, stream=True))
    assert answer.id.startswith("cmpl-")
    assert answer.object == "text_completion"
    assert answer.choices[0].text == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert [chunk.choices[0].text for chunk in chunks] == [*HELLO, ""]
    assert chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("once", [TextPrompt(text="once")]),
        (["a", "b"], [TextPrompt(text="a"), TextPrompt(text="b")]),
        ([1, 2], [TokenPrompt(token_ids=(1, 2))]),
        ([[1, 2], [3]], [TokenPrompt(token_ids=(1, 2)), TokenPrompt(token_ids=(3,))]),
    ],
)
def test_every_form_of_prompt_reaches_the_backend(served: Served, prompt: Any, expected: list[Any]) -> None:
    with served.http() as client:
        answer = client.post("/v1/completions", json={"model": "m", "prompt": prompt}).raise_for_status().json()
    requests = served.backend.requests[-len(expected) :]
    assert sorted(map(repr, (request.prompt for request in requests))) == sorted(map(repr, expected))
    assert len({request.request_id for request in requests}) == len(expected)
    assert [choice["text"] for choice in answer["choices"]] == [TEXT] * len(expected)
    assert answer["usage"]["prompt_tokens"] == 7 * len(expected)


def test_choices_of_several_prompts_are_numbered_by_prompt(served: Served) -> None:
    body = {"model": "m3", "prompt": ["a", "b"], "n": 3, "stream_options": {"include_usage": True}}
    with served.http() as client:
        answer = client.post("/v1/completions", json=body).json()
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    *chunks, last = stream_chunks(served, body, "/v1/completions")
    texts = [""] * 6
    for chunk in chunks:
        texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert texts == [choice["text"] for choice in answer["choices"]] == [TEXT] * 6
    assert last["usage"] == answer["usage"]


def test_more_events_than_the_merge_keeps_unread(serve: Serve) -> None:
    words = [f"{index} " for index in range(300)]
    with sdk(serve({"m": script_of(words)})) as client:
        answer = client.completions.create(model="m", prompt=["a"] * 5)
    assert [choice.text for choice in answer.choices] == ["".join(words)] * 5


def test_one_failing_prompt_fails_the_request_and_ends_the_others(serve: Serve) -> None:
    served = serve({"m": (Pause(0.1), ContextLengthExceeded("The prompt is too long.", param="prompt"))})
    with sdk(served) as client, pytest.raises(openai.BadRequestError, match="too long"):
        client.completions.create(model="m", prompt=["a", "b", "c"])
    assert {served.backend.ended.get(timeout=5) for _ in range(3)} == {r.request_id for r in served.backend.requests}


def test_logprobs_are_parallel_lists(serve: Serve) -> None:
    served = serve({"m": LOGPROBS})
    with served.http() as client:
        body = {"model": "m", "prompt": "a", "logprobs": 2}
        logprobs = client.post("/v1/completions", json=body).json()["choices"][0]["logprobs"]
    assert logprobs == {
        "tokens": ["a", "\ufffd"],
        "token_logprobs": [-0.5, -9999.0],
        "top_logprobs": [{"a": -0.5, "b": -1.0}, {"\ufffd": -9999.0}],
        "text_offset": [0, 1],
    }
    chunks = [chunk["choices"][0]["logprobs"] for chunk in stream_chunks(served, body, "/v1/completions")]
    assert [offset for chunk in chunks if chunk for offset in chunk["text_offset"]] == [0, 1]
