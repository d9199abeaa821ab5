"""What the messages, blocks and tools of Anthropic's dialect become, and what of them is refused by its place."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from mlx_manager.backends.scripted import script_of
from mlx_manager.catalog.settings import load_settings
from mlx_manager.ir import ChatPrompt, ImageContent, Message, Role, TextContent, ToolCall
from mlx_manager.protocols.anthropic import signature
from tests.http.marks import unmarked
from tests.http.scripted_server import HELLO, Recorder, Served, Shelf, running

PATH = "/v1/messages"
PNG = b"\x89PNG\r\n"
PICTURE = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PNG).decode()}
MARK = {"cache_control": {"type": "ephemeral"}}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"ü": [1, None]}}
CALLED = [{"role": "user", "content": "go"}, {"role": "assistant", "content": [CALL]}]
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"q": {"type": "string"}}}
TOOL = {"name": "f", "description": "Does f", "input_schema": SCHEMA}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = load_settings({}, {"home": str(tmp_path_factory.mktemp("home")), "port": 0})
    with running(settings, Recorder({"m": script_of(HELLO)}), Shelf()) as server:
        yield server


def post(served: Served, messages: list[Any], **sent: Any) -> httpx.Response:
    with served.http() as client:
        return client.post(PATH, json={"model": "m", "max_tokens": 9, "messages": messages} | sent)


def prompt_of(served: Served, messages: list[Any], **sent: Any) -> ChatPrompt:
    answer = post(served, messages, **sent)
    assert answer.status_code == 200, answer.text
    prompt = served.last_request().prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said} | more


def result(content: Any, call_id: str = "toolu_1", **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content} | more


def said(role: Role, *texts: str, **more: Any) -> Message:
    return Message(role=role, content=tuple(TextContent(each) for each in texts), **more)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (text("hi"), [TextContent("hi")]),
        (text(""), []),
        ({"type": "image", "source": PICTURE}, [ImageContent(data=PNG, media_type="image/png")]),
        ({"type": "image", "source": {"type": "url", "url": "https://x/y"}}, [ImageContent(url="https://x/y")]),
        (
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "A"}, "title": "T"},
            [TextContent("T"), TextContent("A")],
        ),
        (
            {
                "type": "document",
                "source": {"type": "content", "content": [text("A"), {"type": "image", "source": PICTURE}]},
            },
            [TextContent("A"), ImageContent(data=PNG, media_type="image/png")],
        ),
        ({"type": "document", "source": {"type": "content", "content": "A"}}, [TextContent("A")]),
        (
            {"type": "search_result", "source": "https://x", "title": "T", "content": [text("A"), text("B")]},
            [TextContent("T (https://x)\nA\nB")],
        ),
    ],
)
def test_blocks_of_a_user(served: Served, block: dict[str, Any], expected: list[Any]) -> None:
    prompt = prompt_of(served, [user(block)])
    assert list(prompt.messages[0].content) == expected


def test_a_whole_conversation(served: Served) -> None:
    thinking = {"type": "thinking", "thinking": "Hm.", "signature": "of-another-provider"}
    prompt = prompt_of(
        served,
        [
            user(text("go")),
            {"role": "system", "content": "Now quickly."},
            {"role": "assistant", "content": [thinking, text("I call."), CALL, CALL | {"id": "toolu_2"}]},
            user(
                text("see"),
                result([text("A"), {"type": "image", "source": PICTURE}], is_error=True),
                result("", "toolu_2"),
            ),
        ],
        system=[text("One."), text("Two.", **MARK)],
        tools=[TOOL],
    )
    calls = tuple(ToolCall(call_id=f"toolu_{i}", name="f", arguments='{"ü": [1, null]}') for i in (1, 2))
    assert prompt.messages == (
        Message(role=Role.SYSTEM, content=(TextContent("One."), TextContent("Two.", cache_ttl="5m"))),
        said(Role.USER, "go"),
        said(Role.SYSTEM, "Now quickly."),
        said(Role.ASSISTANT, "I call.", reasoning="Hm.", reasoning_signature="of-another-provider", tool_calls=calls),
        Message(
            role=Role.TOOL,
            content=(TextContent("A"), ImageContent(data=PNG, media_type="image/png")),
            name="f",
            tool_call_id="toolu_1",
            is_error=True,
        ),
        Message(role=Role.TOOL, name="f", tool_call_id="toolu_2"),
        said(Role.USER, "see"),
    )
    assert not prompt.continue_final_message


def test_turns_of_one_role_in_a_row_are_one_turn(served: Served) -> None:
    prompt = prompt_of(
        served, [user(text("a")), user(text("b")), {"role": "assistant", "content": "c"}, user(text("d"))]
    )
    assert prompt.messages == (said(Role.USER, "a", "b"), said(Role.ASSISTANT, "c"), said(Role.USER, "d"))


def test_an_assistants_last_message_is_gone_on_with(served: Served) -> None:
    prompt = prompt_of(served, [user(text("a")), {"role": "assistant", "content": "Well"}])
    assert prompt.continue_final_message
    empty = prompt_of(served, [user(text("a")), {"role": "assistant", "content": []}])
    assert (empty.messages, empty.continue_final_message) == ((said(Role.USER, "a"),), False)


@pytest.mark.parametrize("thought", ["", "Hm. 🌍"])
def test_a_signature_of_ours_gives_back_what_was_thought(served: Served, thought: str) -> None:
    block = {"type": "thinking", "thinking": "", "signature": signature.sign(thought)}
    prompt = prompt_of(served, [user(text("a")), {"role": "assistant", "content": [block, text("b")]}, user(text("c"))])
    assert prompt.messages[1] == said(Role.ASSISTANT, "b", reasoning=thought)


@pytest.mark.parametrize("signed", ["", "x", "mlxm1.", "mlxm1.%%%", signature.sign("Hm.")[:-6], "mlxm1.\u00fc"])
def test_a_signature_that_nobody_can_read_is_no_error(served: Served, signed: str) -> None:
    blocks = [
        {"type": "thinking", "thinking": "", "signature": signed},
        {"type": "redacted_thinking", "data": "sealed"},
        text("b"),
    ]
    prompt = prompt_of(served, [user(text("a")), {"role": "assistant", "content": blocks}, user(text("c"))])
    assert prompt.messages[1].reasoning == ""


BILLING = "x-anthropic-billing-header: cc_version=2.1.330.{}; cc_entrypoint=sdk-cli; cch={};"
BUDGETS = (
    "\n<total_tokens>14,999,436 tokens left</total_tokens>",
    "<system-reminder>\nToken usage: 1200/200000; 198800 remaining\n</system-reminder>",
    "<system_warning>Token usage: 7/10; 3 remaining</system_warning>",
    "<budget:token_budget>200000</budget:token_budget>",
)


def test_the_same_conversation_is_the_same_prompt_whatever_a_client_writes_around_it(served: Served) -> None:
    plain = prompt_of(served, [{"role": "user", "content": "hi"}], system="Be brief.")
    marked = prompt_of(
        served,
        [user(text("hi", **MARK))],
        system=[text(BILLING.format("1a", "36ee5")), text("Be brief.", **MARK)],
    )
    other = prompt_of(
        served,
        [user(text("hi"), *(text(budget) for budget in BUDGETS))],
        system=[text(BILLING.format("2b", "0aaa9")), text("Be brief." + BUDGETS[0] * 3)],
    )
    one_text = prompt_of(served, [{"role": "user", "content": "hi"}], system=BILLING.format("3", "4") + "\nBe brief.")
    assert unmarked(plain) == unmarked(marked) == unmarked(other) == unmarked(one_text)
    assert marked != plain


def test_what_only_looks_like_a_nonce_stays(served: Served) -> None:
    kept = ["What is <total_tokens>?", "Token usage: 1/2; 1 remaining", "My x-anthropic-billing-header: cc"]
    prompt = prompt_of(served, [user(*map(text, kept))])
    assert prompt.messages == (said(Role.USER, *kept),)


def test_a_system_message_for_one_turn_is_gone_in_the_next(served: Served) -> None:
    once = {"role": "system", "content": "Once.", "clear_at": "next_user_message"}
    prompt = prompt_of(served, [user(text("a")), once])
    assert [message.text for message in prompt.messages] == ["a", "Once."]
    prompt = prompt_of(served, [user(text("a")), once, {"role": "assistant", "content": "b"}, user(text("c"))])
    assert [message.text for message in prompt.messages] == ["a", "b", "c"]
    prompt = prompt_of(served, [user(text("a")), {"role": "system", "output_config": {"effort": "low"}}])
    assert [message.text for message in prompt.messages] == ["a"]


def test_a_deferred_tool_is_told_of_where_it_is_found(served: Served) -> None:
    tools = [TOOL, TOOL | {"name": "later", "defer_loading": True}, TOOL | {"name": "never", "defer_loading": True}]
    assert [tool.name for tool in prompt_of(served, [user(text("a"))], tools=tools).tools] == ["f"]
    found = [*CALLED, user(result([{"type": "tool_reference", "tool_name": "later"}]))]
    prompt = prompt_of(served, found, tools=tools)
    assert [(tool.name, tool.is_deferred) for tool in prompt.tools] == [("f", False), ("later", True)]
    described = json.loads(prompt.messages[-1].text)["function"]
    assert (described["name"], described["parameters"]) == ("later", SCHEMA)
    unknown = post(served, [*CALLED, user(result([{"type": "tool_reference", "tool_name": "none"}]))], tools=tools)
    assert unknown.status_code == 400
    assert "messages[2].content[0].content[0].tool_name" in unknown.json()["error"]["message"]


def test_without_a_search_of_the_clients_own_no_tool_is_deferred(served: Served) -> None:
    search = {"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"}
    prompt = prompt_of(served, [user(text("a"))], tools=[search, TOOL | {"defer_loading": True}])
    assert [(tool.name, tool.is_deferred) for tool in prompt.tools] == [("f", False)]


def test_tools_come_and_go_in_the_middle(served: Served) -> None:
    def change(kind: str, **tool: Any) -> dict[str, Any]:
        return {"role": "system", "content": [{"type": kind, "tool": tool}]}

    tools = [TOOL, TOOL | {"name": "later", "defer_loading": True}]
    added = prompt_of(
        served, [user(text("a")), change("tool_addition", type="tool_reference", name="later")], tools=tools
    )
    assert [tool.name for tool in added.tools] == ["f", "later"]
    defined = change("tool_addition", type="tool_definition", definition=TOOL | {"name": "new"})
    assert [tool.name for tool in prompt_of(served, [user(text("a")), defined], tools=tools).tools] == ["f", "new"]
    removed = change("tool_removal", type="tool_reference", name="f")
    assert prompt_of(served, [user(text("a")), removed], tools=tools).tools == ()


def test_calls_of_the_providers_own_tools_are_told_as_they_were(served: Served) -> None:
    found = {"type": "web_search_result", "title": "T", "encrypted_content": "sealed"}
    blocks = [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": [found]},
        text("b"),
    ]
    prompt = prompt_of(served, [user(text("a")), {"role": "assistant", "content": blocks}, user(text("c"))])
    told = [json.loads(line) for line in prompt.messages[1].text.split("\n")[:2]]
    assert told[0] == {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}}
    assert told[1]["content"] == [{"type": "web_search_result", "title": "T"}]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([user(result("orphan"))], "messages[0].content[0].tool_use_id"),
        ([*CALLED, user(result("a"), result("b"))], "messages[2].content[1].tool_use_id"),
        ([*CALLED, user(result("a")), {"role": "assistant", "content": [CALL]}], "messages[3].content[0].id"),
        (CALLED, "messages end with a tool_use"),
        ([user({"type": "hologram"})], "messages[0].content[0].type"),
        ([user({"text": "no type"})], "messages[0].content[0].type"),
        ([user("not a block")], "messages[0].content[0]"),
        ([user({"type": "text"})], "messages[0].content[0].text"),
        ([user({"type": "thinking", "thinking": "a"})], "messages[0].content[0] cannot be of type thinking"),
        ([user(CALL)], "messages[0].content[0] cannot be of type tool_use"),
        ([user({"type": "image", "source": PICTURE | {"data": "***"}})], "messages[0].content[0].source.data"),
        ([user({"type": "image", "source": {"type": "base64"}})], "messages[0].content[0].source.data"),
        ([user({"type": "image", "source": {"type": "file", "file_id": "f"}})], "messages[0].content[0].source.type"),
        ([user({"type": "image"})], "messages[0].content[0].source"),
        (
            [user({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}})],
            "messages[0].content[0].source.data is no PDF file",
        ),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "tool", "content": "a"}], "messages[0].role"),
        ([{"role": "assistant", "content": []}], "messages hold nothing"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_place(served: Served, messages: list[Any], param: str) -> None:
    answer = post(served, messages)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"].startswith(param), answer.text


@pytest.mark.parametrize("content", ["", [], [text("")], [text("   ")]])
def test_empty_content_is_an_empty_turn(served: Served, content: Any) -> None:
    assert len(prompt_of(served, [{"role": "user", "content": content}]).messages) == 1
