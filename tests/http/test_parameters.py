"""Every row of the parameter table, over the wire: it reaches the backend, is harmless, or is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from mlx_manager.ir import (
    ChatPrompt,
    Grammar,
    GrammarKind,
    Message,
    Priority,
    Role,
    TextContent,
    TextPrompt,
    Thinking,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from mlx_manager.protocols.openai import PARAMETERS, ChatRequest, CompletionRequest, Endpoint
from mlx_manager.protocols.parameters import Parameter, Support
from tests.http.scripted_server import Served

PATHS = {Endpoint.CHAT: "/v1/chat/completions", Endpoint.COMPLETIONS: "/v1/completions"}
BODIES: dict[Endpoint, dict[str, Any]] = {
    Endpoint.CHAT: {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    Endpoint.COMPLETIONS: {"model": "m", "prompt": "hi"},
}
SAID_HI = Message(role=Role.USER, content=(TextContent("hi"),))
MORE = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Well"}]}
CONTINUED = ChatPrompt(
    messages=(
        Message(role=Role.USER, content=(TextContent("hi"),)),
        Message(role=Role.ASSISTANT, content=(TextContent("Well"),)),
    ),
    continue_final_message=True,
)
SCHEMA = {"type": "object", "properties": {"ü": {"const": 1}}}
NAMED_SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}


def grammar(kind: str, param: str, text: str = "") -> Grammar:
    return Grammar(kind=GrammarKind(kind), param=param, text=text)


OF_SCHEMA = grammar("json_schema", "response_format.json_schema.schema", json.dumps(SCHEMA))
GUIDED = grammar("json_schema", "guided_json", json.dumps(SCHEMA))
Read = Callable[[Any], object]
CHAT, COMPLETIONS = Endpoint.CHAT, Endpoint.COMPLETIONS

# parameter, endpoint, what is sent, how the backend's request is read, what must be there
TOOLS = {"tools": [{"type": "function", "function": {"name": name}} for name in ("f", "g")]}
FUNCTIONS = {"functions": [{"name": "f", "description": "Does f", "parameters": SCHEMA}]}
ALLOWED = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "g"}}]}
REQUIRED, NONE = ToolChoiceMode.REQUIRED, ToolChoiceMode.NONE


def described(name: str, **more: Any) -> dict[str, Any]:
    """A request with one tool."""
    return {"tools": [{"type": "function", "function": {"name": name} | more}]}


def thinks(is_enabled: bool, effort: str | None = None) -> Thinking:
    return Thinking(is_enabled=is_enabled, effort=effort)


def chosen(choice: object, **sent: Any) -> tuple[str, Endpoint, dict[str, Any], Read, object]:
    """A case of `tool_choice`."""
    return "tool_choice", CHAT, TOOLS | sent, lambda r: r.prompt.tool_choice, choice


ARRIVALS: list[tuple[str, Endpoint, dict[str, Any], Read, object]] = [
    ("model", CHAT, {}, lambda r: r.model, "m"),
    (
        "messages",
        CHAT,
        {},
        lambda r: r.prompt,
        ChatPrompt(messages=(SAID_HI,)),
    ),
    ("tools", CHAT, TOOLS, lambda r: r.prompt.tools, (Tool(name="f"), Tool(name="g"))),
    (
        "tools",
        CHAT,
        described("f", description="Does f", parameters=SCHEMA, strict=True),
        lambda r: r.prompt.tools,
        (Tool(name="f", description="Does f", parameters=json.dumps(SCHEMA, ensure_ascii=False), strict=True),),
    ),
    ("functions", CHAT, FUNCTIONS, lambda r: r.prompt.tools[0].parameters, json.dumps(SCHEMA, ensure_ascii=False)),
    ("functions", CHAT, FUNCTIONS, lambda r: r.prompt.parallel_tool_calls, False),
    chosen(ToolChoice(), tool_choice="auto"),
    chosen(ToolChoice(mode=NONE), tool_choice="none"),
    chosen(ToolChoice(mode=REQUIRED), tool_choice="required"),
    chosen(ToolChoice(mode=REQUIRED, names=("g",)), tool_choice={"type": "function", "function": {"name": "g"}}),
    # exactly one call of a function that is named, whatever else is asked for
    *(
        (
            "tool_choice",
            CHAT,
            TOOLS | {"tool_choice": {"type": "function", "function": {"name": "g"}}} | more,
            lambda r: r.prompt.parallel_tool_calls,
            False,
        )
        for more in ({}, {"parallel_tool_calls": True})
    ),
    chosen(ToolChoice(names=("g",)), tool_choice={"type": "allowed_tools", "allowed_tools": ALLOWED}),
    chosen(
        ToolChoice(mode=REQUIRED, names=("g",)),
        tool_choice={"type": "allowed_tools", "allowed_tools": ALLOWED | {"mode": "required"}},
    ),
    ("function_call", CHAT, FUNCTIONS | {"function_call": "none"}, lambda r: r.prompt.tool_choice.mode, NONE),
    (
        "function_call",
        CHAT,
        FUNCTIONS | {"function_call": {"name": "f"}},
        lambda r: r.prompt.tool_choice,
        ToolChoice(mode=REQUIRED, names=("f",)),
    ),
    ("parallel_tool_calls", CHAT, {"parallel_tool_calls": False}, lambda r: r.prompt.parallel_tool_calls, False),
    ("reasoning_effort", CHAT, {"reasoning_effort": "low"}, lambda r: r.prompt.thinking, thinks(True, "low")),
    ("reasoning_effort", CHAT, {"reasoning_effort": "none"}, lambda r: r.prompt.thinking, thinks(False, "none")),
    ("enable_thinking", CHAT, {"enable_thinking": False}, lambda r: r.prompt.thinking, thinks(False)),
    (
        "chat_template_kwargs",
        CHAT,
        {"chat_template_kwargs": {"enable_thinking": False, "x": [1, None]}},
        lambda r: (r.prompt.template_kwargs, r.prompt.thinking),
        ({"x": [1, None]}, thinks(False)),
    ),
    ("n", CHAT, {"n": 3, "model": "m3"}, lambda r: r.num_choices, 3),
    ("logprobs", CHAT, {"logprobs": True}, lambda r: (r.sampling.logprobs, r.sampling.top_logprobs), (True, 0)),
    ("top_logprobs", CHAT, {"logprobs": True, "top_logprobs": 20}, lambda r: r.sampling.top_logprobs, 20),
    (
        "continue_final_message",
        CHAT,
        MORE | {"continue_final_message": True},
        lambda r: r.prompt,
        CONTINUED,
    ),
    ("add_generation_prompt", CHAT, MORE | {"add_generation_prompt": False}, lambda r: r.prompt, CONTINUED),
    ("model", COMPLETIONS, {}, lambda r: r.model, "m"),
    ("prompt", COMPLETIONS, {}, lambda r: r.prompt, TextPrompt(text="hi")),
    ("n", COMPLETIONS, {"n": 3, "model": "m3"}, lambda r: r.num_choices, 3),
    ("logprobs", COMPLETIONS, {"logprobs": 5}, lambda r: (r.sampling.logprobs, r.sampling.top_logprobs), (True, 5)),
    ("logprobs", COMPLETIONS, {"logprobs": 0}, lambda r: (r.sampling.logprobs, r.sampling.top_logprobs), (True, 0)),
    ("echo", COMPLETIONS, {"echo": True}, lambda r: r.echo, True),
]
for _endpoint in Endpoint:
    ARRIVALS += [
        ("max_tokens", _endpoint, {"max_tokens": 9}, lambda r: r.sampling.max_tokens, 9),
        ("max_tokens", _endpoint, {"max_tokens": 9.0}, lambda r: r.sampling.max_tokens, 9),
        ("max_completion_tokens", _endpoint, {"max_completion_tokens": 9}, lambda r: r.sampling.max_tokens, 9),
        ("temperature", _endpoint, {"temperature": 0}, lambda r: r.sampling.temperature, 0.0),
        ("temperature", _endpoint, {"temperature": 1.5}, lambda r: r.sampling.temperature, 1.5),
        ("top_p", _endpoint, {"top_p": 0.5}, lambda r: r.sampling.top_p, 0.5),
        ("top_k", _endpoint, {"top_k": 40}, lambda r: r.sampling.top_k, 40),
        ("top_k", _endpoint, {"top_k": -1}, lambda r: r.sampling.top_k, 0),
        ("min_p", _endpoint, {"min_p": 0.1}, lambda r: r.sampling.min_p, 0.1),
        ("seed", _endpoint, {"seed": 7}, lambda r: r.sampling.seed, 7),
        ("seed", _endpoint, {"seed": -1}, lambda r: r.sampling.seed, 2**63 - 1),
        ("repetition_penalty", _endpoint, {"repetition_penalty": 1.1}, lambda r: r.sampling.repetition_penalty, 1.1),
        ("presence_penalty", _endpoint, {"presence_penalty": -2}, lambda r: r.sampling.presence_penalty, -2.0),
        ("frequency_penalty", _endpoint, {"frequency_penalty": 2}, lambda r: r.sampling.frequency_penalty, 2.0),
        ("logit_bias", _endpoint, {"logit_bias": {"5": -100}}, lambda r: r.sampling.logit_bias, {5: -100.0}),
        ("logit_bias", _endpoint, {"logit_bias": {}}, lambda r: r.sampling.logit_bias, {}),
        ("stop", _endpoint, {"stop": "a"}, lambda r: r.sampling.stop, ("a",)),
        ("stop", _endpoint, {"stop": list("abcd")}, lambda r: r.sampling.stop, tuple("abcd")),
        ("stop", _endpoint, {"stop": []}, lambda r: r.sampling.stop, ()),
        ("response_format", _endpoint, {"response_format": {"type": "text"}}, lambda r: r.sampling.grammar, None),
        (
            "response_format",
            _endpoint,
            {"response_format": {"type": "json_object"}},
            lambda r: r.sampling.grammar,
            grammar("json_object", "response_format"),
        ),
        ("response_format", _endpoint, {"response_format": NAMED_SCHEMA}, lambda r: r.sampling.grammar, OF_SCHEMA),
        *(
            (
                "response_format",
                _endpoint,
                {"response_format": {**NAMED_SCHEMA, "json_schema": {"schema": SCHEMA, "strict": strict}}},
                lambda r: r.sampling.grammar,
                OF_SCHEMA,
            )
            for strict in (True, False)
        ),
        ("guided_json", _endpoint, {"guided_json": SCHEMA}, lambda r: r.sampling.grammar, GUIDED),
        ("guided_json", _endpoint, {"guided_json": json.dumps(SCHEMA)}, lambda r: r.sampling.grammar, GUIDED),
        (
            "guided_regex",
            _endpoint,
            {"guided_regex": "[ab]+"},
            lambda r: r.sampling.grammar,
            grammar("regex", "guided_regex", "[ab]+"),
        ),
        (
            "guided_grammar",
            _endpoint,
            {"guided_grammar": 'start: "a"'},
            lambda r: r.sampling.grammar,
            grammar("lark", "guided_grammar", 'start: "a"'),
        ),
        ("ignore_eos", _endpoint, {"ignore_eos": True}, lambda r: r.sampling.ignore_eos, True),
        ("priority", _endpoint, {"priority": "high"}, lambda r: r.priority, Priority.HIGH),
    ]

# seen in the answer rather than in the backend's request; see test_chat
SEEN_IN_THE_ANSWER = {"stream", "stream_options"}
HARMLESS_VALUES: dict[str, Any] = {
    "user": "u-1",
    "safety_identifier": "u-1",
    "metadata": {"k": "v"},
    "store": False,
    "service_tier": "auto",
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "implicit"},
    "prompt_cache_retention": "24h",
    "cache_prompt": True,
    "prediction": {"type": "content", "content": "x"},
    "draft_model": "d",
    "num_draft_tokens": 3,
    "request_id": "r",
    "keep_alive": "5m",
    "verbosity": "low",
}
OTHERWISE_REFUSED: dict[str, Any] = {
    "modalities": ["text", "audio"],
}
REFUSED_VALUE = "something"
BY_SUPPORT = {support: [row for row in PARAMETERS if row.support is support] for support in Support}


def cells(*supports: Support) -> list[tuple[Parameter, Endpoint]]:
    """Every row at every endpoint it belongs to."""
    return [(row, endpoint) for support in supports for row in BY_SUPPORT[support] for endpoint in row.endpoints]


def name_of(value: object) -> str | None:
    return value.name if isinstance(value, Parameter) else None


@pytest.mark.parametrize(("name", "endpoint", "sent", "read", "expected"), ARRIVALS)
def test_parameter_reaches_the_backend(
    served: Served, *, name: str, endpoint: Endpoint, sent: dict[str, Any], read: Read, expected: object
) -> None:
    with served.http() as client:
        answer = client.post(PATHS[endpoint], json=BODIES[endpoint] | sent)
    assert answer.status_code == 200, answer.text
    assert "x-mlx-manager-ignored" not in answer.headers
    assert read(served.last_request()) == expected


def test_every_served_parameter_has_its_case() -> None:
    served = {(row.name, endpoint) for row, endpoint in cells(Support.SERVED)}
    covered = {(name, endpoint) for name, endpoint, *_ in ARRIVALS}
    assert {cell for cell in served if cell[0] not in SEEN_IN_THE_ANSWER} == covered


@pytest.mark.parametrize(("schema", "endpoint"), [(ChatRequest, CHAT), (CompletionRequest, COMPLETIONS)])
def test_table_and_wire_schema_name_the_same_parameters(schema: Any, endpoint: Endpoint) -> None:
    served = {row.name for row in BY_SUPPORT[Support.SERVED] if endpoint in row.endpoints}
    assert served == set(schema.model_fields)


def test_no_parameter_has_two_rows_at_one_endpoint() -> None:
    names = [(row.name, endpoint) for row in PARAMETERS for endpoint in row.endpoints]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("row", "endpoint"), cells(Support.HARMLESS, Support.IGNORED), ids=name_of)
def test_harmless_parameter_is_accepted(served: Served, row: Parameter, endpoint: Endpoint) -> None:
    with served.http() as client:
        answer = client.post(PATHS[endpoint], json=BODIES[endpoint] | {row.name: HARMLESS_VALUES[row.name]})
    assert answer.status_code == 200, answer.text
    ignored = answer.headers.get("x-mlx-manager-ignored")
    assert ignored == (row.name if row.support is Support.IGNORED else None)


@pytest.mark.parametrize(("row", "endpoint"), cells(Support.REFUSED), ids=name_of)
def test_refused_parameter_is_named_and_its_neutral_values_pass(
    served: Served, row: Parameter, endpoint: Endpoint
) -> None:
    value = OTHERWISE_REFUSED.get(row.name, REFUSED_VALUE)
    num_before = len(served.backend.requests)
    with served.http() as client:
        refused = client.post(PATHS[endpoint], json=BODIES[endpoint] | {row.name: value})
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", row.name)
        assert error["message"].startswith(f"{row.name} is not supported")
        assert error["type"] == "invalid_request_error"
        assert len(served.backend.requests) == num_before
        for neutral in (None, *row.neutral):
            passed = client.post(PATHS[endpoint], json=BODIES[endpoint] | {row.name: neutral})
            assert passed.status_code == 200, passed.text


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": "{}"}}},
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}, "strict": "yes"}}},
            "response_format.json_schema.strict",
        ),
        ({"guided_json": 5}, "guided_json"),
        ({"guided_regex": ""}, "guided_regex"),
        ({"guided_grammar": ["start"]}, "guided_grammar"),
        ({"guided_regex": "a", "guided_json": SCHEMA}, "guided_regex"),
        ({"response_format": {"type": "json_object"}, "guided_regex": "a"}, "guided_regex"),
        ({"guided_regex": "a", "ignore_eos": True}, "ignore_eos"),
    ],
)
def test_a_form_of_answer_that_cannot_be_meant_is_refused(served: Served, sent: dict[str, Any], param: str) -> None:
    for endpoint in Endpoint:
        with served.http() as client:
            refused = client.post(PATHS[endpoint], json=BODIES[endpoint] | sent)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error["param"]) == (400, "invalid_request", param), error
        assert param in error["message"]


@pytest.mark.parametrize("endpoint", Endpoint)
def test_null_means_not_sent(served: Served, endpoint: Endpoint) -> None:
    optional = {row.name: None for row in PARAMETERS if row.name not in BODIES[endpoint] and endpoint in row.endpoints}
    with served.http() as client:
        client.post(PATHS[endpoint], json=BODIES[endpoint]).raise_for_status()
        plain = served.last_request()
        client.post(PATHS[endpoint], json=BODIES[endpoint] | optional).raise_for_status()
    assert served.last_request().sampling == plain.sampling
    assert served.last_request().prompt == plain.prompt


def test_unknown_parameters_are_named_in_a_header(served: Served) -> None:
    with served.http() as client:
        body = BODIES[CHAT] | {"frobnicate": 1, "x\r\ny": 2, "nothing": None}
        whole = client.post(PATHS[CHAT], json=body)
        streamed = client.post(PATHS[CHAT], json=body | {"stream": True})
    assert whole.headers["x-mlx-manager-ignored"] == streamed.headers["x-mlx-manager-ignored"] == "frobnicate,x??y"


@pytest.mark.parametrize(
    ("header", "field", "expected"),
    [("high", None, Priority.HIGH), ("Low", None, Priority.LOW), ("high", "low", Priority.LOW)],
)
def test_priority_comes_from_the_header_unless_the_body_says_it(
    served: Served, header: str, field: str | None, expected: Priority
) -> None:
    with served.http() as client:
        client.post(PATHS[CHAT], json=BODIES[CHAT] | {"priority": field}, headers={"X-Priority": header})
    assert served.last_request().priority is expected


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([{"role": "developer", "content": "be brief"}], [(Role.SYSTEM, "be brief", None)]),
        ([{"role": "user", "content": "a", "name": "ann"}], [(Role.USER, "a", "ann")]),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}]}], [(Role.USER, "a", None)]),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
            [(Role.USER, "a\nb", None)],
        ),
        (
            [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": None, "tool_calls": []},
            ],
            [(Role.USER, "a", None), (Role.ASSISTANT, "", None)],
        ),
        (
            [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "reasoning_content": "hm"}],
            [(Role.ASSISTANT, "no", None)],
        ),
    ],
)
def test_messages_reach_the_backend(served: Served, messages: list[Any], expected: list[Any]) -> None:
    with served.http() as client:
        client.post(PATHS[CHAT], json={"model": "m", "messages": messages}).raise_for_status()
    prompt = served.last_request().prompt
    assert isinstance(prompt, ChatPrompt)
    assert [(message.role, message.text, message.name) for message in prompt.messages] == expected
    assert not prompt.continue_final_message
