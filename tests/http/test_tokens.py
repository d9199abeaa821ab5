"""POST /tokenize and /detokenize: what reaches the backend, what is answered, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_manager.ir import (
    ChatPrompt,
    DetokenizeRequest,
    Message,
    Role,
    TextContent,
    TextPrompt,
    TokenizeRequest,
    Tokens,
)
from tests.http.scripted_server import Serve

TOKENS = Tokens(token_ids=(5, 6), text="hi!", token_texts=("hi", "!"), max_context=99)
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
SAID = (Message(role=Role.USER, content=(TextContent("hi"),)),)


@pytest.mark.parametrize(
    ("sent", "prompt", "adds_special", "wants_texts"),
    [
        ({"prompt": "hi"}, TextPrompt(text="hi"), True, False),
        ({"prompt": ""}, TextPrompt(text=""), True, False),
        ({"prompt": "hi", "add_special_tokens": False, "return_token_strs": True}, TextPrompt(text="hi"), False, True),
        (CHAT, ChatPrompt(messages=SAID), True, False),
        (
            CHAT | {"chat_template_kwargs": {"x": 1}, "return_token_strs": True},
            ChatPrompt(messages=SAID, template_kwargs={"x": 1}),
            True,
            True,
        ),
    ],
)
def test_a_prompt_is_tokenized(
    serve: Serve, sent: dict[str, Any], prompt: Any, adds_special: bool, wants_texts: bool
) -> None:
    served = serve({"m": (TOKENS,)})
    with served.http() as client:
        answer = client.post("/tokenize", json={"model": "m"} | sent)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "count": 2,
        "max_model_len": 99,
        "tokens": [5, 6],
        "token_strs": ["hi", "!"] if wants_texts else None,
    }
    (request,) = served.backend.tokenized
    assert isinstance(request, TokenizeRequest)
    assert (request.prompt, request.add_special_tokens, request.wants_token_texts) == (
        prompt,
        adds_special,
        wants_texts,
    )


def test_tokens_become_text(serve: Serve) -> None:
    served = serve({"m": (TOKENS,)})
    with served.http() as client:
        answer = client.post("/detokenize", json={"model": "m", "tokens": [5, 6.0], "frobnicate": 1})
    assert answer.json() == {"prompt": "hi!"}
    assert answer.headers["x-mlx-manager-ignored"] == "frobnicate"
    (request,) = served.backend.tokenized
    assert isinstance(request, DetokenizeRequest)
    assert request.token_ids == (5, 6)


@pytest.mark.parametrize(
    ("path", "sent", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", CHAT | {"prompt": "hi"}, "prompt"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"messages": [{"role": "user"}]}, "messages[0].content"),
        ("/tokenize", CHAT | {"add_special_tokens": True}, "add_special_tokens"),
        ("/tokenize", CHAT | {"chat_template": "x"}, "chat_template"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {"tokens": "hi"}, "tokens"),
    ],
)
def test_what_is_wrong_is_named(serve: Serve, path: str, sent: dict[str, Any], param: str) -> None:
    served = serve({"m": (TOKENS,)})
    with served.http() as client:
        answer = client.post(path, json={"model": "m"} | sent)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert served.backend.tokenized == []
