"""Responses that are kept: asked for again, gone on with, deleted, and gone when their room was needed."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from msgspec import structs

from mlx_manager.backends.scripted import script_of
from mlx_manager.errors import ResponseNotFound
from mlx_manager.gateway import MemoryResponses, OwnResponses
from mlx_manager.ir import ChatPrompt
from mlx_manager.protocols.openai.responses import StoredResponse
from tests.http.scripted_server import HELLO, TEXT, Serve, Served
from tests.http.test_responses import CALLS, CUT, PATH, WEATHER, sdk


def said(served: Served) -> list[tuple[str, str]]:
    """Role and text of the messages that reached the backend last."""
    prompt = served.last_request().prompt
    assert isinstance(prompt, ChatPrompt)
    return [(message.role.value, message.text) for message in prompt.messages]


def test_a_response_is_kept_as_it_was(served: Served) -> None:
    with sdk(served) as client:
        made = client.responses.create(model="m", input="hi", metadata={"k": "v"})
        assert client.responses.retrieve(made.id) == made
        streamed = list(client.responses.create(model="m", input="hi", stream=True))[-1]
        assert streamed.type == "response.completed"
        assert client.responses.retrieve(streamed.response.id) == streamed.response


def test_one_that_is_not_to_be_kept_is_not(served: Served) -> None:
    with sdk(served) as client:
        made = client.responses.create(model="m", input="hi", store=False)
        assert made.model_extra is not None
        assert made.model_extra["store"] is False
        with pytest.raises(openai.NotFoundError, match="store: false"):
            client.responses.retrieve(made.id)


def test_a_conversation_goes_on_from_the_last_response(served: Served) -> None:
    with sdk(served) as client:
        first = client.responses.create(model="m", input="one", instructions="be brief")
        second = client.responses.create(model="m", input="two", previous_response_id=first.id)
        assert said(served) == [("user", "one"), ("assistant", TEXT), ("user", "two")], "instructions are not kept"
        third = client.responses.create(
            model="m", input="three", previous_response_id=second.id, instructions="be long"
        )
    assert said(served) == [
        ("system", "be long"),
        *(("user", "one"), ("assistant", TEXT)),
        *(("user", "two"), ("assistant", TEXT)),
        ("user", "three"),
    ]
    assert third.previous_response_id == second.id


def test_calls_are_answered_by_their_ids_alone(serve: Serve) -> None:
    served = serve({"m": CALLS})
    output: Any = [{"type": "function_call_output", "call_id": "call_a", "output": "sunny"}]
    with sdk(served) as client:
        made = client.responses.create(model="m", input="Paris?", tools=[WEATHER])  # type: ignore[list-item]
        client.responses.create(model="m", input=output, previous_response_id=made.id)
    prompt = served.last_request().prompt
    assert isinstance(prompt, ChatPrompt)
    user, assistant, tool = prompt.messages
    assert (user.text, tool.text, tool.name) == ("Paris?", "sunny", "get_weather")
    assert (assistant.reasoning, assistant.text) == ("two calls", "Let me look.")
    assert [(call.call_id, call.name) for call in assistant.tool_calls] == [
        ("call_a", "get_weather"),
        ("call_b", "agents__spawn"),
    ]


def test_a_call_that_was_cut_is_not_gone_on_with(serve: Serve) -> None:
    served = serve({"m": CUT})
    with sdk(served) as client:
        made = client.responses.create(model="m", input="one")
        client.responses.create(model="m", input="two", previous_response_id=made.id)
    assert said(served) == [("user", "one"), ("user", "two")]


def test_items_are_referred_to_by_their_ids(served: Served) -> None:
    with sdk(served) as client:
        made = client.responses.create(model="m", input="one")
        (asked,) = client.responses.input_items.list(made.id).data
        items: Any = [
            {"type": "item_reference", "id": asked.id},
            {"id": made.output[0].id},
            {"role": "user", "content": "two"},
        ]
        client.responses.create(model="m", input=items)
    assert said(served) == [("user", "one"), ("assistant", TEXT), ("user", "two")]


def test_input_items_are_listed_in_pages(served: Served) -> None:
    items: Any = [{"role": "user", "content": f"{number}"} for number in range(5)]
    with sdk(served) as client:
        first = client.responses.create(model="m", input=items[:2])
        made = client.responses.create(model="m", input=items[2:], previous_response_id=first.id)

        def texts(**asked: Any) -> list[str]:
            page = client.responses.input_items.list(made.id, **asked)
            assert page.has_next_page() == (len(page.data) == asked.get("limit", 20))
            listed: Any = list(page)
            return [item.content[0].text for item in listed]

        assert texts(order="asc") == ["0", "1", TEXT, "2", "3", "4"]
        assert texts() == ["4", "3", "2", TEXT, "1", "0"]
        assert texts(limit=4) == ["4", "3", "2", TEXT, "1", "0"], "the SDK asks for the next page by itself"
        with pytest.raises(openai.BadRequestError, match="after"):
            client.responses.input_items.list(made.id, after="msg_x")
        with pytest.raises(openai.BadRequestError, match="limit"):
            client.responses.input_items.list(made.id, limit=101)


def test_a_deleted_response_is_gone(served: Served) -> None:
    with sdk(served) as client:
        made = client.responses.create(model="m", input="one")
        client.responses.delete(made.id)
        for again in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
            with pytest.raises(openai.NotFoundError, match="not stored here"):
                again(made.id)
        with pytest.raises(openai.NotFoundError, match="previous_response_id"):
            client.responses.create(model="m", input="two", previous_response_id=made.id)


def test_a_stored_response_is_not_streamed_again(served: Served) -> None:
    with served.http() as client:
        made = client.post(PATH, json={"model": "m", "input": "hi"}).json()
        answer = client.get(f"{PATH}/{made['id']}", params={"stream": True})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "stream")


def kept(number: int, num_bytes: int = 100) -> StoredResponse:
    item = f'[{{"id": "msg_{number}", "type": "message"}}]'.encode()
    body = b'{"output": []}'
    padding = b" " * (num_bytes - len(item) - len(body))
    return StoredResponse(
        id=f"resp_{number}", created_unix_s=0, previous_response_id=None, body=body + padding, input_items=item
    )


async def test_the_least_recently_used_makes_room() -> None:
    store = MemoryResponses(max_responses=3, max_bytes=1000)
    for number in range(3):
        await store.put(kept(number))
    assert await store.get("resp_0") is not None
    await store.put(kept(3))
    assert [await store.get(f"resp_{number}") is not None for number in range(4)] == [True, False, True, True]
    own = OwnResponses(store, None)
    assert await own.find_item("msg_1") is None
    assert await own.find_item("msg_3") == {"id": "msg_3", "type": "message"}


async def test_what_others_have_stored_is_not_there() -> None:
    store = MemoryResponses()
    await store.put(structs.replace(kept(1), owner=1))
    mine, theirs, of_nobody = (OwnResponses(store, owner) for owner in (1, 2, None))
    assert (await mine.get("resp_1", param="response_id")).id == "resp_1"
    assert await mine.earlier_items("resp_1") == [{"id": "msg_1", "type": "message"}]
    for others in (theirs, of_nobody):
        with pytest.raises(ResponseNotFound):
            await others.get("resp_1", param="response_id")
        with pytest.raises(ResponseNotFound):
            await others.earlier_items("resp_1")
        assert await others.find_item("msg_1") is None


async def test_bytes_are_bounded_and_given_back() -> None:
    store = MemoryResponses(max_responses=100, max_bytes=1000)
    for number in range(10):
        await store.put(kept(number))
        await store.put(kept(number))
    assert await store.get("resp_0") is not None, "the same response twice counts once"
    await store.put(kept(10, num_bytes=950))
    assert await store.get("resp_9") is None
    await store.put(kept(11, num_bytes=1001))
    assert await store.get("resp_11") is None, "it has no room at all"
    assert await store.get("resp_10") is not None, "and makes no other go"


def test_a_conversation_goes_on_after_a_restart(serve: Serve) -> None:
    first = serve({"m": script_of(HELLO)})
    with sdk(first) as client:
        made = client.responses.create(model="m", input="one", metadata={"k": "v"})
    first.stop()
    again = serve({"m": script_of(HELLO)})
    with sdk(again) as client:
        assert client.responses.retrieve(made.id) == made
        client.responses.create(model="m", input="two", previous_response_id=made.id)
        assert said(again) == [("user", "one"), ("assistant", TEXT), ("user", "two")]
    again.stop()
    forgetful = serve({"m": script_of(HELLO)}, responses_max_age=0)
    with sdk(forgetful) as client, pytest.raises(openai.NotFoundError, match="when the server stopped"):
        client.responses.retrieve(made.id)
