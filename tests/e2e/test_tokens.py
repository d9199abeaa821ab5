"""Tokens on the starter model: text to tokens and back, and a chat as it is really asked."""

from __future__ import annotations

import base64
from typing import Any

from tests.documents.pdf import pdf
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


def test_a_model_is_told_the_text_of_a_document(idle_server: ServerProcess) -> None:
    def asked(file: bytes) -> dict[str, Any]:
        data = "data:application/pdf;base64," + base64.b64encode(file).decode()
        part = {"type": "file", "file": {"filename": "facts.pdf", "file_data": data}}
        return {"model": idle_server.model, "messages": [{"role": "user", "content": [part]}]}

    with idle_server.http() as client:
        tokens = client.post("/tokenize", json=asked(pdf("Paris has a tower."))).raise_for_status().json()
        sent = {"model": idle_server.model, "tokens": tokens["tokens"]}
        text = client.post("/detokenize", json=sent).json()["prompt"]
        refused = client.post("/v1/chat/completions", json=asked(pdf("a", password="secret")))
    assert "facts.pdf\nParis has a tower." in text
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages[0].content[0]")
    assert "encrypted" in refused.json()["error"]["message"]
