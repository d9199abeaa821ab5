"""Tools over the wire, answered by a script: what is refused by which name, and what the SDK makes of calls."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import openai
import pytest

from mlx_manager.ir import (
    ChatPrompt,
    ChoiceEnd,
    Finished,
    FinishReason,
    Message,
    PartDelta,
    PartEnd,
    PartKind,
    PartStart,
    PromptReady,
    Role,
    TextContent,
    ToolCall,
    Usage,
)
from tests.http.scripted_server import Serve, Served

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": "hi"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
FUNCTIONS: Any = [{"name": "weather", "parameters": SCHEMA}]


def calling(arguments: str = '{"city": "x"}', call_id: str = "c1") -> dict[str, Any]:
    """A message in which the assistant calls a tool."""
    call = {"id": call_id, "type": "function", "function": {"name": "weather", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def answering(call_id: str | None = "c1") -> dict[str, Any]:
    """A message with a tool's answer."""
    return {"role": "tool", "content": "sunny"} | ({} if call_id is None else {"tool_call_id": call_id})


NO_FUNCTION = {"role": "assistant", "tool_calls": [{"id": "c"}]}
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"tools": [{"function": {"name": "f"}}]}, "tools[0].type", "required"),
    ({"tools": [{"type": "function"}]}, "tools[0].function", "required"),
    ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", "required"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "pattern"),
    ({"tools": [*TOOLS, *TOOLS]}, "tools[1].function.name", "'weather'"),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]},
        "tools[0].function.parameters.type",
        "object",
    ),
    ({"tools": TOOLS, "functions": FUNCTIONS}, "functions", "send tools"),
    ({"functions": [*FUNCTIONS, *FUNCTIONS]}, "functions[1].name", "'weather'"),
    ({"tools": TOOLS, "tool_choice": "any"}, "tool_choice", "'required'"),
    ({"tools": TOOLS, "tool_choice": {"type": "tool"}}, "tool_choice.type", "'function'"),
    ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice.function", "name"),
    ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools", "mode"),
    ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice", "(weather)"),
    ({"tool_choice": "required"}, "tool_choice", "no tools"),
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice", "(none)"),
    ({"functions": FUNCTIONS, "function_call": {"name": "f"}}, "function_call", "(weather)"),
    ({"functions": FUNCTIONS, "tool_choice": "auto"}, "tool_choice", "function_call"),
    ({"tools": TOOLS, "tool_choice": "required", "guided_regex": "a"}, "tool_choice", "guided_regex"),
    ({"tools": TOOLS, "tool_choice": "required", "ignore_eos": True}, "ignore_eos", "tool call"),
    ({"messages": [USER, answering()]}, "messages[1].tool_call_id", "'c1'"),
    ({"messages": [USER, calling(), answering(None)]}, "messages[2].tool_call_id", "required"),
    ({"messages": [USER, calling(), answering("c2")]}, "messages[2].tool_call_id", "there: 'c1'"),
    ({"messages": [USER, calling(), calling()]}, "messages[2].tool_calls[0].id", "no answer yet"),
    ({"messages": [USER, calling(), answering(), answering()]}, "messages[3].tool_call_id", "an answer before it"),
    ({"messages": [USER, {"role": "function", "name": "f", "content": "4"}]}, "messages[1].role", "none"),
    (
        {"messages": [USER, {"role": "assistant", "tool_calls": [{"id": "c"}]}]},
        "messages[1].tool_calls[0].function",
        "",
    ),
    ({"messages": [calling() | {"role": "user", "content": "a"}]}, "messages[0].tool_calls", "assistant"),
    ({"reasoning_effort": "enormous"}, "reasoning_effort", "'high'"),
    ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages", "leave it out"),
    ({"chat_template_kwargs": "x"}, "chat_template_kwargs", "object"),
]


@pytest.mark.parametrize(("sent", "param", "says"), WRONG)
def test_wrong_tools_and_messages_about_them_are_named(
    served: Served, sent: dict[str, Any], param: str, says: str
) -> None:
    num_before = len(served.backend.requests)
    with served.http() as client:
        answer = client.post(CHAT, json={"model": "m", "messages": [USER]} | sent)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_request", param), error
    assert param in error["message"]
    assert says in error["message"]
    assert len(served.backend.requests) == num_before


@pytest.mark.parametrize("kind", ["custom", "web_search", "namespace"])
def test_tools_that_are_no_functions_are_refused_by_their_type(served: Served, kind: str) -> None:
    with served.http() as client:
        answer = client.post(CHAT, json={"model": "m", "messages": [USER], "tools": [*TOOLS, {"type": kind}]})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", "tools[1].type")
    assert repr(kind) in error["message"]


def test_calls_and_their_answers_come_back_to_the_model(served: Served) -> None:
    thought = calling() | {"reasoning_content": "look", "content": "One moment."}
    named_part = answering() | {"content": [{"type": "text", "text": "sunny"}]}
    assert said(served, [USER, thought, named_part]) == (
        Message(role=Role.USER, content=(TextContent("hi"),)),
        Message(
            role=Role.ASSISTANT,
            content=(TextContent("One moment."),),
            reasoning="look",
            tool_calls=(ToolCall(call_id="c1", name="weather", arguments='{"city": "x"}'),),
        ),
        Message(role=Role.TOOL, content=(TextContent("sunny"),), name="weather", tool_call_id="c1"),
    )


@pytest.mark.parametrize(
    ("sent", "read"),
    [("", "{}"), ('{"city": "Pa', '{"unparsed": "{\\"city\\": \\"Pa"}'), ("[1]", '{"unparsed": "[1]"}')],
)
def test_arguments_that_are_no_object_are_one_with_their_text(served: Served, sent: str, read: str) -> None:
    (message,) = said(served, [calling(sent)])
    assert message.tool_calls[0].arguments == read


def test_the_form_before_tools_is_the_same_conversation(served: Served) -> None:
    function_call = {"name": "weather", "arguments": '{"city": "x"}'}
    older = [
        {"role": "assistant", "content": None, "function_call": function_call},
        {"role": "function", "name": "weather", "content": "sunny"},
    ]
    assert said(served, older) == said(served, [calling(call_id="call_0"), answering("call_0")])


def test_a_call_may_have_the_id_of_one_that_was_answered(served: Served) -> None:
    assert len(said(served, [calling(), answering(), calling(), answering()])) == 4


def said(served: Served, messages: list[Any]) -> tuple[Message, ...]:
    """The messages as they reach the backend."""
    with served.http() as client:
        client.post(CHAT, json={"model": "m", "messages": messages}).raise_for_status()
    prompt = served.last_request().prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt.messages


def scripted_call(choice: int, call_id: str, pieces: tuple[str, ...]) -> tuple[Any, ...]:
    start = PartStart(choice, PartKind.TOOL_CALL, call_id, "weather")
    return (start, *(PartDelta(choice, piece) for piece in pieces), PartEnd(choice))


CALLS = (
    PromptReady(3),
    PartStart(0, PartKind.REASONING),
    PartDelta(0, "two "),
    PartDelta(0, "calls"),
    PartEnd(0),
    PartStart(0),
    PartDelta(0, "Let me look."),
    PartEnd(0),
    *scripted_call(0, "call_a", ('{"city": "Par', 'is"}')),
    *scripted_call(1, "call_c", ("{}",)),
    *scripted_call(0, "call_b", ('{"city"', ": ", '"Rome"}')),
    ChoiceEnd(1, FinishReason.TOOL_CALLS),
    ChoiceEnd(0, FinishReason.TOOL_CALLS),
    Finished(Usage(num_prompt_tokens=3, num_cached_tokens=0, num_completion_tokens=9, num_reasoning_tokens=2)),
)
CUT = (
    PromptReady(3),
    PartStart(0, PartKind.TOOL_CALL, "call_a", "weather"),
    PartDelta(0, '{"city": "Par'),
    PartEnd(0),
    ChoiceEnd(0, FinishReason.LENGTH),
    Finished(Usage(num_prompt_tokens=3, num_cached_tokens=0, num_completion_tokens=4)),
)


def sdk(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=served.base_url, api_key="none", max_retries=0)


def test_calls_through_the_official_sdk(serve: Serve) -> None:
    with sdk(serve({"m": CALLS})) as client:
        whole = client.chat.completions.create(model="m", messages=[USER], tools=TOOLS, n=2)  # type: ignore[list-item]
        with client.chat.completions.stream(model="m", messages=[USER], tools=TOOLS, n=2) as stream:  # type: ignore[list-item]
            events = list(stream)
            final = stream.get_final_completion()
    for answer in (whole, final):
        first, second = answer.choices
        assert [call.id for call in first.message.tool_calls or ()] == ["call_a", "call_b"]
        assert [call.id for call in second.message.tool_calls or ()] == ["call_c"]
        assert [arguments_of(call) for call in first.message.tool_calls or ()] == [{"city": "Paris"}, {"city": "Rome"}]
        assert {call.type for call in first.message.tool_calls or ()} == {"function"}
        assert first.message.content == "Let me look."
        assert (first.message.model_extra or {})["reasoning_content"] == "two calls"
        assert not second.message.content
        assert [choice.finish_reason for choice in answer.choices] == ["tool_calls", "tool_calls"]
    assert whole.choices[1].message.content is None
    assert whole.usage is not None
    assert whole.usage.completion_tokens_details is not None
    assert whole.usage.completion_tokens_details.reasoning_tokens == 2
    done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert [json.loads(event.arguments) for event in done] == [{"city": "Paris"}, {}, {"city": "Rome"}]


def arguments_of(call: Any) -> Any:
    return json.loads(call.function.arguments)


def test_only_the_first_chunk_of_a_call_names_it(serve: Serve) -> None:
    with sdk(serve({"m": CALLS})) as client:
        body: Any = {"model": "m", "messages": [USER], "tools": TOOLS, "n": 2, "stream": True}
        chunks: Any = client.chat.completions.create(**body)
        deltas = [
            call.model_dump(exclude_unset=True)
            for chunk in chunks
            for choice in chunk.choices
            if choice.index == 0
            for call in choice.delta.tool_calls or ()
        ]
    assert deltas == [
        {"index": 0, "id": "call_a", "type": "function", "function": {"name": "weather", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"city": "Par'}},
        {"index": 0, "function": {"arguments": 'is"}'}},
        {"index": 1, "id": "call_b", "type": "function", "function": {"name": "weather", "arguments": ""}},
        {"index": 1, "function": {"arguments": '{"city"'}},
        {"index": 1, "function": {"arguments": ": "}},
        {"index": 1, "function": {"arguments": '"Rome"}'}},
    ]


def test_a_cut_call_ends_with_what_there_is(serve: Serve) -> None:
    with sdk(serve({"m": CUT})) as client:
        answer = client.chat.completions.create(model="m", messages=[USER], tools=TOOLS)  # type: ignore[list-item]
    (choice,) = answer.choices
    assert choice.finish_reason == "length"
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].function.arguments == '{"city": "Par'  # type: ignore[union-attr]


def test_functions_are_answered_in_their_own_form(serve: Serve) -> None:
    one_call = (PromptReady(3), *scripted_call(0, "call_a", ('{"city": ', '"x"}')), *CALLS[-2:])
    body = {"model": "m", "messages": [USER], "functions": FUNCTIONS}
    with serve({"m": one_call}).http() as client:
        whole = client.post(CHAT, json=body).json()["choices"][0]
        lines = client.post(CHAT, json=body | {"stream": True}).text.splitlines()
    call = {"name": "weather", "arguments": '{"city": "x"}'}
    assert whole["message"] == {"role": "assistant", "content": None, "function_call": call, "refusal": None}
    assert whole["finish_reason"] == "function_call"
    chunks = [json.loads(line[6:])["choices"][0] for line in lines if line.startswith("data: {")]
    pieces: list[Mapping[str, str]] = [chunk["delta"].get("function_call", {}) for chunk in chunks]
    assert [piece["name"] for piece in pieces if "name" in piece] == ["weather"]
    assert "".join(piece.get("arguments", "") for piece in pieces) == call["arguments"]
    assert chunks[-1]["finish_reason"] == "function_call"
