"""POST /v1/responses through the official SDK, and the events that go over the wire."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from mlx_manager.backends.scripted import script_of
from mlx_manager.errors import ContextLengthExceeded, GenerationFailed, QueueFull
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

PATH = "/v1/responses"
USAGE = Usage(num_prompt_tokens=9, num_cached_tokens=4, num_completion_tokens=6, num_reasoning_tokens=2)
CALLS = (
    PromptReady(9),
    PartStart(0, PartKind.REASONING),
    PartDelta(0, "two "),
    PartDelta(0, "calls"),
    PartEnd(0),
    PartStart(0),
    PartDelta(0, "Let me look."),
    PartEnd(0),
    PartStart(0, PartKind.TOOL_CALL, "call_a", "get_weather"),
    PartDelta(0, '{"city": "Par'),
    PartDelta(0, 'is"}'),
    PartEnd(0),
    PartStart(0, PartKind.TOOL_CALL, "call_b", "agents__spawn"),
    PartDelta(0, "{}"),
    PartEnd(0),
    ChoiceEnd(0, FinishReason.TOOL_CALLS),
    Finished(USAGE),
)
CUT = (
    PromptReady(9),
    PartStart(0, PartKind.TOOL_CALL, "call_a", "get_weather"),
    PartDelta(0, '{"city": "Par'),
    PartEnd(0),
    ChoiceEnd(0, FinishReason.LENGTH),
    Finished(USAGE),
)
NO_CALL = (
    PromptReady(9),
    PartStart(0, PartKind.TOOL_CALL, "call_a", "get_weather"),
    PartDelta(0, '{"city'),
    PartEnd(0, is_withdrawn=True),
    PartStart(0),
    PartDelta(0, '{"city'),
    PartEnd(0),
    ChoiceEnd(0, FinishReason.STOP),
    Finished(USAGE),
)
BREAKS = (PromptReady(9), PartStart(0), PartDelta(0, "Hel"), GenerationFailed("the engine broke"))
LOGPROBS = (
    PromptReady(3),
    PartStart(0),
    PartDelta(0, "a", (TokenLogprob("a", b"a", -0.5, (TopLogprob("b", b"b", -1.0),)),)),
    PartEnd(0),
    ChoiceEnd(0, FinishReason.STOP),
    Finished(USAGE),
)
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "name": "get_weather", "parameters": CITY, "strict": False}
AGENTS = {"type": "namespace", "name": "agents", "description": "Helpers.", "tools": [WEATHER | {"name": "spawn"}]}


def sdk(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=served.base_url, api_key="none", max_retries=0)


def events_of(served: Served, **sent: Any) -> list[dict[str, Any]]:
    """The events of a stream; checks the frames around them and their numbers."""
    with served.http() as client:
        text = client.post(PATH, json={"model": "m", "input": "hi", "stream": True} | sent).raise_for_status().text
    frames = text.split("\n\n")
    assert frames[-1] == ""
    events = []
    for frame in frames[:-1]:
        name, data = frame.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_sdk_gets_one_response(served: Served) -> None:
    with sdk(served) as client:
        response = client.responses.create(model="m", input="hi", instructions="be brief", metadata={"k": "v"})
    assert response.output_text == TEXT
    assert (response.status, response.object, response.model, response.error) == ("completed", "response", "m", None)
    assert response.id.startswith("resp_")
    (message,) = response.output
    assert message.type == "message"
    assert (message.role, message.status) == ("assistant", "completed")
    assert message.id.startswith("msg_")
    assert (response.instructions, response.metadata, response.tools) == ("be brief", {"k": "v"}, [])
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (7, 4, 11)
    assert response.usage.input_tokens_details.cached_tokens == 0


def test_a_text_streams_in_the_order_of_the_dialect(served: Served) -> None:
    events = events_of(served)
    assert kinds(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * len(HELLO),
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["delta"] for event in events if "delta" in event] == list(HELLO)
    assert events[0]["response"]["status"] == events[1]["response"]["status"] == "in_progress"
    assert events[0]["response"]["output"] == []
    assert events[-1]["response"]["output"] == [events[-2]["item"]]
    assert len({event["item_id"] for event in events if "item_id" in event}) == 1


def test_the_stream_and_the_whole_are_the_same_response(serve: Serve) -> None:
    served = serve({"m": CALLS})
    body: dict[str, Any] = {"tools": [WEATHER, AGENTS], "reasoning": {"effort": "low"}, "include": [ENCRYPTED]}
    with served.http() as client:
        whole = client.post(PATH, json={"model": "m", "input": "hi"} | body).json()
    streamed = events_of(served, **body)[-1]["response"]
    assert without_ids(whole) == without_ids(streamed)


ENCRYPTED = "reasoning.encrypted_content"


def without_ids(response: dict[str, Any]) -> dict[str, Any]:
    output = [{key: value for key, value in item.items() if key != "id"} for item in response["output"]]
    return {key: value for key, value in response.items() if key not in ("id", "created_at", "completed_at")} | {
        "output": output
    }


def test_thinking_text_and_calls_are_items_of_their_own(serve: Serve) -> None:
    events = events_of(serve({"m": CALLS}), tools=[WEATHER, AGENTS])
    assert kinds(events)[2:] == [
        *("output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.delta"),
        *("reasoning_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "content_part.added", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"),
        "completed",
    ]
    reasoning, message, call, nested = events[-1]["response"]["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "two calls"}]
    assert reasoning["summary"] == []
    assert message["content"][0]["text"] == "Let me look."
    assert (call["name"], call["call_id"], call["arguments"]) == ("get_weather", "call_a", '{"city": "Paris"}')
    assert "namespace" not in call
    assert (nested["name"], nested["namespace"], nested["status"]) == ("spawn", "agents", "completed")
    assert events[-1]["response"]["usage"]["output_tokens_details"] == {"reasoning_tokens": 2}
    assert [event["output_index"] for event in events if event["type"].endswith("item.done")] == [0, 1, 2, 3]


def test_thinking_is_a_summary_where_one_is_asked_for(serve: Serve) -> None:
    events = events_of(serve({"m": CALLS}), reasoning={"summary": "auto"}, include=[ENCRYPTED])
    assert kinds(events)[2:9] == [
        *("output_item.added", "reasoning_summary_part.added"),
        *("reasoning_summary_text.delta", "reasoning_summary_text.delta"),
        *("reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done"),
    ]
    reasoning = events[-1]["response"]["output"][0]
    assert reasoning["summary"] == [{"type": "summary_text", "text": "two calls"}]
    assert "content" not in reasoning
    assert reasoning["encrypted_content"]
    assert events[-1]["response"]["reasoning"] == {"effort": None, "summary": "auto"}


def test_the_sdk_accumulates_the_stream(serve: Serve) -> None:
    with (
        sdk(serve({"m": CALLS})) as client,
        client.responses.stream(model="m", input="hi", tools=[WEATHER, AGENTS]) as stream,  # type: ignore[list-item]
    ):
        events = list(stream)
        final = stream.get_final_response()
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call", "function_call"]
    done = [event for event in events if event.type == "response.function_call_arguments.delta"]
    assert done[1].snapshot == '{"city": "Paris"}'
    assert final.output_text == "Let me look."


async def test_async_sdk_gets_both_forms(served: Served) -> None:
    async with openai.AsyncOpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client:
        response = await client.responses.create(model="m", input="hi")
        stream = await client.responses.create(model="m", input="hi", stream=True)
        streamed = "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])
    assert response.output_text == streamed == TEXT


class Person(BaseModel):
    name: str


def test_sdk_parses_a_model_of_the_answer(serve: Serve) -> None:
    served = serve({"m": script_of(('{"name":', ' "Ada"}'))})
    with sdk(served) as client:
        response = client.responses.parse(model="m", input="hi", text_format=Person)
        with client.responses.stream(model="m", input="hi", text_format=Person) as stream:
            stream.until_done()
            streamed = stream.get_final_response()
    assert response.output_parsed == streamed.output_parsed == Person(name="Ada")
    grammar = served.last_request().sampling.grammar
    assert grammar is not None
    assert json.loads(grammar.text)["required"] == ["name"]


def test_an_answer_that_is_cut_is_incomplete(serve: Serve) -> None:
    served = serve({"m": CUT})
    events = events_of(served, tools=[WEATHER])
    assert kinds(events)[-1] == "incomplete"
    response = events[-1]["response"]
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert [item["status"] for item in response["output"]] == ["incomplete"]
    with sdk(served) as client:
        whole = client.responses.create(model="m", input="hi")
    assert whole.status == "incomplete"


def test_what_turns_out_to_be_no_call_never_ends_as_one(serve: Serve) -> None:
    events = events_of(serve({"m": NO_CALL}), tools=[WEATHER])
    done = [event["item"]["type"] for event in events if event["type"] == "response.output_item.done"]
    assert done == ["message"]
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["message"]


def test_a_stream_that_breaks_says_so_and_the_sdk_raises(serve: Serve) -> None:
    served = serve({"m": BREAKS})
    *_, error, failed = events_of(served)
    assert (error["type"], error["code"], error["message"]) == ("error", "generation_failed", "the engine broke")
    assert failed["type"] == "response.failed"
    assert failed["response"]["error"] == {"code": "server_error", "message": "the engine broke"}
    with sdk(served) as client, pytest.raises(openai.APIError, match="the engine broke"):
        list(client.responses.create(model="m", input="hi", stream=True))
    with sdk(served) as client, pytest.raises(openai.InternalServerError, match="the engine broke"):
        client.responses.create(model="m", input="hi")


@pytest.mark.parametrize(
    ("error", "status"),
    [(ContextLengthExceeded("too long", param="input"), 400), (QueueFull("full", retry_after_s=3), 429)],
)
def test_what_fails_before_it_begins_has_its_own_status(serve: Serve, error: Any, status: int) -> None:
    with serve({"m": (error,)}).http() as client:
        for stream in (True, False):
            answer = client.post(PATH, json={"model": "m", "input": "hi", "stream": stream})
            assert answer.status_code == status
            assert answer.json()["error"]["code"] == error.code


def test_log_probabilities_are_part_of_the_text(serve: Serve) -> None:
    served = serve({"m": LOGPROBS})
    expected = [
        {
            "token": "a",
            "logprob": -0.5,
            "bytes": [97],
            "top_logprobs": [{"token": "b", "logprob": -1.0, "bytes": [98]}],
        }
    ]
    events = events_of(served, include=["message.output_text.logprobs"], top_logprobs=1)
    assert [event["logprobs"] for event in events if event["type"] == "response.output_text.delta"] == [expected]
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == expected
    assert (served.last_request().sampling.logprobs, served.last_request().sampling.top_logprobs) == (True, 1)


def test_the_account_and_the_prefix_header_are_those_of_every_answer(served: Served) -> None:
    with served.http() as client:
        answer = client.post(PATH, json={"model": "m", "input": "hi"}, headers={"x-request-id": "mine"})
    assert answer.headers["x-request-id"] == "mine"
    assert served.last_request().request_id == answer.json()["id"]
