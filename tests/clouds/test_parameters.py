"""What becomes of every parameter at every kind of provider: one request for each cell of the table in the docs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from mlx_manager.backends.crossings import CROSSINGS, REFUSED
from mlx_manager.catalog import ProviderKind
from mlx_manager.protocols.anthropic import MESSAGES_PARAMETERS
from mlx_manager.protocols.openai import PARAMETERS, Endpoint
from mlx_manager.protocols.openai.responses import RESPONSE_PARAMETERS
from mlx_manager.protocols.parameters import Parameter, Support
from tests.clouds.conftest import Cloud

CHAT, COMPLETIONS, RESPONSES, MESSAGES = "chat", "completions", "responses", "messages"
PATHS = {
    CHAT: "/v1/chat/completions",
    COMPLETIONS: "/v1/completions",
    RESPONSES: "/v1/responses",
    MESSAGES: "/v1/messages",
}
HI = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": "ok", "messages": HI},
    COMPLETIONS: {"model": "ok", "prompt": "hi"},
    RESPONSES: {"model": "ok", "input": "hi"},
    MESSAGES: {"model": "ok", "max_tokens": 4000, "messages": HI},
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
FUNCTION = {"name": "f", "description": "Does it", "parameters": SCHEMA}
TOOLS = {
    CHAT: [{"type": "function", "function": FUNCTION}],
    RESPONSES: [{"type": "function", **FUNCTION}],
    MESSAGES: [{"name": "f", "input_schema": SCHEMA}],
}
ALLOWED = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]}
FORMAT = {"type": "json_schema", "schema": SCHEMA}
GONE_ON = [*HI, {"role": "assistant", "content": "Well"}]
SAMPLING: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 4,
    "min_p": 0.1,
    "seed": 7,
    "repetition_penalty": 1.1,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "logit_bias": {"5": 1},
    "stop": ["END"],
    "ignore_eos": True,
    "priority": "high",
    "stream": True,
}
FORMS: dict[str, Any] = {
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
    "response_format: json_object": {"type": "json_object"},
    "guided_json": SCHEMA,
    "guided_regex": "a+",
    "guided_grammar": 'start: "a"',
}
THINKING: dict[str, Any] = {
    "enable_thinking": True,
    "chat_template_kwargs": {"x": 1},
}
TOLD: dict[str, Any] = {
    "user": "u",
    "safety_identifier": "u",
    "service_tier": "flex",
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "auto"},
    "prompt_cache_retention": "24h",
}
TOLD_BY_CHAT: dict[str, Any] = TOLD | {
    "metadata": {"k": "v"},
    "store": True,
    "prediction": {"type": "content", "content": "hi"},
}
TOLD_BY_MESSAGES: dict[str, Any] = {
    "metadata": {"user_id": "u"},
    "user_profile_id": "u",
    "workspace_id": "w",
    "billing_policy": "b",
    "fallback_credit_token": "t",
    "service_tier": "auto",
    "speed": "fast",
    "inference_geo": "us",
    "diagnostics": {},
    "fallbacks": [],
    "context_management": {"edits": []},
}
# what is sent, by the row of the table; a row that needs more than itself has that beside it
SENT: dict[str, dict[str, Any]] = {
    CHAT: SAMPLING
    | FORMS
    | THINKING
    | TOLD_BY_CHAT
    | {
        "verbosity": "low",
        "model": "good",
        "messages": [{"role": "user", "content": "ho"}],
        "max_tokens": 3000,
        "max_completion_tokens": 3000,
        "reasoning_effort": "low",
        "reasoning_effort: none": "none",
        "n": 2,
        "logprobs": True,
        "top_logprobs": 3,
        "stream_options": {"include_usage": True},
        "continue_final_message": True,
        "add_generation_prompt": False,
        "tools": TOOLS[CHAT],
        "tool_choice": "required",
        "tool_choice: allowed_tools": {"type": "allowed_tools", "allowed_tools": ALLOWED},
        "parallel_tool_calls": False,
        "functions": [FUNCTION],
        "function_call": {"name": "f"},
    },
    COMPLETIONS: SAMPLING
    | FORMS
    | TOLD_BY_CHAT
    | {
        "model": "good",
        "prompt": "ho",
        "max_tokens": 3000,
        "max_completion_tokens": 3000,
        "n": 2,
        "logprobs": 3,
        "stream_options": {"include_usage": True},
        "echo": True,
    },
    RESPONSES: SAMPLING
    | THINKING
    | TOLD
    | {
        "model": "good",
        "input": "ho",
        "instructions": "be",
        "store": False,
        "tools": TOOLS[RESPONSES],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "text": {"format": FORMAT | {"name": "n"}},
        "text: verbosity": {"verbosity": "low"},
        "text: json_object": {"format": {"type": "json_object"}},
        "reasoning": {"effort": "low"},
        "include": ["reasoning.encrypted_content"],
        "include: message.output_text.logprobs": ["message.output_text.logprobs"],
        "max_output_tokens": 3000,
        "top_logprobs": 3,
        "metadata": {"k": "v"},
        "truncation": "disabled",
        "background": False,
    },
    MESSAGES: TOLD_BY_MESSAGES
    | {
        "cache_control": {"type": "ephemeral"},
        "model": "good",
        "messages": [{"role": "user", "content": "ho"}],
        "system": "be",
        "tools": TOOLS[MESSAGES],
        "tool_choice": {"type": "any"},
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "thinking: adaptive": {"type": "adaptive"},
        "output_config": {"format": FORMAT},
        "output_config: effort": {"effort": "low"},
        "output_format": FORMAT,
        "max_tokens": 3000,
        "stop_sequences": ["END"],
        "stream": True,
        "temperature": 0.5,
        "top_p": 0.5,
        "top_k": 4,
    },
}
BESIDE: dict[str, dict[str, dict[str, Any]]] = {
    CHAT: {
        "top_logprobs": {"logprobs": True},
        "stream_options": {"stream": True},
        "continue_final_message": {"messages": GONE_ON, "add_generation_prompt": False},
        "add_generation_prompt": {"messages": GONE_ON},
        "function_call": {"functions": [FUNCTION]},
        "tool_choice": {"tools": TOOLS[CHAT]},
        "tool_choice: allowed_tools": {"tools": [*TOOLS[CHAT], {"type": "function", "function": {"name": "g"}}]},
        "parallel_tool_calls": {"tools": TOOLS[CHAT]},
    },
    COMPLETIONS: {"stream_options": {"stream": True}},
    RESPONSES: {"tool_choice": {"tools": TOOLS[RESPONSES]}, "parallel_tool_calls": {"tools": TOOLS[RESPONSES]}},
    MESSAGES: {"tool_choice": {"tools": TOOLS[MESSAGES]}},
}
NOT_HERE = {"previous_response_id"}
"""Needs an answer before it; see test_stored_responses."""


def served_of(dialect: str) -> set[str]:
    """The parameters that reach a backend, as the tables of the dialects have them."""
    rows: Iterable[Parameter]
    match dialect:
        case "responses":
            rows = RESPONSE_PARAMETERS.values()
        case "messages":
            rows = MESSAGES_PARAMETERS.values()
        case _:
            rows = [row for row in PARAMETERS if Endpoint(dialect) in row.endpoints]
    return {row.name for row in rows if row.support is Support.SERVED or row.is_passed_on}


@pytest.mark.parametrize("dialect", PATHS)
def test_every_served_parameter_has_its_row(dialect: str) -> None:
    rows = [row.label for row in CROSSINGS[dialect]]
    assert {label.partition(":")[0] for label in rows} == served_of(dialect) - NOT_HERE
    assert sorted(rows) == sorted(SENT[dialect])


def changed_by(cloud: Cloud, dialect: str, label: str, plain: dict[str, Any]) -> str:
    """The fields of the provider's request that a parameter changes; or that it is refused."""
    name = label.partition(":")[0]
    num_before = cloud.upstream.num_asked
    answer = cloud.client.post(PATHS[dialect], json=plain | {name: SENT[dialect][label]})
    if answer.status_code == 400:
        assert cloud.upstream.num_asked == num_before, "a refused request reached the provider"
        assert "leave it out" in answer.text or "raw text" in answer.text, answer.text
        return REFUSED
    assert answer.status_code == 200, answer.text
    sent = cloud.upstream.bodies[-1]
    asked = cloud.client.post(PATHS[dialect], json=plain)
    # what cannot be asked without the parameter is compared with nothing
    without = cloud.upstream.bodies[-1] if asked.status_code == 200 else {}
    return ", ".join(sorted(field for field in {*sent, *without} if sent.get(field) != without.get(field)))


@pytest.mark.parametrize("kind", ProviderKind)
@pytest.mark.parametrize("dialect", PATHS)
def test_what_becomes_of_each_parameter(cloud: Cloud, kind: ProviderKind, dialect: str) -> None:
    assert cloud.provider(name="other", kind=kind.value).status_code == 201
    cloud.route("other", [{"provider": "other"}], pattern=".+", pattern_kind="regex")
    found, expected = {}, {}
    for row in CROSSINGS[dialect]:
        beside = BESIDE[dialect].get(row.label, {})
        found[row.label] = changed_by(cloud, dialect, row.label, BODIES[dialect] | beside)
        expected[row.label] = row.at(kind)
    assert found == expected
