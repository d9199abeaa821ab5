"""Every row of the table of Anthropic's parameters, over the wire: it arrives, is harmless, or is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from mlx_manager.backends.scripted import script_of
from mlx_manager.catalog.settings import load_settings
from mlx_manager.ir import (
    ChatPrompt,
    Grammar,
    GrammarKind,
    Message,
    Role,
    TextContent,
    Thinking,
    Tokens,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from mlx_manager.protocols.anthropic import (
    COUNT_TOKENS_PARAMETERS,
    MESSAGES_PARAMETERS,
    CountTokensRequest,
    MessagesRequest,
)
from mlx_manager.protocols.parameters import Parameter, Support
from tests.http.scripted_server import HELLO, Recorder, Served, Shelf, running

PATH, COUNT = "/v1/messages", "/v1/messages/count_tokens"
TABLES: dict[str, Mapping[str, Parameter]] = {PATH: MESSAGES_PARAMETERS, COUNT: COUNT_TOKENS_PARAMETERS}
SAID_HI = Message(role=Role.USER, content=(TextContent("hi"),))
PROMPT = {"messages": [{"role": "user", "content": "hi"}]}
BODIES: dict[str, dict[str, Any]] = {
    PATH: PROMPT | {"model": "m", "max_tokens": 9},
    COUNT: PROMPT | {"model": "counts"},
}
SCHEMA = {"type": "object", "properties": {"ü": {"const": 1}}}
FORMAT = {"type": "json_schema", "schema": SCHEMA}
TOOLS = {"tools": [{"name": name, "input_schema": {"type": "object"}} for name in ("f", "g")]}
REQUIRED = ToolChoiceMode.REQUIRED
Read = Callable[[Any], object]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The model `m` says hello, the model `counts` counts three tokens."""
    settings = load_settings({}, {"home": str(tmp_path_factory.mktemp("home")), "port": 0})
    backend = Recorder({"m": script_of(HELLO), "counts": (Tokens(token_ids=(1, 2, 3), text="hi"),)})
    with running(settings, backend, Shelf()) as server:
        yield server


def chosen(choice: ToolChoice, **sent: Any) -> tuple[str, dict[str, Any], Read, object]:
    return "tool_choice", TOOLS | {"tool_choice": sent}, lambda r: r.prompt.tool_choice, choice


def thinks(sent: dict[str, Any], **expected: Any) -> tuple[str, dict[str, Any], Read, object]:
    return "thinking", {"thinking": sent}, lambda r: r.prompt.thinking, Thinking(**expected)


# parameter, what is sent, how the request at the backend is read, what must be there
IN_THE_PROMPT: list[tuple[str, dict[str, Any], Read, object]] = [
    ("model", {}, lambda r: r.model in ("m", "counts"), True),
    ("messages", {}, lambda r: r.prompt, ChatPrompt(messages=(SAID_HI,), thinking=Thinking(is_enabled=False))),
    (
        "system",
        {"system": "Be brief."},
        lambda r: r.prompt.messages[0],
        Message(role=Role.SYSTEM, content=(TextContent("Be brief."),)),
    ),
    (
        "tools",
        {"tools": [{"name": "f", "description": "Does f", "input_schema": SCHEMA, "strict": True, "type": "custom"}]},
        lambda r: r.prompt.tools,
        (Tool(name="f", description="Does f", parameters=json.dumps(SCHEMA, ensure_ascii=False), strict=True),),
    ),
    chosen(ToolChoice(), type="auto"),
    chosen(ToolChoice(mode=REQUIRED), type="any"),
    chosen(ToolChoice(mode=REQUIRED, names=("g",)), type="tool", name="g"),
    chosen(ToolChoice(mode=ToolChoiceMode.NONE), type="none"),
    (
        "tool_choice",
        TOOLS | {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        lambda r: r.prompt.parallel_tool_calls,
        False,
    ),
    thinks({"type": "disabled"}, is_enabled=False),
    thinks({"type": "adaptive"}, is_adaptive=True),
    thinks({"type": "between_tools"}, is_adaptive=True),
    thinks({"type": "enabled", "budget_tokens": 2000}, is_enabled=True, budget_tokens=2000),
    ("output_config", {"output_config": {"effort": "low"}}, lambda r: r.prompt.thinking.effort, "low"),
    ("cache_control", {"cache_control": {"type": "ephemeral"}}, lambda r: r.prompt.cache_ttl, "5m"),
]
IN_THE_SAMPLING: list[tuple[str, dict[str, Any], Read, object]] = [
    ("max_tokens", {}, lambda r: (r.sampling.max_tokens, r.sampling.fits_context), (9, True)),
    ("stop_sequences", {"stop_sequences": ["a", "b"]}, lambda r: r.sampling.stop, ("a", "b")),
    ("stream", {"stream": True}, lambda r: r.model, "m"),
    ("temperature", {"temperature": 0.5}, lambda r: r.sampling.temperature, 0.5),
    ("top_p", {"top_p": 0.5}, lambda r: r.sampling.top_p, 0.5),
    ("top_k", {"top_k": 40}, lambda r: r.sampling.top_k, 40),
    (
        "output_config",
        {"output_config": {"format": FORMAT}},
        lambda r: r.sampling.grammar,
        Grammar(kind=GrammarKind.JSON_SCHEMA, param="output_config.format.schema", text=json.dumps(SCHEMA)),
    ),
    (
        "output_format",
        {"output_format": FORMAT},
        lambda r: r.sampling.grammar,
        Grammar(kind=GrammarKind.JSON_SCHEMA, param="output_format.schema", text=json.dumps(SCHEMA)),
    ),
]
ARRIVALS = [(PATH, *case) for case in IN_THE_PROMPT + IN_THE_SAMPLING] + [(COUNT, *case) for case in IN_THE_PROMPT]
HARMLESS_VALUES: dict[str, Any] = {
    "metadata": {"user_id": "u-1"},
    "user_profile_id": "u-1",
    "workspace_id": "w-1",
    "billing_policy": {"type": "billing_policy", "bill_to": "self"},
    "fallback_credit_token": "t",
    "service_tier": "auto",
    "speed": "fast",
    "inference_geo": "eu",
    "diagnostics": {"previous_message_id": None},
    "fallbacks": "default",
    "betas": ["b"],
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "max_tokens": 5,
    "stop_sequences": ["a"],
    "stream": True,
    "temperature": 1,
    "top_p": 1,
    "top_k": 1,
}


def cells(*supports: Support) -> list[tuple[str, Parameter]]:
    return [(path, row) for path, table in TABLES.items() for row in table.values() if row.support in supports]


def name_of(value: object) -> str | None:
    return value.name if isinstance(value, Parameter) else None


def last_request(served: Served, path: str) -> Any:
    return served.last_request() if path == PATH else served.backend.tokenized[-1]


@pytest.mark.parametrize(("path", "name", "sent", "read", "expected"), ARRIVALS)
def test_parameter_reaches_the_backend(
    served: Served, *, path: str, name: str, sent: dict[str, Any], read: Read, expected: object
) -> None:
    with served.http() as client:
        answer = client.post(path, json=BODIES[path] | sent)
    assert answer.status_code == 200, answer.text
    assert "x-mlx-manager-ignored" not in answer.headers
    assert read(last_request(served, path)) == expected
    if path == COUNT:
        assert answer.json() == {"input_tokens": 3}


@pytest.mark.parametrize(("path", "schema"), [(PATH, MessagesRequest), (COUNT, CountTokensRequest)])
def test_table_wire_schema_and_cases_name_the_same_parameters(path: str, schema: Any) -> None:
    served = {row.name for row in TABLES[path].values() if row.support is Support.SERVED}
    assert served == set(schema.model_fields)
    # a form of the answer changes nothing about its count
    assert served - {name for at, name, *_ in ARRIVALS if at == path} == ({"output_format"} if path == COUNT else set())


@pytest.mark.parametrize(("path", "row"), cells(Support.HARMLESS, Support.IGNORED), ids=name_of)
def test_harmless_parameter_is_accepted(served: Served, path: str, row: Parameter) -> None:
    with served.http() as client:
        answer = client.post(path, json=BODIES[path] | {row.name: HARMLESS_VALUES[row.name]})
    assert answer.status_code == 200, answer.text
    ignored = answer.headers.get("x-mlx-manager-ignored")
    assert ignored == (row.name if row.support is Support.IGNORED else None)


@pytest.mark.parametrize(("path", "row"), cells(Support.REFUSED), ids=name_of)
def test_refused_parameter_is_named_and_its_neutral_values_pass(served: Served, path: str, row: Parameter) -> None:
    with served.http() as client:
        refused = client.post(path, json=BODIES[path] | {row.name: "something"})
        assert refused.status_code == 400
        error = refused.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert error["message"].startswith(f"{row.name} is not supported")
        for neutral in (None, *row.neutral):
            passed = client.post(path, json=BODIES[path] | {row.name: neutral})
            assert passed.status_code == 200, passed.text


@pytest.mark.parametrize("path", TABLES)
def test_unknown_parameter_is_accepted_and_named(served: Served, path: str) -> None:
    with served.http() as client:
        answer = client.post(path, json=BODIES[path] | {"from_the_future": 1})
    assert (answer.status_code, answer.headers["x-mlx-manager-ignored"]) == (200, "from_the_future")


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "hi"}]}, "messages"),
        ({"temperature": 3}, "temperature"),
        ({"thinking": {"type": "sometimes"}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens"),
        ({"stop_sequences": ["a", ""]}, "stop_sequences"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        (TOOLS | {"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        (TOOLS | {"tool_choice": {"type": "tool", "name": "h"}}, "tool_choice.name"),
        ({"output_format": FORMAT, "output_config": {"format": FORMAT}}, "output_format"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tools": [{"name": "f", "input_schema": {"type": "array"}}]}, "tools[0].input_schema.type"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools[0].name"),
        ({"tools": [*TOOLS["tools"], TOOLS["tools"][0]]}, "tools[2].name"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0] is of type 'web_search"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0] is of type 'bash"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_field(served: Served, sent: dict[str, Any], param: str) -> None:
    with served.http() as client:
        answer = client.post(PATH, json=BODIES[PATH] | sent)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(param)
