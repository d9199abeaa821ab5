"""Every row of the table of /v1/responses, over the wire: it reaches the backend, is harmless, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from mlx_manager.ir import (
    ChatPrompt,
    Grammar,
    GrammarKind,
    ImageContent,
    Message,
    Priority,
    Role,
    TextContent,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
)
from mlx_manager.protocols.openai.responses import RESPONSE_PARAMETERS, ResponsesRequest
from mlx_manager.protocols.openai.responses.reasoning import pack_reasoning
from mlx_manager.protocols.parameters import Parameter, Support
from tests.http.scripted_server import Served

PATH = "/v1/responses"
BODY: dict[str, Any] = {"model": "m", "input": "hi"}
SCHEMA = {"type": "object", "properties": {"ü": {"const": 1}}}
TOOLS = [{"type": "function", "name": name, "parameters": SCHEMA, "description": "Does it"} for name in ("f", "g")]
NAMESPACE = {"type": "namespace", "name": "ns", "description": "All of it.", "tools": TOOLS}
WEB = {"type": "web_search", "external_web_access": True}
REQUIRED = ToolChoiceMode.REQUIRED
Read = Callable[[Any], object]


def said(role: Role, text: str, **more: Any) -> Message:
    return Message(role=role, content=(TextContent(text),) if text else (), **more)


def grammar(kind: str, param: str, text: str = "") -> Grammar:
    return Grammar(kind=GrammarKind(kind), param=param, text=text)


def chosen(choice: ToolChoice, sent: Any) -> tuple[str, dict[str, Any], Read, object]:
    """A case of `tool_choice`."""
    return "tool_choice", {"tools": [*TOOLS, NAMESPACE], "tool_choice": sent}, lambda r: r.prompt.tool_choice, choice


def tool(name: str, description: str = "Does it") -> Tool:
    return Tool(name=name, description=description, parameters=json.dumps(SCHEMA, ensure_ascii=False))


def formatted(sent: dict[str, Any], expected: Grammar | None) -> tuple[str, dict[str, Any], Read, object]:
    """A case of `text`."""
    return "text", {"text": {"format": sent}}, lambda r: r.sampling.grammar, expected


USER = said(Role.USER, "hi")
LOW = Thinking(is_enabled=True, effort="low")
OF_SCHEMA = grammar("json_schema", "text.format.schema", json.dumps(SCHEMA))
# parameter, what is sent, how the backend's request is read, what must be there
ARRIVALS: list[tuple[str, dict[str, Any], Read, object]] = [
    ("model", {}, lambda r: r.model, "m"),
    ("input", {}, lambda r: r.prompt, ChatPrompt(messages=(USER,))),
    ("instructions", {"instructions": "be"}, lambda r: r.prompt.messages, (said(Role.SYSTEM, "be"), USER)),
    ("tools", {"tools": TOOLS}, lambda r: r.prompt.tools, (tool("f"), tool("g"))),
    ("tools", {"tools": [TOOLS[0] | {"strict": True}]}, lambda r: r.prompt.tools[0].strict, True),
    (
        "tools",
        {"tools": [NAMESPACE]},
        lambda r: r.prompt.tools,
        (tool("ns__f", "All of it.\n\nDoes it"), tool("ns__g", "All of it.\n\nDoes it")),
    ),
    chosen(ToolChoice(), "auto"),
    chosen(ToolChoice(mode=ToolChoiceMode.NONE), "none"),
    chosen(ToolChoice(mode=REQUIRED), "required"),
    chosen(ToolChoice(mode=REQUIRED, names=("g",)), {"type": "function", "name": "g"}),
    (
        "tool_choice",
        {"tools": TOOLS, "tool_choice": {"type": "function", "name": "g"}},
        lambda r: r.prompt.parallel_tool_calls,
        False,
    ),
    chosen(ToolChoice(mode=REQUIRED, names=("ns__g",)), {"type": "function", "name": "g", "namespace": "ns"}),
    chosen(
        ToolChoice(names=("g",)),
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "g"}]},
    ),
    chosen(
        ToolChoice(mode=REQUIRED, names=("g",)),
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]},
    ),
    ("parallel_tool_calls", {"parallel_tool_calls": False}, lambda r: r.prompt.parallel_tool_calls, False),
    formatted({"type": "text"}, None),
    formatted({"type": "json_object"}, grammar("json_object", "text.format")),
    formatted({"type": "json_schema", "name": "n", "schema": SCHEMA}, OF_SCHEMA),
    formatted({"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}, OF_SCHEMA),
    ("reasoning", {"reasoning": {"effort": "low"}}, lambda r: r.prompt.thinking, LOW),
    (
        "reasoning",
        {"reasoning": {"effort": "none"}},
        lambda r: r.prompt.thinking,
        Thinking(is_enabled=False, effort="none"),
    ),
    ("reasoning", {"reasoning": {"summary": "auto"}}, lambda r: r.prompt.thinking, Thinking()),
    ("enable_thinking", {"enable_thinking": False}, lambda r: r.prompt.thinking, Thinking(is_enabled=False)),
    ("chat_template_kwargs", {"chat_template_kwargs": {"x": [1]}}, lambda r: r.prompt.template_kwargs, {"x": [1]}),
    ("include", {"include": ["message.output_text.logprobs"]}, lambda r: r.sampling.logprobs, True),
    ("include", {"include": ["reasoning.encrypted_content"]}, lambda r: r.sampling.logprobs, False),
    ("max_output_tokens", {"max_output_tokens": 9}, lambda r: r.sampling.max_tokens, 9),
    ("temperature", {"temperature": 0}, lambda r: r.sampling.temperature, 0.0),
    ("top_p", {"top_p": 0.5}, lambda r: r.sampling.top_p, 0.5),
    ("top_k", {"top_k": -1}, lambda r: r.sampling.top_k, 0),
    ("min_p", {"min_p": 0.1}, lambda r: r.sampling.min_p, 0.1),
    ("seed", {"seed": 7}, lambda r: r.sampling.seed, 7),
    ("repetition_penalty", {"repetition_penalty": 1.1}, lambda r: r.sampling.repetition_penalty, 1.1),
    ("presence_penalty", {"presence_penalty": -2}, lambda r: r.sampling.presence_penalty, -2.0),
    ("frequency_penalty", {"frequency_penalty": 2}, lambda r: r.sampling.frequency_penalty, 2.0),
    ("logit_bias", {"logit_bias": {"5": -100}}, lambda r: r.sampling.logit_bias, {5: -100.0}),
    ("stop", {"stop": ["a"]}, lambda r: r.sampling.stop, ("a",)),
    ("ignore_eos", {"ignore_eos": True}, lambda r: r.sampling.ignore_eos, True),
    ("top_logprobs", {"top_logprobs": 3}, lambda r: (r.sampling.logprobs, r.sampling.top_logprobs), (True, 3)),
    ("priority", {"priority": "high"}, lambda r: r.priority, Priority.HIGH),
    ("truncation", {"truncation": "disabled"}, lambda r: r.prompt.messages, (USER,)),
    ("background", {"background": False}, lambda r: r.prompt.messages, (USER,)),
]
# seen in the answer; see test_responses and test_stored_responses
SEEN_IN_THE_ANSWER = {"stream", "store", "metadata", "previous_response_id"}
HARMLESS_VALUES: dict[str, Any] = {
    "user": "u-1",
    "safety_identifier": "u-1",
    "client_metadata": {"turn_id": "t"},
    "service_tier": "auto",
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "implicit"},
    "prompt_cache_retention": "24h",
    "stream_options": {"include_obfuscation": False},
    "max_tool_calls": 3,
    "keep_alive": "5m",
    "context_management": [{"type": "compaction"}],
}
ROWS = tuple(RESPONSE_PARAMETERS.values())


def rows(*supports: Support) -> list[Parameter]:
    return [row for row in ROWS if row.support in supports]


def post(served: Served, **sent: Any) -> Any:
    with served.http() as client:
        return client.post(PATH, json=BODY | sent)


@pytest.mark.parametrize(("name", "sent", "read", "expected"), ARRIVALS)
def test_parameter_reaches_the_backend(
    served: Served, name: str, sent: dict[str, Any], read: Read, expected: object
) -> None:
    answer = post(served, **sent)
    assert answer.status_code == 200, answer.text
    assert "x-mlx-manager-ignored" not in answer.headers
    assert read(served.last_request()) == expected


def test_every_served_parameter_has_its_case() -> None:
    served = {row.name for row in rows(Support.SERVED)}
    assert served - SEEN_IN_THE_ANSWER == {name for name, *_ in ARRIVALS}
    assert served == set(ResponsesRequest.model_fields)


@pytest.mark.parametrize("row", rows(Support.HARMLESS, Support.IGNORED), ids=lambda row: row.name)
def test_harmless_parameter_is_accepted(served: Served, row: Parameter) -> None:
    answer = post(served, **{row.name: HARMLESS_VALUES[row.name]})
    assert answer.status_code == 200, answer.text
    ignored = answer.headers.get("x-mlx-manager-ignored")
    assert ignored == (row.name if row.support is Support.IGNORED else None)


@pytest.mark.parametrize("row", rows(Support.REFUSED), ids=lambda row: row.name)
def test_refused_parameter_is_named_and_its_neutral_values_pass(served: Served, row: Parameter) -> None:
    num_before = len(served.backend.requests)
    refused = post(served, **{row.name: "something"})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", row.name)
    assert len(served.backend.requests) == num_before
    for neutral in (None, *row.neutral):
        assert post(served, **{row.name: neutral}).status_code == 200


@pytest.mark.parametrize(
    ("sent", "ignored"),
    [
        ({"tools": [*TOOLS, WEB]}, "tools?2?"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"include": ["reasoning.encrypted_content", "what.next", "file_search_call.results"]}, "include?1?"),
        ({"frobnicate": 1}, "frobnicate"),
        (
            {
                "input": [
                    {"type": "reasoning", "summary": [], "encrypted_content": "gAAAAB"},
                    {"role": "user", "content": "hi"},
                ]
            },
            "input?0?.encrypted_content",
        ),
    ],
)
def test_what_is_left_out_is_named_in_a_header(served: Served, sent: dict[str, Any], ignored: str) -> None:
    answer = post(served, **sent)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-mlx-manager-ignored"] == ignored


CALL = {
    "type": "function_call",
    "call_id": "c1",
    "name": "f",
    "arguments": '{"x": 1}',
    "id": "fc_1",
    "status": "completed",
}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "sunny"}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
SUMMARY = {
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}],
}
SPOKEN = {
    "type": "message",
    "role": "assistant",
    "id": "msg_1",
    "content": [{"type": "output_text", "text": "Well.", "annotations": []}],
}
PICTURE = {"type": "input_image", "image_url": "data:image/png;base64,AAEC", "detail": "high"}
SEEN = ImageContent(data=b"\0\1\2", media_type="image/png", detail="high")
CALLED = ToolCall(call_id="c1", name="f", arguments='{"x": 1}')
ANSWERED = said(Role.TOOL, "sunny", name="f", tool_call_id="c1")


@pytest.mark.parametrize(
    ("items", "messages"),
    [
        ("", (said(Role.USER, ""),)),
        ([{"role": "user", "content": "a"}], (said(Role.USER, "a"),)),
        (
            [
                {"role": "developer", "content": [{"type": "input_text", "text": "a"}]},
                {"role": "system", "content": "b"},
            ],
            (said(Role.SYSTEM, "a"), said(Role.SYSTEM, "b")),
        ),
        (
            [{"role": "user", "content": [{"type": "input_text", "text": text} for text in "ab"]}],
            (Message(role=Role.USER, content=(TextContent("a"), TextContent("b"))),),
        ),
        (
            [THOUGHT, SPOKEN, CALL, OUTPUT],
            (said(Role.ASSISTANT, "Well.", reasoning="hm", tool_calls=(CALLED,)), ANSWERED),
        ),
        (
            [CALL, CALL | {"call_id": "c2"}, OUTPUT],
            (
                said(Role.ASSISTANT, "", tool_calls=(CALLED, ToolCall(call_id="c2", name="f", arguments='{"x": 1}'))),
                ANSWERED,
            ),
        ),
        ([SUMMARY, SPOKEN], (said(Role.ASSISTANT, "Well.", reasoning="a\nb"),)),
        ([SPOKEN, SPOKEN], (said(Role.ASSISTANT, "Well."), said(Role.ASSISTANT, "Well."))),
        ([CALL, SPOKEN], (said(Role.ASSISTANT, "", tool_calls=(CALLED,)), said(Role.ASSISTANT, "Well."))),
        (
            [SPOKEN, THOUGHT, {"role": "assistant", "content": "So."}],
            (said(Role.ASSISTANT, "Well."), said(Role.ASSISTANT, "So.", reasoning="hm")),
        ),
        ([{"role": "assistant", "content": ""}], (said(Role.ASSISTANT, ""),)),
        (
            [CALL | {"namespace": "ns"}, OUTPUT | {"output": [{"type": "input_text", "text": "sunny"}]}],
            (
                said(Role.ASSISTANT, "", tool_calls=(ToolCall(call_id="c1", name="ns__f", arguments='{"x": 1}'),)),
                said(Role.TOOL, "sunny", name="ns__f", tool_call_id="c1"),
            ),
        ),
        ([{"role": "user", "content": [PICTURE]}], (Message(role=Role.USER, content=(SEEN,)),)),
        (
            [CALL, OUTPUT | {"output": [PICTURE]}],
            (
                said(Role.ASSISTANT, "", tool_calls=(CALLED,)),
                Message(role=Role.TOOL, content=(SEEN,), name="f", tool_call_id="c1"),
            ),
        ),
        ([CALL, OUTPUT, CALL, OUTPUT], (said(Role.ASSISTANT, "", tool_calls=(CALLED,)), ANSWERED) * 2),
        (
            [SPOKEN | {"content": [{"type": "refusal", "refusal": "no"}]}, CALL | {"arguments": ""}],
            (said(Role.ASSISTANT, "no", tool_calls=(ToolCall(call_id="c1", name="f", arguments="{}"),)),),
        ),
        (
            [CALL | {"arguments": "{"}],
            (said(Role.ASSISTANT, "", tool_calls=(ToolCall(call_id="c1", name="f", arguments='{"unparsed": "{"}'),)),),
        ),
    ],
)
def test_items_reach_the_backend_as_messages(served: Served, items: Any, messages: tuple[Message, ...]) -> None:
    answer = post(served, input=items)
    assert answer.status_code == 200, answer.text
    prompt = served.last_request().prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages == messages


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"input": []}, "input", "at least one"),
    ({"input": 5}, "input", "string"),
    ({"input": [5]}, "input[0]", ""),
    ({"input": [{"role": "wizard", "content": "a"}]}, "input[0].role", "'user'"),
    ({"input": [{"role": "user"}]}, "input[0].content", "required"),
    ({"input": [{"role": "user", "content": [{"text": "a"}]}]}, "input[0].content[0].type", "required"),
    ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text", "required"),
    ({"input": [OUTPUT]}, "input[0].call_id", "there: none"),
    ({"input": [CALL, OUTPUT, OUTPUT]}, "input[2].call_id", "has an output before it"),
    ({"input": [CALL, CALL]}, "input[1].call_id", "no output yet"),
    ({"input": [CALL | {"call_id": ""}]}, "input[0].call_id", "at least 1"),
    ({"input": [{"type": "item_reference", "id": "msg_x"}]}, "input[0].id", "not stored"),
    ({"input": [{"id": "msg_x"}]}, "input[0].id", "not stored"),
    ({"tools": [TOOLS[0], TOOLS[0]]}, "tools[1].name", "before it"),
    ({"tools": [{"type": "function"}]}, "tools[0].name", "required"),
    ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name", "pattern"),
    ({"tools": [{"type": "namespace", "tools": TOOLS}]}, "tools[0].name", "required"),
    (
        {"tools": [{"type": "function", "name": "f", "parameters": {"type": "array"}}]},
        "tools[0].parameters.type",
        "object",
    ),
    ({"tool_choice": "required"}, "tool_choice", "no tools"),
    ({"tool_choice": "maybe", "tools": TOOLS}, "tool_choice", "'none'"),
    ({"tool_choice": {"type": "function", "name": "h"}, "tools": TOOLS}, "tool_choice", "not among"),
    ({"tool_choice": {"type": "function"}, "tools": TOOLS}, "tool_choice.name", "required"),
    ({"tool_choice": {"type": "allowed_tools", "mode": "auto"}, "tools": TOOLS}, "tool_choice.tools", "required"),
    ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema", "required"),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type", "'text'"),
    ({"text": {"format": {"type": "json_object"}}, "ignore_eos": True}, "ignore_eos", "text.format"),
    ({"reasoning": {"effort": "huge"}}, "reasoning.effort", "'none'"),
    ({"max_output_tokens": 0}, "max_output_tokens", "greater than or equal to 1"),
    ({"top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
    ({"metadata": {"k": 5}}, "metadata.k", "string"),
    ({"previous_response_id": 5}, "previous_response_id", "string"),
    ({"model": ""}, "model", "at least 1"),
    ({"background": True, "store": False}, "store", "background"),
]


@pytest.mark.parametrize(("sent", "param", "says"), WRONG)
def test_wrong_value_names_the_field_and_what_would_be_right(
    served: Served, sent: dict[str, Any], param: str, says: str
) -> None:
    num_before = len(served.backend.requests)
    answer = post(served, **sent)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_request", param), error
    assert param in error["message"]
    assert says in error["message"]
    assert "<" not in error["message"]
    assert len(served.backend.requests) == num_before


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ({"tools": [WEB]}, "tools[0].type"),
        ({"tools": [*TOOLS, {"type": "mcp", "server_label": "s"}]}, "tools[2].type"),
        ({"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}, "tools[0].type"),
        ({"tools": [{"type": "custom", "name": "c"}]}, "tools[0].type"),
        ({"tools": [NAMESPACE | {"tools": [{"type": "custom", "name": "c"}]}]}, "tools[0].tools[0].type"),
        ({"tools": TOOLS, "tool_choice": {"type": "web_search_preview"}}, "tool_choice.type"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]}},
            "tool_choice.tools[0].type",
        ),
        ({"input": [{"type": "web_search_call", "id": "ws_1", "status": "completed"}]}, "input[0].type"),
        ({"input": [{"type": "compaction", "encrypted_content": "x"}]}, "input[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
            "input[0].content[0].file_data",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input[0].content[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].image_url",
        ),
        ({"background": True, "stream": True}, "background"),
    ],
)
def test_what_is_not_served_is_refused_by_name(served: Served, sent: dict[str, Any], param: str) -> None:
    answer = post(served, **sent)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", param), error


def test_null_means_not_sent(served: Served) -> None:
    post(served).raise_for_status()
    plain = served.last_request()
    post(served, **{row.name: None for row in ROWS if row.name not in BODY}).raise_for_status()
    assert served.last_request().sampling == plain.sampling
    assert served.last_request().prompt == plain.prompt


def test_thinking_comes_back_as_it_was(served: Served) -> None:
    """A client that keeps nothing but what is encrypted, and one that keeps everything, send the same thoughts."""
    text = "Why?\n\n  — " + "because " * 500
    packed = {"type": "reasoning", "summary": [], "encrypted_content": pack_reasoning(text)}
    post(served, input=[packed, SPOKEN]).raise_for_status()
    prompt = served.last_request().prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages[0].reasoning == text
