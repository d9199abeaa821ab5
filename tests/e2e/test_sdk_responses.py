"""Responses over the whole way, through the official SDK: a tiny model that thinks and calls, and is remembered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.lib.responses_tool_runner import (
    AsyncRegisteredFunction,
    AsyncResponsesToolRunner,
    RegisteredFunction,
    ResponsesToolRunner,
)
from openai.types.responses import Response
from pydantic import BaseModel

from tests.e2e.server_process import ServerProcess, serving
from tests.e2e.test_tools import CITY, PARIS, THOUGHT, function
from tests.e2e.tiny_model import make_tiny_model

RECORDED = Path(__file__).parents[1] / "data" / "clients"
WEATHER = {"type": "function", **function("get_weather", "Get the current weather for a city", CITY)}
ENCRYPTED: Any = ["reasoning.encrypted_content"]


def ask(server: ServerProcess, given: Any, **sent: Any) -> Response:
    """The response, unstreamed; the streamed one must say the same."""
    body: Any = {"model": server.model, "input": given, "tools": [WEATHER], "temperature": 0, "max_output_tokens": 120}
    whole: Response = server.sdk.responses.create(**(body | sent))
    with server.sdk.responses.stream(**(body | sent)) as stream:
        streamed = stream.get_final_response()
    assert [said(item) for item in streamed.output] == [said(item) for item in whole.output]
    return whole


def said(item: Any) -> tuple[str, ...]:
    match item.type:
        case "function_call":
            return item.name, item.arguments, item.status
        case "reasoning":
            return (item.content or item.summary)[0].text, item.status
        case _:
            return item.content[0].text, item.status


def test_it_thinks_and_calls_and_is_told_the_answer(caller: ServerProcess) -> None:
    asked = ask(caller, PARIS)
    assert [item.type for item in asked.output] == ["reasoning", "function_call"]
    thought, call = asked.output
    assert said(thought) == (THOUGHT, "completed")
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Paris"})
    assert asked.usage is not None
    assert 0 < asked.usage.output_tokens_details.reasoning_tokens < asked.usage.output_tokens

    output = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    answered = ask(caller, [output], previous_response_id=asked.id)
    assert answered.output_text == "The weather in Paris is sunny."
    assert answered.usage is not None
    # what was asked and what was called is remembered: only the end of the conversation is new
    assert answered.usage.input_tokens_details.cached_tokens >= asked.usage.input_tokens - 1

    # the same conversation, kept by the client alone
    stateless = ask(caller, PARIS, store=False, include=ENCRYPTED)
    items = [{"role": "user", "content": PARIS}, *(item.model_dump(exclude_none=True) for item in stateless.output)]
    items.append(output | {"call_id": items[-1]["call_id"]})
    again = ask(caller, items, store=False, include=ENCRYPTED)
    assert again.output_text == answered.output_text
    assert again.usage is not None
    assert again.usage.input_tokens == answered.usage.input_tokens


@pytest.mark.parametrize("stream", [True, False])
def test_the_tool_runner_of_the_sdk_carries_the_calls_out(caller: ServerProcess, stream: bool) -> None:
    asked: list[dict[str, Any]] = []

    def weather(arguments: dict[str, Any]) -> str:
        asked.append(arguments)
        return "sunny"

    tool: Any = WEATHER | {"strict": True, "parameters": CITY | {"additionalProperties": False}}
    runner = ResponsesToolRunner(functions=[RegisteredFunction(tool, weather)])
    params: Any = {"model": caller.model, "input": PARIS, "temperature": 0, "max_output_tokens": 120}
    final = runner.run(caller.sdk, params, max_steps=4, stream=stream)
    assert asked == [{"city": "Paris"}]
    assert final.output_text == "The weather in Paris is sunny."


async def test_the_async_tool_runner_does_the_same(caller: ServerProcess) -> None:
    asked: list[dict[str, Any]] = []

    async def weather(arguments: dict[str, Any]) -> str:
        asked.append(arguments)
        return "sunny"

    tool: Any = WEATHER | {"strict": True, "parameters": CITY | {"additionalProperties": False}}
    runner = AsyncResponsesToolRunner(functions=[AsyncRegisteredFunction(tool, weather)])
    params: Any = {"model": caller.model, "input": PARIS, "temperature": 0, "max_output_tokens": 120}
    async with caller.async_sdk() as client:
        final = await runner.run(client, params, max_steps=4, stream=True)
    assert asked == [{"city": "Paris"}]
    assert final.output_text == "The weather in Paris is sunny."


def test_a_named_tool_is_called(caller: ServerProcess) -> None:
    response = ask(caller, "hello", tool_choice={"type": "function", "name": "get_weather"})
    assert [item.type for item in response.output][-1] == "function_call"


def test_thinking_can_be_switched_off_or_told_as_a_summary(caller: ServerProcess) -> None:
    silent = ask(caller, "hello", reasoning={"effort": "none"})
    assert [item.type for item in silent.output] == ["message"]
    summed = ask(caller, "hello", reasoning={"summary": "auto"})
    assert [said(item) for item in summed.output] == [
        ("A greeting.", "completed"),
        ("Hello! How can I help you today?", "completed"),
    ]


class City(BaseModel):
    name: str


def test_a_schema_is_enforced_and_parsed(idle_server: ServerProcess) -> None:
    response = idle_server.sdk.responses.parse(
        model=idle_server.model,
        input="Name the capital of France as JSON.",
        text_format=City,
        temperature=0,
        max_output_tokens=40,
    )
    assert isinstance(response.output_parsed, City)


def test_what_is_too_long_is_cut_and_what_is_wrong_is_refused(idle_server: ServerProcess) -> None:
    create = idle_server.sdk.responses.create
    cut = create(model=idle_server.model, input="Tell me a story.", max_output_tokens=3)
    assert (cut.status, cut.incomplete_details and cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    with pytest.raises(openai.BadRequestError, match="context"):
        create(model=idle_server.model, input="word " * 9000)
    with pytest.raises(openai.NotFoundError, match="nonesuch"):
        create(model="nonesuch", input="hi")


def test_a_conversation_that_is_too_long_goes_on_without_its_beginning(idle_server: ServerProcess) -> None:
    create = idle_server.sdk.responses.create
    long: Any = [{"role": "user", "content": "word " * 9000}, {"role": "assistant", "content": "Well."}]
    question: Any = [{"role": "user", "content": "What is the capital of France?"}]
    response = create(model=idle_server.model, input=long + question, truncation="auto", temperature=0)
    assert "Paris" in response.output_text
    assert response.usage is not None
    assert response.usage.input_tokens < 100


def test_the_tokens_of_an_input_are_those_that_it_is_billed_for(idle_server: ServerProcess) -> None:
    responses = idle_server.sdk.responses
    asked: dict[str, Any] = {"model": idle_server.model, "input": "What is the capital of France?"}
    first = responses.create(**asked, max_output_tokens=4)
    assert first.usage is not None
    assert responses.input_tokens.count(**asked).input_tokens == first.usage.input_tokens
    asked |= {"previous_response_id": first.id, "instructions": "Be brief."}
    second = responses.create(**asked, max_output_tokens=1)
    assert second.usage is not None
    assert responses.input_tokens.count(**asked).input_tokens == second.usage.input_tokens
    shown = [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}]}]
    with pytest.raises(openai.BadRequestError) as refused:
        responses.input_tokens.count(**asked | {"input": shown})
    assert refused.value.param == "input"


def test_the_second_turn_of_codex_computes_only_what_is_new(starter_folder: Path, tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "models" / "tiny", starter_folder, seed=1, max_context=32768)
    with serving(tmp_path / "models" / "tiny", tmp_path / "home", "--no-use-spare") as server:
        usages = []
        for turn in ("01", "02"):
            recorded = json.loads((RECORDED / f"codex-0.169.0--exec-tool--{turn}-POST-v1_responses.json").read_text())
            body = recorded["body"] | {"model": server.model, "max_output_tokens": 4, "stream": False}
            with server.http() as client:
                usages.append(client.post("/v1/responses", json=body).raise_for_status().json()["usage"])
    first, second = usages
    assert first["input_tokens"] > 2000
    assert second["input_tokens"] > first["input_tokens"]
    assert second["input_tokens_details"]["cached_tokens"] >= first["input_tokens"] - 32
