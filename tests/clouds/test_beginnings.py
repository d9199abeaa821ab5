"""How a conversation begins, what is seen in it included, says which target it comes back to."""

from __future__ import annotations

from mlx_manager.gateway.affinity import beginning_of
from mlx_manager.ir import ChatPrompt, Content, ImageContent, Message, Role, TextContent, VideoContent

QUESTION = TextContent("What is it?")
FIRST, SECOND = ImageContent(data=b"one"), ImageContent(data=b"two")


def begins(*content: Content, later: str = "") -> bytes:
    messages = [Message(role=Role.USER, content=content)]
    if later:
        messages.append(Message(role=Role.ASSISTANT, content=(TextContent(later),)))
    return beginning_of(ChatPrompt(messages=tuple(messages)))


def test_what_is_seen_tells_conversations_apart() -> None:
    shown: list[tuple[Content, ...]] = [
        (),
        (FIRST,),
        (SECOND,),
        (VideoContent(data=b"film"),),
        (VideoContent(url="https://example.org/a.mp4"),),
        (VideoContent(frames=(FIRST, SECOND)),),
        (VideoContent(frames=(SECOND, FIRST)),),
    ]
    assert len({begins(*content, QUESTION) for content in shown}) == len(shown)


def test_later_turns_change_nothing() -> None:
    film = VideoContent(data=b"film")
    assert begins(film, QUESTION) == begins(film, QUESTION, later="A cat.")
