"""Tokens on the starter model: text to tokens and back, and a chat as it is really asked."""

from __future__ import annotations

from tests.e2e.server_process import ServerProcess
from tests.e2e.test_sdk_chat import FRANCE

TEXT = "Überall 🌍 <|im_start|> code:\n\tx = 1"


def test_there_and_back(idle_server: ServerProcess) -> None:
    with idle_server.http() as client:
        sent = {"model": idle_server.model, "prompt": TEXT, "return_token_strs": True}
        tokens = client.post("/tokenize", json=sent).raise_for_status().json()
        back = client.post("/detokenize", json={"model": idle_server.model, "tokens": tokens["tokens"]})
        refused = client.post("/detokenize", json={"model": idle_server.model, "tokens": [10**6]})
    assert back.json() == {"prompt": TEXT}
    assert tokens["count"] == len(tokens["tokens"]) == len(tokens["token_strs"])
    assert tokens["max_model_len"] == 8192
    assert refused.status_code == 400


def test_a_chat_has_the_tokens_that_it_is_billed_for(idle_server: ServerProcess) -> None:
    answer = idle_server.sdk.chat.completions.create(model=idle_server.model, messages=FRANCE, max_tokens=1)
    with idle_server.http() as client:
        tokens = client.post("/tokenize", json={"model": idle_server.model, "messages": FRANCE}).json()
        text = client.post("/detokenize", json={"model": idle_server.model, "tokens": tokens["tokens"]}).json()[
            "prompt"
        ]
    assert answer.usage is not None
    assert tokens["count"] == answer.usage.prompt_tokens
    assert text.endswith("<|im_start|>assistant\n")
