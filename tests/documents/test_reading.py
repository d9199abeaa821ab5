"""PDF documents become text, within bounds; what cannot be is refused with the reason and what to do."""

from __future__ import annotations

import asyncio

import pytest

from mlx_manager.backends.documents import DocumentLimits, DocumentReader
from mlx_manager.errors import InvalidRequest, MlxManagerError, PayloadTooLarge
from mlx_manager.ir import ChatPrompt, DocumentContent, Message, Prompt, Role, TextContent, TextPrompt
from tests.documents.pdf import pdf

TWO_PAGES = pdf("The capital of France is Paris.", "", "It has a tower.")


def asking(*files: bytes, name: str = "") -> ChatPrompt:
    documents = tuple(DocumentContent(data=file, name=name) for file in files)
    return ChatPrompt(messages=(Message(role=Role.USER, content=(TextContent("Read this."), *documents)),))


def told(prompt: Prompt, **limits: float) -> list[str]:
    read = asyncio.run(DocumentReader(DocumentLimits(**limits)).told(prompt))  # type: ignore[arg-type]
    assert isinstance(read, ChatPrompt)
    return [piece.text for piece in read.messages[0].content if isinstance(piece, TextContent)]


def test_the_text_of_all_pages_stands_in_place_of_the_file() -> None:
    locked = pdf("Do not print.", owner_password="owner")
    assert told(asking(TWO_PAGES, locked, name="facts.pdf")) == [
        "Read this.",
        "facts.pdf\nThe capital of France is Paris.\n\nIt has a tower.",
        "facts.pdf\nDo not print.",
    ]


async def test_what_was_read_once_is_kept_within_bounds() -> None:
    reader = DocumentReader(DocumentLimits(max_kept_characters=20))
    first = await reader.told(asking(pdf("One.")))
    # the second time no process is waited for: the answer is there at once
    again = reader.told(asking(pdf("One.")))
    with pytest.raises(StopIteration) as done:
        again.send(None)
    assert done.value.value == first
    await reader.told(asking(pdf("A text that is longer.")))
    assert await reader.told(asking(pdf("One."))) == first
    assert await reader.told(TextPrompt(text="raw")) == TextPrompt(text="raw")


@pytest.mark.parametrize(
    ("file", "limits", "error", "says"),
    [
        (pdf("a", password="secret"), {}, InvalidRequest, "encrypted: save it without"),
        (pdf("", ""), {}, InvalidRequest, "no text, only pictures of it: send its pages as images"),
        (pdf("a", "b"), {"max_pages": 1}, InvalidRequest, "2 pages, and 1 are read"),
        (pdf("abcdef"), {"max_characters": 5}, InvalidRequest, "more than 5 characters"),
        (b"%PDF-1.7\nnothing else", {}, InvalidRequest, "cannot be read"),
        (pdf("a"), {"timeout_s": 0.001}, InvalidRequest, "longer than 0.001 s"),
        (pdf("a"), {"max_bytes": 10}, PayloadTooLarge, "larger than 10 bytes"),
        (pdf("a"), {"max_documents": 0}, InvalidRequest, "more than 0 documents"),
    ],
    ids=["encrypted", "pictures", "pages", "characters", "broken", "slow", "bytes", "many"],
)
def test_what_has_no_text_is_refused(
    file: bytes, limits: dict[str, float], error: type[MlxManagerError], says: str
) -> None:
    with pytest.raises(error, match=says) as raised:
        told(asking(file), **limits)
    assert (raised.value.param or "").startswith("messages")
