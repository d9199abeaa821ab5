"""PDF documents in every dialect: the same file reaches the backend; what is none is refused by its place."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from mlx_manager.ir import ChatPrompt, DocumentContent, TextContent
from tests.documents.pdf import pdf
from tests.http.scripted_server import Served

FILE = pdf("Paris is the capital of France.")
PACKED = base64.b64encode(FILE).decode()
URL = f"data:application/pdf;base64,{PACKED}"
TEXT_URL = "data:text/plain;base64," + base64.b64encode("Wörld".encode()).decode()


def ask(served: Served, path: str, part: dict[str, Any]) -> Any:
    said = [{"role": "user", "content": [part]}]
    body = {"input": said} if path == "/v1/responses" else {"messages": said, "max_tokens": 9}
    with served.http() as client:
        return client.post(path, json={"model": "m"} | body)


def document(**source: str) -> dict[str, Any]:
    return {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf"} | source,
        "title": "a.pdf",
    }


def file_part(**file: str) -> dict[str, Any]:
    return {"type": "file", "file": file}


CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"


@pytest.mark.parametrize(
    ("path", "part"),
    [
        (CHAT, file_part(file_data=URL, filename="a.pdf")),
        (CHAT, file_part(file_data=PACKED, filename="a.pdf")),
        (MESSAGES, document(data=PACKED)),
        (RESPONSES, {"type": "input_file", "file_data": URL, "filename": "a.pdf"}),
    ],
)
def test_a_document_reaches_the_backend(served: Served, path: str, part: dict[str, Any]) -> None:
    answer = ask(served, path, part)
    assert answer.status_code == 200, answer.text
    prompt = served.backend.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages[0].content == (DocumentContent(data=FILE, name="a.pdf"),)


@pytest.mark.parametrize(
    ("path", "part"),
    [
        (MESSAGES, document(type="url", url="https://x/y.pdf")),
        (RESPONSES, {"type": "input_file", "file_url": "https://x/y.pdf", "filename": "a.pdf"}),
    ],
)
def test_the_address_of_a_document_reaches_the_backend(served: Served, path: str, part: dict[str, Any]) -> None:
    answer = ask(served, path, part)
    assert answer.status_code == 200, answer.text
    prompt = served.backend.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages[0].content == (DocumentContent(url="https://x/y.pdf", name="a.pdf"),)


def test_a_text_file_is_its_text(served: Served) -> None:
    assert ask(served, CHAT, file_part(file_data=TEXT_URL, filename="a.txt")).status_code == 200
    prompt = served.backend.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages[0].content == (TextContent("a.txt\nWörld"),)


AT = "messages[0].content[0]"


@pytest.mark.parametrize(
    ("path", "part", "param", "says"),
    [
        (CHAT, {"type": "file"}, f"{AT}.file", "file_data"),
        (CHAT, file_part(file_id="file-1"), f"{AT}.file.file_data", "send the file itself"),
        (CHAT, file_part(file_data="data:application/pdf,x"), f"{AT}.file.file_data", "base64"),
        (CHAT, file_part(file_data="data:audio/wav;base64,AAAA"), f"{AT}.file.file_data", "send a PDF"),
        (CHAT, file_part(file_data="data:text/plain;base64,/w=="), f"{AT}.file.file_data", "UTF-8"),
        (CHAT, file_part(file_data="AAAA"), f"{AT}.file.file_data", "no PDF file"),
        (MESSAGES, document(data="JVBE"), f"{AT}.source.data", "no PDF file"),
        (MESSAGES, document(), f"{AT}.source.data", "required"),
        (MESSAGES, document(type="url"), f"{AT}.source.url", "required"),
        (MESSAGES, document(type="url", url="http://x/y.pdf"), f"{AT}.source.url", "https"),
        (MESSAGES, document(type="file", file_id="file_1"), f"{AT}.source", "send a PDF as base64"),
        (RESPONSES, {"type": "input_file", "file_id": "file_1"}, "input[0].content[0].file_data", "itself"),
        (RESPONSES, {"type": "input_file", "file_url": "ftp://x/y"}, "input[0].content[0].file_url", "https"),
    ],
)
def test_what_is_no_document_is_refused_by_its_place(
    served: Served, path: str, part: dict[str, Any], param: str, says: str
) -> None:
    answer = ask(served, path, part)
    assert answer.status_code == 400, answer.text
    message = answer.json()["error"]["message"]
    assert says in message
    assert param in (message, answer.json()["error"].get("param")) or message.startswith(param)
