"""Requests of Anthropic's dialect that real clients really sent, replayed as they were."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlx_manager.backends.scripted import script_of
from mlx_manager.catalog.settings import load_settings
from mlx_manager.ir import ChatPrompt, PartKind, Tokens
from tests.http.marks import unmarked
from tests.http.scripted_server import HELLO, TEXT, Recorder, Served, Shelf, running

FOLDER = Path(__file__).parents[1] / "data" / "clients"
RECORDED = [file for file in sorted(FOLDER.glob("*_messages*.json"))]
MODELS = ("m", "fake-model", "mlx-community/Qwen3-0.6B-4bit", "local", "local-vlm", "claude-opus-5-5")
TURNS = [
    ("claude-code-2.1.330--bash-tool--01", "claude-code-2.1.330--bash-tool--02"),
    ("claude-code-2.1.330--custom-model-read--01", "claude-code-2.1.330--custom-model-read--02"),
    ("claude-code-2.1.330--image-toolresult--01", "claude-code-2.1.330--image-toolresult--02"),
    ("opencode-1.18.33--anthropic-bash--02", "opencode-1.18.33--anthropic-bash--03"),
    ("node-sdks--all--11", "node-sdks--all--12"),
    ("python-sdks--sdk_all--16", "python-sdks--sdk_all--17"),
]
"""A request, and the next one of the same conversation."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = load_settings({}, {"home": str(tmp_path_factory.mktemp("home")), "port": 0})
    backend = Counting({name: script_of(HELLO) for name in MODELS})
    with running(settings, backend, Shelf()) as server:
        yield server


class Counting(Recorder):
    """Counts three tokens of everything."""

    async def tokenize(self, request: Any) -> Tokens:
        self.tokenized.append(request)
        return Tokens(token_ids=(1, 2, 3), text="")


def replay(served: Served, recorded: dict[str, Any]) -> httpx.Response:
    # the client's own length belongs to the body as it was before the filler
    headers = {key: value for key, value in recorded["headers"].items() if key not in ("content-length", "host")}
    with served.http() as client:
        return client.request(recorded["method"], recorded["path"], headers=headers, json=recorded["body"])


def read(prefix: str) -> dict[str, Any]:
    (file,) = (file for file in RECORDED if file.stem.startswith(prefix))
    recorded: dict[str, Any] = json.loads(file.read_text())
    return recorded


def prompt_of(served: Served, prefix: str) -> ChatPrompt:
    assert replay(served, read(prefix)).status_code == 200
    prompt = served.last_request().prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: file.stem)
def test_recorded_request(served: Served, file: Path) -> None:
    recorded: dict[str, Any] = json.loads(file.read_text())
    body = recorded["body"]
    answer = replay(served, recorded)
    assert answer.status_code == 200, answer.text
    is_claude_code = "context_management" in body
    assert answer.headers.get("x-mlx-manager-ignored") == ("context_management" if is_claude_code else None)
    if "count_tokens" in recorded["path"]:
        assert answer.json() == {"input_tokens": 3}
        return
    if not body.get("stream"):
        assert answer.json()["content"] == [{"type": PartKind.TEXT, "text": TEXT}]
    else:
        names = [line.removeprefix("event: ") for line in answer.text.splitlines() if line.startswith("event: ")]
        assert (names[0], names[-1]) == ("message_start", "message_stop")
    request = served.last_request()
    assert isinstance(request.prompt, ChatPrompt)
    immediate = [tool["name"] for tool in body.get("tools", ()) if not tool.get("defer_loading")]
    assert [tool.name for tool in request.prompt.tools] == immediate
    assert request.sampling.max_tokens == body["max_tokens"]
    assert "x-anthropic-billing-header" not in "".join(message.text for message in request.prompt.messages)


@pytest.mark.parametrize(("first", "second"), TURNS)
def test_the_next_turn_begins_with_the_same_prompt(served: Served, first: str, second: str) -> None:
    before, after = prompt_of(served, first), prompt_of(served, second)
    # clients move their cache marks on, which no model here is told
    assert unmarked(after.messages[: len(before.messages)]) == unmarked(before.messages)
    assert len(after.messages) > len(before.messages)
    assert (unmarked(after.tools), after.thinking) == (unmarked(before.tools), before.thinking)


def test_there_is_something_to_replay() -> None:
    assert len(RECORDED) > 15
