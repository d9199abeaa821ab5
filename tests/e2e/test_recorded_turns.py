"""Two turns as real clients sent them: of the second one, a real prefix cache has all that the first one asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.server_process import ServerProcess

RECORDED = Path(__file__).parents[1] / "data" / "clients"
BLOCK_TOKENS = 32
TURNS = [
    ("llm-0.36--tools--01", "llm-0.36--tools--02"),
    ("node-sdks--all--06", "node-sdks--all--07"),
    ("node-sdks--all--11", "node-sdks--all--12"),
    ("node-sdks--all--14", "node-sdks--all--15"),
    ("openai-agents--chat-and-responses--01", "openai-agents--chat-and-responses--02"),
    ("openai-agents--chat-and-responses--03", "openai-agents--chat-and-responses--04"),
    ("python-sdks--sdk_all--16", "python-sdks--sdk_all--17"),
]
"""A request, and the next one of the same conversation. The longest, of coding agents, are replayed elsewhere."""


def tokens_of(server: ServerProcess, name: str) -> tuple[int, int]:
    """Of the prompt, and those of them that the cache had."""
    (file,) = RECORDED.glob(f"{name}-*.json")
    recorded: dict[str, Any] = json.loads(file.read_text())
    most = "max_output_tokens" if "responses" in recorded["path"] else "max_tokens"
    body = {key: value for key, value in recorded["body"].items() if key != "stream_options"}
    with server.http() as client:
        answer = client.post(recorded["path"], json=body | {"model": server.model, most: 2, "stream": False})
    usage = answer.raise_for_status().json()["usage"]
    if "cache_read_input_tokens" in usage:
        # this dialect counts them apart
        cached = usage["cache_read_input_tokens"]
        return usage["input_tokens"] + cached + (usage.get("cache_creation_input_tokens") or 0), cached
    details = usage.get("prompt_tokens_details") or usage["input_tokens_details"]
    return usage.get("prompt_tokens") or usage["input_tokens"], details["cached_tokens"]


@pytest.mark.parametrize(("first", "second"), TURNS)
def test_the_second_turn_finds_the_first(caller: ServerProcess, first: str, second: str) -> None:
    num_first, _ = tokens_of(caller, first)
    num_second, num_cached = tokens_of(caller, second)
    assert num_second > num_first
    # the end of the first prompt, which asks for the answer, and its last block are its own
    assert num_cached >= num_first - 2 * BLOCK_TOKENS
    assert num_cached > 0
