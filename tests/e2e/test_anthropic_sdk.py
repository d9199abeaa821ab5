"""The official Anthropic SDK against a real server, with a tiny model that really thinks and calls tools."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import pytest
from anthropic import beta_tool
from anthropic.types import Message
from pydantic import BaseModel

from tests.e2e.server_process import PATIENCE_S, ServerProcess

PARIS = "What is the weather in Paris?"
TWO_CITIES = "What is the weather in London and Berlin?"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SUM = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}
TOOLS: list[dict[str, Any]] = [
    {"name": "get_weather", "description": "Get the current weather for a city", "input_schema": CITY},
    {"name": "add", "description": "Add two numbers", "input_schema": SUM},
]
THINKS = {"type": "enabled", "budget_tokens": 1024}
GREEDY = {"extra_body": {"temperature": 0}}
MARK = {"type": "ephemeral"}


@pytest.fixture(scope="module")
def sdk(caller: ServerProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=caller.url, api_key="none", max_retries=0, timeout=PATIENCE_S) as client:
        yield client


def body(caller: ServerProcess, question: str | list[Any], **sent: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}] if isinstance(question, str) else question
    return {"model": caller.model, "max_tokens": 120, "messages": messages, "tools": TOOLS, **GREEDY} | sent


def ask(sdk: anthropic.Anthropic, caller: ServerProcess, question: str | list[Any], **sent: Any) -> Message:
    """The answer, unstreamed; the streamed one must be the same."""
    asked: Any = body(caller, question, **sent)
    whole: Message = sdk.messages.create(**asked)
    with sdk.messages.stream(**asked) as stream:
        streamed = stream.get_final_message()
    assert said(streamed) == said(whole)
    return whole


def said(message: Message) -> tuple[list[Any], str | None, str | None]:
    """What an answer holds, and why it ended; ids differ from one answer to the next."""
    blocks = [block.model_dump(exclude={"id", "parsed_output"}, exclude_none=True) for block in message.content]
    return blocks, message.stop_reason, message.stop_sequence


def kinds(message: Message) -> list[str]:
    return [block.type for block in message.content]


def test_it_thinks_calls_is_answered_and_tells(sdk: anthropic.Anthropic, caller: ServerProcess) -> None:
    asked: list[Any] = [{"role": "user", "content": PARIS}]
    call = ask(sdk, caller, asked, thinking=THINKS)
    assert (kinds(call), call.stop_reason) == (["thinking", "tool_use"], "tool_use")
    thinking, use = call.content
    assert thinking.type == "thinking"
    assert use.type == "tool_use"
    assert thinking.thinking == "I should call get_weather."
    assert (use.name, use.input) == ("get_weather", {"city": "Paris"})
    details = call.usage.output_tokens_details
    assert details is not None
    assert 0 < details.thinking_tokens < call.usage.output_tokens
    # the blocks go back as the SDK has them, signature included
    asked.append({"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in call.content]})
    asked.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}]})
    told = ask(sdk, caller, asked, thinking=THINKS)
    assert said(told)[0][-1] == {"type": "text", "text": "The weather in Paris is sunny."}
    assert told.stop_reason == "end_turn"


def test_thinking_that_is_not_shown_still_reaches_the_template(sdk: anthropic.Anthropic, caller: ServerProcess) -> None:
    asked: list[Any] = [{"role": "user", "content": PARIS}]
    shown: Any = {"type": "adaptive"}
    hidden: Any = {"type": "adaptive", "display": "omitted"}
    counts = []
    for thinking in (shown, hidden):
        call = ask(sdk, caller, asked, thinking=thinking)
        assert kinds(call) == ["thinking", "tool_use"]
        blocks = [block.model_dump(exclude_none=True) for block in call.content]
        assert blocks[0]["thinking"] == ("" if thinking is hidden else "I should call get_weather.")
        result = {"type": "tool_result", "tool_use_id": blocks[1]["id"], "content": "sunny"}
        turn: Any = [*asked, {"role": "assistant", "content": blocks}, {"role": "user", "content": [result]}]
        tools: Any = TOOLS
        counted = sdk.messages.count_tokens(model=caller.model, messages=turn, tools=tools, thinking=thinking)
        counts.append(counted.input_tokens)
    assert counts[0] == counts[1]


def test_several_calls_in_one_answer_unless_that_is_switched_off(
    sdk: anthropic.Anthropic, caller: ServerProcess
) -> None:
    both = ask(sdk, caller, TWO_CITIES, thinking=THINKS)
    assert [block.input for block in both.content if block.type == "tool_use"] == [
        {"city": "London"},
        {"city": "Berlin"},
    ]
    strict = [tool | {"strict": True} for tool in TOOLS]
    one = ask(
        sdk,
        caller,
        TWO_CITIES,
        thinking=THINKS,
        tools=strict,
        tool_choice={"type": "auto", "disable_parallel_tool_use": True},
    )
    assert [block.input for block in one.content if block.type == "tool_use"] == [{"city": "London"}]


def test_who_does_not_ask_for_thinking_gets_none(sdk: anthropic.Anthropic, caller: ServerProcess) -> None:
    assert kinds(ask(sdk, caller, PARIS)) == ["tool_use"]
    forced = ask(sdk, caller, "hello", tool_choice={"type": "tool", "name": "add"})
    (use,) = forced.content
    assert use.type == "tool_use"
    assert use.name == "add"
    assert {type(value) for value in dict(use.input).values()} == {int}
    assert ask(sdk, caller, PARIS, tool_choice={"type": "none"}).stop_reason == "end_turn"


@pytest.mark.parametrize("budget", [1, 5, 6, 7])
@pytest.mark.parametrize("choice", ["auto", "any"])
def test_thinking_ends_with_its_budget(
    sdk: anthropic.Anthropic, caller: ServerProcess, budget: int, choice: str
) -> None:
    """The model would think seven tokens and two for the end."""
    cut = ask(
        sdk,
        caller,
        TWO_CITIES,
        thinking=THINKS | {"budget_tokens": budget},
        tool_choice={"type": choice},
    )
    whole = ask(sdk, caller, TWO_CITIES, thinking=THINKS, tool_choice={"type": choice})
    thought, all_thought = (next(b for b in m.content if b.type == "thinking").thinking for m in (cut, whole))
    assert all_thought.startswith(thought)
    assert len(thought) < len(all_thought)
    details = cut.usage.output_tokens_details
    assert details is not None
    # a budget smaller than its own end is as small as it can be
    assert details.thinking_tokens <= max(budget, 5)
    assert set(kinds(cut)[1:]) <= {"text", "tool_use"}
    assert len(cut.content) > 1
    assert not any("think>" in block.text for block in cut.content if block.type == "text")


def test_a_budget_that_is_not_used_up_changes_nothing(sdk: anthropic.Anthropic, caller: ServerProcess) -> None:
    enough = ask(sdk, caller, PARIS, thinking=THINKS | {"budget_tokens": 40})
    assert said(enough) == said(ask(sdk, caller, PARIS, thinking=THINKS))


def test_budgets_hold_beside_other_requests(caller: ServerProcess) -> None:
    """In one batch: with little to think, with much, and with nothing to do with thinking."""
    variants: list[dict[str, Any]] = [
        {"thinking": THINKS | {"budget_tokens": 6}},
        {"thinking": THINKS},
        {"thinking": {"type": "disabled"}},
        {"thinking": THINKS | {"budget_tokens": 6}, "tool_choice": {"type": "any"}},
    ]

    async def run() -> tuple[list[Message], list[Message]]:
        async with anthropic.AsyncAnthropic(
            base_url=caller.url, api_key="none", max_retries=0, timeout=PATIENCE_S
        ) as client:

            async def one(sent: dict[str, Any]) -> Message:
                message: Message = await client.messages.create(**body(caller, TWO_CITIES, **sent))
                return message

            alone = [await one(sent) for sent in variants]
            together = await asyncio.gather(*(one(sent) for sent in variants * 2))
            return alone, list(together)

    alone, together = asyncio.run(run())
    assert [said(message) for message in together] == [said(message) for message in alone] * 2


def test_why_answers_end(sdk: anthropic.Anthropic, caller: ServerProcess) -> None:
    assert said(ask(sdk, caller, "hello", stop_sequences=["help"]))[1:] == ("stop_sequence", "help")
    assert ask(sdk, caller, "hello", max_tokens=3).stop_reason == "max_tokens"
    assert ask(sdk, caller, "hello", max_tokens=1_000_000).stop_reason == "end_turn"
    begun = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "Hello! How can"}]
    (block,) = ask(sdk, caller, begun, tools=[]).content
    assert block.type == "text"
    assert block.text.startswith(" I help")


def test_tokens_are_counted_as_they_are_used(sdk: anthropic.Anthropic, caller: ServerProcess) -> None:
    asked: Any = body(caller, TWO_CITIES, system="Be brief.")
    counted = sdk.messages.count_tokens(
        **{name: asked[name] for name in ("model", "messages", "tools", "system")}
    ).input_tokens
    usage = sdk.messages.create(**asked).usage
    assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == counted
    without: Any = {name: asked[name] for name in ("model", "messages")}
    assert sdk.messages.count_tokens(**without, tools=[]).input_tokens < counted


def test_the_second_turn_finds_the_first_in_the_prefix_cache(sdk: anthropic.Anthropic, caller: ServerProcess) -> None:
    """Though the billing line, the budget, the cache mark and the form of the text differ."""

    def turn(number: int, messages: list[Any]) -> Message:
        system = [
            {"type": "text", "text": f"x-anthropic-billing-header: cc_version=2.1; cch=0{number};"},
            {"type": "text", "text": "word " * 200 + f"\n<total_tokens>{9 - number} tokens left</total_tokens>"},
        ]
        message: Message = sdk.messages.create(**body(caller, messages, system=system, thinking=THINKS))
        return message

    first = turn(1, [{"role": "user", "content": [{"type": "text", "text": PARIS, "cache_control": MARK}]}])
    assert first.usage.cache_read_input_tokens == 0
    assert (first.usage.cache_creation_input_tokens or 0) % 32 == 0
    num_prompt = first.usage.input_tokens + (first.usage.cache_creation_input_tokens or 0)
    use = first.content[-1]
    assert use.type == "tool_use"
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "sunny", "cache_control": MARK}
    second = turn(
        2,
        [
            {"role": "user", "content": PARIS},
            {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in first.content]},
            {"role": "user", "content": [result]},
        ],
    )
    # all of the first prompt and of its answer, but for the last token, and what the template ends a turn with
    num_known = num_prompt + first.usage.output_tokens
    assert (second.usage.cache_read_input_tokens or 0) >= num_known - 2


def test_a_prompt_is_read_into_the_cache_before_it_is_needed(sdk: anthropic.Anthropic, caller: ServerProcess) -> None:
    asked = body(caller, "hello", system="Warm " * 100)
    warmed = sdk.messages.create(**asked | {"max_tokens": 0})
    assert (warmed.content, warmed.stop_reason, warmed.usage.output_tokens) == ([], "max_tokens", 0)
    usage = sdk.messages.create(**asked).usage
    assert usage.input_tokens == 1
    assert usage.cache_read_input_tokens == warmed.usage.input_tokens - 1


class Mood(BaseModel):
    mood: Literal["good", "bad"]
    is_sure: bool


def test_an_answer_is_parsed_into_a_model(sdk: anthropic.Anthropic, caller: ServerProcess) -> None:
    asked: Any = body(caller, "hello") | {"tools": []}
    parsed = sdk.messages.parse(**asked, output_format=Mood)
    assert isinstance(parsed.parsed_output, Mood)
    with sdk.messages.stream(**asked, output_format=Mood) as stream:
        assert stream.get_final_message().parsed_output == parsed.parsed_output


@beta_tool
def get_weather(city: str) -> str:
    """Get the current weather for a city

    Args:
        city: Which
    """
    return f"sunny in {city}"


def test_the_tool_runner_runs_to_its_end(sdk: anthropic.Anthropic, caller: ServerProcess) -> None:
    asked: Any = body(caller, PARIS) | {"tools": [get_weather]}
    messages = list(sdk.beta.messages.tool_runner(**asked, max_iterations=4))
    assert messages[0].stop_reason == "tool_use"
    assert messages[-1].stop_reason == "end_turn"


def test_streams_of_the_async_client(caller: ServerProcess) -> None:
    async def run() -> list[str]:
        async with anthropic.AsyncAnthropic(
            base_url=caller.url, api_key="none", max_retries=0, timeout=PATIENCE_S
        ) as client:
            asked = body(caller, "hello")
            async with client.messages.stream(**asked) as stream:
                texts = [text async for text in stream.text_stream]
            final = await stream.get_final_message()
            assert "".join(texts) == final.content[0].model_dump()["text"] == "Hello! How can I help you today?"
            return texts

    assert len(asyncio.run(run())) > 3
