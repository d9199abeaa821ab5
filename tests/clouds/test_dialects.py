"""Every dialect reaches every provider: streamed or not, with tools, thinking and images."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest

from mlx_manager.ir import ChatPrompt
from tests.clouds.conftest import Cloud
from tests.clouds.upstream_server import KEY, TEXT
from tests.documents.pdf import pdf

SAID = "".join(TEXT)
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CALLS = [("call_1", "get_weather", {"city": "Paris"}), ("call_2", "get_weather", {"city": "Oslo"})]
PIXEL = base64.b64encode(
    base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
).decode()
KINDS = ("openai", "openai-compatible", "anthropic")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, cloud: Cloud) -> str:
    """A provider of each kind in turn, which `gpt` leads to."""
    added = cloud.provider(name="other", kind=request.param, timeouts={})
    assert added.status_code == 201, added.text
    cloud.route("other", [{"provider": "other", "model": "ok"}])
    return str(request.param)


def by_chat(cloud: Cloud, *, stream: bool, **more: Any) -> tuple[str, str, list[tuple[str, str, Any]], int]:
    """Text, thoughts, calls and prompt tokens, through the official client of /v1/chat/completions."""
    with openai.OpenAI(base_url=cloud.served.base_url, api_key="none", max_retries=0) as sdk:
        body: dict[str, Any] = {"model": "gpt", "messages": [{"role": "user", "content": "hi"}], **more}
        if not stream:
            answer = sdk.chat.completions.create(**body)
            message = answer.choices[0].message
            calls = [(c.id, c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls or ()]
            thoughts = getattr(message, "reasoning_content", None) or ""
            return message.content or "", thoughts, calls, answer.usage.prompt_tokens
        text, thoughts, num_tokens = "", "", 0
        parts: dict[int, list[str]] = {}
        for chunk in sdk.chat.completions.create(stream=True, stream_options={"include_usage": True}, **body):
            num_tokens = chunk.usage.prompt_tokens if chunk.usage else num_tokens
            for choice in chunk.choices:
                text += choice.delta.content or ""
                thoughts += getattr(choice.delta, "reasoning_content", None) or ""
                for call in choice.delta.tool_calls or ():
                    part = parts.setdefault(call.index, [call.id, call.function.name, ""])
                    part[2] += call.function.arguments or ""
        return text, thoughts, [(a, b, json.loads(c)) for a, b, c in parts.values()], num_tokens


def by_messages(cloud: Cloud, *, stream: bool, **more: Any) -> tuple[str, str, list[tuple[str, str, Any]], int]:
    """The same through the official client of /v1/messages."""
    base_url = cloud.served.base_url.removesuffix("/v1")
    with anthropic.Anthropic(base_url=base_url, api_key="none", max_retries=0) as sdk:
        body: dict[str, Any] = {
            "model": "gpt",
            "max_tokens": 4000,
            "messages": [{"role": "user", "content": "hi"}],
            **more,
        }
        if stream:
            with sdk.messages.stream(**body) as events:
                message = events.get_final_message()
        else:
            message = sdk.messages.create(**body)
    text = "".join(block.text for block in message.content if block.type == "text")
    thoughts = "".join(block.thinking for block in message.content if block.type == "thinking")
    calls = [(block.id, block.name, block.input) for block in message.content if block.type == "tool_use"]
    usage = message.usage
    return text, thoughts, calls, usage.input_tokens + (usage.cache_read_input_tokens or 0)


def by_responses(cloud: Cloud, *, stream: bool, **more: Any) -> tuple[str, str, list[tuple[str, str, Any]], int]:
    """The same through the official client of /v1/responses."""
    with openai.OpenAI(base_url=cloud.served.base_url, api_key="none", max_retries=0) as sdk:
        body: dict[str, Any] = {"model": "gpt", "input": "hi", **more}
        if stream:
            with sdk.responses.stream(**body) as events:
                answer = events.get_final_response()
        else:
            answer = sdk.responses.create(**body)
    calls = [
        (item.call_id, item.name, json.loads(item.arguments)) for item in answer.output if item.type == "function_call"
    ]
    thoughts = "".join(
        part.text for item in answer.output if item.type == "reasoning" for part in (item.summary or item.content or ())
    )
    assert answer.usage is not None
    return answer.output_text, thoughts, calls, answer.usage.input_tokens


OPENAI_TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
DIALECTS: dict[str, tuple[Callable[..., tuple[str, str, list[tuple[str, str, Any]], int]], dict[str, Any]]] = {
    "chat": (by_chat, {"tools": [OPENAI_TOOL]}),
    "messages": (by_messages, {"tools": [{"name": "get_weather", "input_schema": PARAMETERS}]}),
    "responses": (
        by_responses,
        {"tools": [{"type": "function", "name": "get_weather", "parameters": PARAMETERS, "strict": False}]},
    ),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_text_and_calls(cloud: Cloud, kind: str, dialect: str) -> None:
    ask, tools = DIALECTS[dialect]
    for stream in (False, True):
        text, _, calls, num_tokens = ask(cloud, stream=stream)
        assert (text, calls, num_tokens) == (SAID, [], 11)
        text, _, calls, num_tokens = ask(cloud, stream=stream, **tools)
        assert (text, calls, num_tokens) == ("", CALLS, 11)
    sent = cloud.upstream.bodies[-1]
    assert (sent["model"], sent["stream"]) == ("ok", True)
    tool = sent["tools"][0] if kind == "anthropic" else sent["tools"][0]["function"]
    assert tool["name"] == "get_weather"
    assert tool["input_schema" if kind == "anthropic" else "parameters"] == PARAMETERS
    shown = cloud.upstream.headers[-1]
    assert (shown.get("x-api-key") if kind == "anthropic" else shown["authorization"].split()[-1]) == KEY


def test_thinking(cloud: Cloud, kind: str) -> None:
    for stream in (False, True):
        text, thoughts, _, _ = by_chat(cloud, stream=stream, reasoning_effort="low")
        assert (text, thoughts) == (SAID, "I think")
        if kind == "anthropic":
            thinking = {"type": "enabled", "budget_tokens": 2000}
            text, thoughts, _, _ = by_messages(cloud, stream=stream, thinking=thinking)
            assert (text, thoughts) == (SAID, "I think")


WHAT = "What is this?"
PICTURES: dict[str, dict[str, Any]] = {
    "chat": {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    "messages": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
    "responses": {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "auto"},
}
THINKING: dict[str, dict[str, Any]] = {
    "chat": {"reasoning_effort": "low"},
    "messages": {"thinking": {"type": "enabled", "budget_tokens": 2000}},
    "responses": {"reasoning": {"effort": "low", "summary": "auto"}},
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("target", [*KINDS, "local"])
def test_pictures_tools_and_thinking_reach_everybody_from_every_dialect(
    cloud: Cloud, target: str, dialect: str
) -> None:
    if target == "local":
        cloud.route("other", [{"model": "caller"}])
    else:
        assert cloud.provider(name="other", kind=target, timeouts={}).status_code == 201
        cloud.route("other", [{"provider": "other", "model": "ok"}])
    ask, tools = DIALECTS[dialect]
    words = {"type": "input_text" if dialect == "responses" else "text", "text": WHAT}
    said = [{"role": "user", "content": [words, PICTURES[dialect]]}]
    body = {"input" if dialect == "responses" else "messages": said} | tools | THINKING[dialect]
    for stream in (False, True):
        assert ask(cloud, stream=stream, **body) == ("", "I think", CALLS, 11)
        if target == "local":
            prompt = cloud.served.last_request().prompt
            assert isinstance(prompt, ChatPrompt)
            assert [(said.text, len(said.images)) for said in prompt.messages] == [(WHAT, 1)]
            assert ([tool.name for tool in prompt.tools], prompt.thinking.is_enabled) == (["get_weather"], True)
            continue
        sent = cloud.upstream.bodies[-1]
        text, picture = sent["messages"][0]["content"]
        assert text == {"type": "text", "text": WHAT}
        if target == "anthropic":
            assert picture == PICTURES["messages"]
            assert sent["thinking"]["type"] == "enabled"
        else:
            assert picture["image_url"]["url"] == PICTURES["chat"]["image_url"]["url"]
            assert sent["reasoning_effort"] == "low"
        assert len(sent["tools"]) == 1


def test_a_conversation_with_everything(cloud: Cloud, kind: str) -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "user", "content": "And now?"},
    ]
    more = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 50, "stop": ["END"], "tools": [OPENAI_TOOL]}
    by_chat(cloud, stream=False, messages=messages, tool_choice="required", parallel_tool_calls=False, **more)
    sent = cloud.upstream.bodies[-1]
    assert (sent["temperature"], sent["top_p"]) == (0.5, 0.9)
    if kind == "anthropic":
        assert sent["system"] == [{"type": "text", "text": "Be brief."}]
        assert (sent["max_tokens"], sent["stop_sequences"]) == (50, ["END"])
        assert sent["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
        first, second, third = sent["messages"]
        assert first["content"][1]["source"] == {"type": "base64", "media_type": "image/png", "data": PIXEL}
        assert second["content"][1] == {
            "type": "tool_use",
            "id": "c1",
            "name": "get_weather",
            "input": {"city": "Rome"},
        }
        assert [block["type"] for block in third["content"]] == ["tool_result", "text"]
        return
    assert sent["max_completion_tokens" if kind == "openai" else "max_tokens"] == 50
    assert (sent["tool_choice"], sent["parallel_tool_calls"], sent["stop"]) == ("required", False, ["END"])
    assert [message["role"] for message in sent["messages"]] == ["system", "user", "assistant", "tool", "user"]
    assert sent["messages"][1]["content"][1]["image_url"]["url"] == f"data:image/png;base64,{PIXEL}"
    assert sent["messages"][2]["tool_calls"] == [call]
    assert sent["messages"][3]["tool_call_id"] == "c1"


UNKNOWN: dict[str, dict[str, Any]] = {
    "openai": {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "guided_regex": "a+"},
    "openai-compatible": {},
    "anthropic": {
        "n": 2,
        "seed": 1,
        "min_p": 0.1,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.5,
        "logit_bias": {"5": 1},
        "logprobs": True,
        "temperature": 1.5,
        "response_format": {"type": "json_object"},
    },
}
KNOWN: dict[str, Any] = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "guided_regex": "a+", "seed": 3}


def test_what_a_provider_does_not_know_is_refused_by_name(cloud: Cloud, kind: str) -> None:
    before = cloud.upstream.num_asked
    for name, value in UNKNOWN[kind].items():
        refused = cloud.ask(**{name: value})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, name), name
        assert "other" in refused.json()["error"]["message"]
    assert cloud.upstream.num_asked == before
    if kind == "openai-compatible":
        assert cloud.ask(**KNOWN).status_code == 200
        sent = cloud.upstream.bodies[-1]
        assert {name: sent[name] for name in KNOWN} == KNOWN


def test_videos_reach_open_servers_and_are_refused_for_the_others(cloud: Cloud, kind: str) -> None:
    film = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}
    frames = {"type": "video", "video": [f"data:image/png;base64,{PIXEL}", "https://example.org/b.jpg"]}
    before = cloud.upstream.num_asked
    asked = cloud.ask(messages=[{"role": "user", "content": [{"type": "text", "text": "What is it?"}, film, frames]}])
    if kind == "openai-compatible":
        assert asked.status_code == 200
        assert cloud.upstream.bodies[-1]["messages"][0]["content"][1:] == [film, frames]
        return
    assert (asked.status_code, asked.json()["error"]["code"]) == (400, "unsupported_parameter")
    assert "other takes no videos" in asked.json()["error"]["message"]
    assert cloud.upstream.num_asked == before


def test_a_schema_reaches_the_provider(cloud: Cloud, kind: str) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "city", "schema": PARAMETERS, "strict": True}}
    assert cloud.ask(response_format=schema).status_code == 200
    sent = cloud.upstream.bodies[-1]
    found = (
        sent["output_config"]["format"]["schema"]
        if kind == "anthropic"
        else sent["response_format"]["json_schema"]["schema"]
    )
    assert found == PARAMETERS


def test_signed_thoughts_go_back_to_who_signed_them(cloud: Cloud) -> None:
    cloud.provider(name="other", kind="anthropic")
    cloud.route("other", [{"provider": "other", "model": "ok"}])
    base_url = cloud.served.base_url.removesuffix("/v1")
    thinking = {"type": "enabled", "budget_tokens": 2000}
    with anthropic.Anthropic(base_url=base_url, api_key="none", max_retries=0) as sdk:
        messages: list[Any] = [{"role": "user", "content": "hi"}]
        first = sdk.messages.create(model="gpt", max_tokens=4000, messages=messages, thinking=thinking)  # type: ignore[call-overload]
        messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": "go on"}]
        sdk.messages.create(model="gpt", max_tokens=4000, messages=messages, thinking=thinking)  # type: ignore[call-overload]
    signed = {"type": "thinking", "thinking": "I think", "signature": "c2lnbmVk"}
    assert cloud.upstream.bodies[-1]["messages"][1]["content"][0] == signed


@pytest.mark.parametrize(
    ("thinking", "config", "sent"),
    [
        ({"type": "adaptive"}, {"effort": "high"}, {"type": "adaptive"}),
        ({"type": "enabled", "budget_tokens": 3000}, None, {"type": "enabled", "budget_tokens": 3000}),
        ({"type": "enabled", "budget_tokens": 9000}, None, {"type": "enabled", "budget_tokens": 3999}),
        ({"type": "enabled", "budget_tokens": 5}, None, {"type": "enabled", "budget_tokens": 1024}),
        ({"type": "disabled"}, None, {"type": "disabled"}),
    ],
)
def test_thinking_is_asked_for_as_the_client_asks(
    cloud: Cloud, thinking: dict[str, Any], config: dict[str, Any] | None, sent: dict[str, Any]
) -> None:
    cloud.provider(name="other", kind="anthropic")
    cloud.route("other", [{"provider": "other", "model": "ok"}])
    body = {"model": "gpt", "max_tokens": 4000, "messages": [{"role": "user", "content": "hi"}], "thinking": thinking}
    answer = cloud.client.post("/v1/messages", json=body | ({"output_config": config} if config else {}))
    assert answer.status_code == 200
    asked = cloud.upstream.bodies[-1]
    assert (asked["thinking"], asked.get("output_config")) == (sent, config)


@pytest.mark.parametrize(
    ("asked", "budget", "max_tokens"),
    [
        ({"reasoning_effort": "high"}, 16384, 16384 + 8192),
        ({"reasoning_effort": "max"}, 23808, 32_000),
        ({"reasoning_effort": "high", "max_tokens": 8000}, 4000, 8000),
        ({"reasoning_effort": "low", "max_tokens": 1500}, None, 1500),
        ({"enable_thinking": True}, 8192, 8192 + 8192),
    ],
)
def test_thinking_leaves_room_for_the_answer(
    cloud: Cloud, asked: dict[str, Any], budget: int | None, max_tokens: int
) -> None:
    cloud.provider(name="other", kind="anthropic")
    cloud.route("other", [{"provider": "other", "model": "ok"}])
    assert cloud.ask(**asked).status_code == 200
    sent = cloud.upstream.bodies[-1]
    assert (sent.get("thinking", {}).get("budget_tokens"), sent["max_tokens"]) == (budget, max_tokens)


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("temperature", 0.2, 1),
        ("top_p", 0.5, 0.95),
        ("top_k", 5, 0),
        ("tool_choice", "required", "auto"),
    ],
)
def test_what_does_not_go_with_thinking_is_refused_by_name(cloud: Cloud, name: str, wrong: Any, right: Any) -> None:
    cloud.provider(name="other", kind="anthropic")
    cloud.route("other", [{"provider": "other", "model": "ok"}])
    before = cloud.upstream.num_asked
    refused = cloud.ask(reasoning_effort="low", tools=[OPENAI_TOOL], **{name: wrong})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, name)
    assert cloud.upstream.num_asked == before
    assert cloud.ask(reasoning_effort="low", tools=[OPENAI_TOOL], **{name: right}).status_code == 200
    assert cloud.ask(tools=[OPENAI_TOOL], **{name: wrong}).status_code == 200


@pytest.mark.parametrize(("budget", "effort"), [(1024, "low"), (4000, "low"), (10_000, "medium"), (31_999, "high")])
def test_a_budget_is_told_as_an_effort(cloud: Cloud, budget: int, effort: str) -> None:
    cloud.lead("ok")
    body = {"model": "gpt", "max_tokens": 64_000, "messages": [{"role": "user", "content": "hi"}]}
    thinking = {"type": "enabled", "budget_tokens": budget}
    assert cloud.client.post("/v1/messages", json=body | {"thinking": thinking}).status_code == 200
    assert cloud.upstream.bodies[-1]["reasoning_effort"] == effort
    assert cloud.client.post("/v1/messages", json=body).status_code == 200
    assert "reasoning_effort" not in cloud.upstream.bodies[-1]
    assert cloud.ask(reasoning_effort="none").status_code == 200
    assert cloud.upstream.bodies[-1]["reasoning_effort"] == "none"


def test_pictures_of_results_are_shown_behind_them(cloud: Cloud) -> None:
    cloud.lead("ok")
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    calls = [{"type": "tool_use", "id": name, "name": "look", "input": {}} for name in "ab"]
    results = [
        {"type": "tool_result", "tool_use_id": "a", "content": [picture]},
        {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "done"}, picture]},
    ]
    hi: list[dict[str, Any]] = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": calls}]
    shown = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    told = [{"type": "text", "text": f"The tool call {name} showed:"} for name in "ab"]
    behind = [told[0], shown, told[1], shown]
    for said in ([], [{"type": "text", "text": "And?"}]):
        body = {"model": "gpt", "max_tokens": 50, "messages": [*hi, {"role": "user", "content": [*results, *said]}]}
        assert cloud.client.post("/v1/messages", json=body).status_code == 200
        first, second, user = cloud.upstream.bodies[-1]["messages"][2:]
        assert (first["role"], first["content"]) == ("tool", "Shown in the next message.")
        assert (second["role"], second["content"]) == ("tool", "done")
        assert (user["role"], user["content"]) == ("user", [*behind, *said])


def test_what_another_model_thought_stays_away_and_system_messages_go_first(cloud: Cloud) -> None:
    cloud.provider(name="other", kind="anthropic")
    cloud.route("other", [{"provider": "other", "model": "ok"}])
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "ho", "reasoning_content": "hm"},
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "go on"},
    ]
    assert cloud.ask(messages=messages).status_code == 200
    sent = cloud.upstream.bodies[-1]
    assert sent["system"] == [{"type": "text", "text": "Be brief."}]
    assert [turn["role"] for turn in sent["messages"]] == ["user", "assistant", "user"]
    assert sent["messages"][1]["content"] == [{"type": "text", "text": "ho"}]


def test_a_document_goes_as_it_is_to_those_who_take_documents_and_else_as_its_text(cloud: Cloud, kind: str) -> None:
    packed = base64.b64encode(pdf("The capital of France is Paris.")).decode()
    url = f"data:application/pdf;base64,{packed}"
    part = {"type": "file", "file": {"file_data": url, "filename": "a.pdf"}}
    assert cloud.ask(messages=[{"role": "user", "content": [part]}]).status_code == 200
    (said,) = cloud.upstream.bodies[-1]["messages"]
    source = {"type": "base64", "media_type": "application/pdf", "data": packed}
    expected: dict[str, Any] = {
        "openai": [part],
        "openai-compatible": "a.pdf\nThe capital of France is Paris.",
        "anthropic": [{"type": "document", "source": source, "title": "a.pdf"}],
    }
    assert said["content"] == expected[kind]


def test_the_address_of_a_document_goes_to_those_who_fetch_and_is_else_refused(cloud: Cloud, kind: str) -> None:
    source = {"type": "url", "url": "https://example.com/a.pdf"}
    part = {"type": "document", "source": source, "title": "a.pdf"}
    body = {"model": "gpt", "max_tokens": 9, "messages": [{"role": "user", "content": [part]}]}
    answer = cloud.client.post("/v1/messages", json=body)
    if kind == "anthropic":
        assert answer.status_code == 200, answer.text
        assert cloud.upstream.bodies[-1]["messages"][0]["content"] == [part]
    else:
        assert answer.status_code == 400
        assert "takes no documents by address" in answer.json()["error"]["message"]
