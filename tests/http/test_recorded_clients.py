"""Requests that real clients really sent (prose replaced by filler), replayed byte for byte in shape.

`recorded/` holds one request a file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mlx_manager.backends.scripted import script_of
from mlx_manager.ir import ChatPrompt, Message
from tests.http.scripted_server import HELLO, Serve

RECORDED = sorted((Path(__file__).parent / "recorded").glob("*.json"))
REFUSED = {
    "python-sdks--sdk_all--09": "echo",
}


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: file.stem)
def test_recorded_request(serve: Serve, file: Path) -> None:
    recorded: dict[str, Any] = json.loads(file.read_text())
    served = serve({"m": script_of(HELLO), "fake-model": script_of(HELLO)})
    # the client's own length belongs to the body as it was before the filler
    headers = {key: value for key, value in recorded["headers"].items() if key not in ("content-length", "host")}
    body = recorded["body"]
    with served.http() as client:
        answer = client.request(recorded["method"], recorded["path"], headers=headers, json=body)
    refused = next((param for prefix, param in REFUSED.items() if file.stem.startswith(prefix)), None)
    if refused is not None:
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "unsupported_parameter"
        assert answer.json()["error"]["param"] == refused
        return
    assert answer.status_code == 200, answer.text
    assert "x-mlx-manager-ignored" not in answer.headers
    if body is not None:
        prompt = served.last_request().prompt
        assert isinstance(prompt, ChatPrompt)
        assert len(prompt.messages) == len(body["messages"])
        assert [tool.name for tool in prompt.tools] == [tool["function"]["name"] for tool in body.get("tools", ())]
        assert _calls_of(prompt.messages) == [
            (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
            for message in body["messages"]
            for call in message.get("tool_calls", ())
        ]
        form = "text/event-stream" if body.get("stream") else "application/json"
        assert answer.headers["content-type"].startswith(form)


def _calls_of(messages: Sequence[Message]) -> list[tuple[str, str, Any]]:
    return [
        (call.call_id, call.name, json.loads(call.arguments)) for message in messages for call in message.tool_calls
    ]


def test_there_is_something_to_replay() -> None:
    assert len(RECORDED) > 10
    assert all(any(file.stem.startswith(prefix) for file in RECORDED) for prefix in REFUSED)
