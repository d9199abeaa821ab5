"""`truncation: auto`: what is left out of a conversation that does not fit, and what never is."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_manager.backends.scripted import script_of
from mlx_manager.ir import ChatPrompt, DetokenizeRequest, TokenizeRequest, Tokens
from tests.http.scripted_server import HELLO, Recorder, Serve, Served

CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "five"}
ITEMS: list[dict[str, Any]] = [
    {"role": "developer", "content": "rule"},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "four"},
    CALL,
    OUTPUT,
    {"role": "assistant", "content": "six"},
    {"role": "user", "content": "seven"},
]


class TenEach(Recorder):
    """Counts ten tokens for each message, in a context of as many as it is told."""

    max_context: int | None = 100

    async def tokenize(self, request: TokenizeRequest | DetokenizeRequest) -> Tokens:
        """Ten for each message."""
        self.tokenized.append(request)
        assert isinstance(request, TokenizeRequest)
        assert isinstance(request.prompt, ChatPrompt)
        token_ids = (0,) * (10 * len(request.prompt.messages))
        return Tokens(token_ids=token_ids, text="", max_context=self.max_context)


def kept(served: Served, **sent: Any) -> list[str]:
    """The texts that reach the model."""
    with served.http() as client:
        answer = client.post("/v1/responses", json={"model": "m", "input": ITEMS, "truncation": "auto"} | sent)
    assert answer.status_code == 200, answer.text
    assert answer.json()["truncation"] == sent.get("truncation", "auto")
    prompt = served.last_request().prompt
    assert isinstance(prompt, ChatPrompt)
    return [message.text for message in prompt.messages]


ALL = ["rule", "one", "two", "four", "", "five", "six", "seven"]
WITHOUT_ONE = ["rule", "four", "", "five", "six", "seven"]


@pytest.mark.parametrize(
    ("max_context", "max_output_tokens", "expected"),
    [
        (None, None, ALL),
        (81, None, ALL),
        (80, None, WITHOUT_ONE),
        (90, 10, ALL),
        (89, 10, WITHOUT_ONE),
        (70, 10, WITHOUT_ONE),
        (69, 10, ["rule", "seven"]),
        (30, 10, ["rule", "seven"]),
        (5, None, ["rule", "seven"]),
    ],
)
def test_the_oldest_turns_are_left_out(
    serve: Serve, max_context: int | None, max_output_tokens: int | None, expected: list[str]
) -> None:
    backend = TenEach({"m": script_of(HELLO)})
    backend.max_context = max_context
    assert kept(serve(backend), max_output_tokens=max_output_tokens) == expected


def test_nothing_is_counted_unless_it_is_asked_for(serve: Serve) -> None:
    backend = TenEach({"m": script_of(HELLO)})
    backend.max_context = 10
    assert kept(serve(backend), truncation="disabled") == ALL
    assert backend.tokenized == []
