"""Requests of the OpenAI dialect that real clients really sent, replayed byte for byte in shape."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_manager.backends.scripted import Step, script_of
from mlx_manager.catalog.settings import load_settings
from mlx_manager.ir import ChatPrompt, Message, Vectors
from tests.http.scripted_server import HELLO, TEXT, Recorder, Served, Shelf, running

FOLDER = Path(__file__).parents[1] / "data" / "clients"
RECORDED = [file for file in sorted(FOLDER.glob("*.json")) if "_messages" not in file.stem]
REFUSED = {
    "python-sdks--sdk_all--09": "echo",
}
IGNORED = {"codex": "tools?8?"}
"""Codex offers a search of the web in every request."""
MODELS = ("m", "fake-model", "local-model", "gpt-5.1-codex", "gpt-oss:20b")
VECTORS = Vectors(num_dimensions=2, values=np.array([[1, 0], [0, 1]], "<f4").tobytes(), num_prompt_tokens=4)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[bool, Served]]:
    """By whether its models embed, a server for all requests."""
    with ExitStack() as stack:
        found = {}
        scripts: tuple[tuple[bool, tuple[Step, ...]], ...] = ((True, (VECTORS,)), (False, script_of(HELLO)))
        for embeds, script in scripts:
            settings = load_settings({}, {"home": str(tmp_path_factory.mktemp("home")), "port": 0})
            backend = Recorder(dict.fromkeys(MODELS, script))
            found[embeds] = stack.enter_context(running(settings, backend, Shelf()))
        yield found


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: file.stem)
def test_recorded_request(servers: Mapping[bool, Served], file: Path) -> None:
    recorded: dict[str, Any] = json.loads(file.read_text())
    path, body = recorded["path"], recorded["body"]
    embeds = path.endswith("/embeddings")
    served = servers[embeds]
    # the client's own length belongs to the body as it was before the filler
    headers = {key: value for key, value in recorded["headers"].items() if key not in ("content-length", "host")}
    with served.http() as client:
        answer = client.request(recorded["method"], path, headers=headers, json=body)
    refused = next((param for prefix, param in REFUSED.items() if file.stem.startswith(prefix)), None)
    if refused is not None:
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "unsupported_parameter"
        assert answer.json()["error"]["param"] == refused
        return
    assert answer.status_code == 200, answer.text
    has_tools = bool((body or {}).get("tools"))
    ignored = next((what for prefix, what in IGNORED.items() if file.stem.startswith(prefix) and has_tools), None)
    assert answer.headers.get("x-mlx-manager-ignored") == ignored
    if body is None:
        return
    form = "text/event-stream" if body.get("stream") else "application/json"
    assert answer.headers["content-type"].startswith(form)
    if path.endswith("/chat/completions"):
        _check_chat(served, body)
    elif path.endswith("/responses"):
        _check_response(served, body, answer.text)
    else:
        assert embeds
        assert len(answer.json()["data"]) == 2


def _check_chat(served: Served, body: dict[str, Any]) -> None:
    prompt = served.last_request().prompt
    assert isinstance(prompt, ChatPrompt)
    assert len(prompt.messages) == len(body["messages"])
    assert [tool.name for tool in prompt.tools] == [tool["function"]["name"] for tool in body.get("tools", ())]
    assert _calls_of(prompt.messages) == [
        (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
        for message in body["messages"]
        for call in message.get("tool_calls", ())
    ]


def _check_response(served: Served, body: dict[str, Any], text: str) -> None:
    prompt = served.last_request().prompt
    assert isinstance(prompt, ChatPrompt)
    tools = [
        f"{tool['name']}__{nested['name']}" if nested else tool["name"]
        for tool in body.get("tools", ())
        if tool["type"] != "web_search"
        for nested in tool.get("tools", (None,))
    ]
    assert [tool.name for tool in prompt.tools] == tools
    items = [{"role": "user", "content": body["input"]}] if isinstance(body["input"], str) else body["input"]
    num_pictures = sum(part["type"] == "input_image" for item in items for part in _parts(item))
    assert sum(len(message.images) for message in prompt.messages) == num_pictures
    assert _calls_of(prompt.messages) == [
        (item["call_id"], item["name"], json.loads(item["arguments"]))
        for item in items
        if item.get("type") == "function_call"
    ]
    said = [item for item in items if item.get("type") not in ("function_call", "function_call_output")]
    assert len([message for message in prompt.messages if not (message.tool_calls or message.tool_call_id)]) == len(
        said
    ) + bool(body.get("instructions"))
    response = json.loads(text.rsplit("data: ", 1)[1])["response"] if body.get("stream") else json.loads(text)
    assert response["status"] == "completed"
    assert response["output"][0]["content"][0]["text"] == TEXT
    assert response["store"] is body.get("store", True)


def _parts(item: dict[str, Any]) -> list[dict[str, Any]]:
    content = item.get("content")
    return content if isinstance(content, list) else []


def _calls_of(messages: Sequence[Message]) -> list[tuple[str, str, Any]]:
    return [
        (call.call_id, call.name, json.loads(call.arguments)) for message in messages for call in message.tool_calls
    ]


def test_there_is_something_to_replay() -> None:
    assert len(RECORDED) > 50
    assert all(any(file.stem.startswith(prefix) for file in RECORDED) for prefix in (*REFUSED, *IGNORED))
