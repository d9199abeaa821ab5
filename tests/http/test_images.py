"""Pictures and videos in the messages of a chat request: what reaches the backend, and what is refused by name."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from mlx_manager.ir import ChatPrompt, ImageContent, TextContent, VideoContent
from tests.http.scripted_server import Served

CHAT = "/v1/chat/completions"
FILE = b"\x89PNG and so on"
DATA_URL = f"data:image/png;base64,{base64.b64encode(FILE).decode()}"


def picture(url: Any, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


FILM_URL = f"data:video/mp4;base64,{base64.b64encode(FILE).decode()}"


def video(url: Any) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url}}


def ask(served: Served, content: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    with served.http() as client:
        answer = client.post(CHAT, json=body)
    return answer.status_code, answer.json()


def test_pictures_keep_their_places_among_the_text(served: Served) -> None:
    content = [
        picture(DATA_URL),
        {"type": "text", "text": "and"},
        picture("https://example.org/a.jpg", detail="high"),
        {"type": "image_url", "image_url": DATA_URL},
    ]
    assert ask(served, content)[0] == 200
    prompt = served.last_request().prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages[0].content == (
        ImageContent(data=FILE, media_type="image/png"),
        TextContent("and"),
        ImageContent(url="https://example.org/a.jpg", detail="high"),
        ImageContent(data=FILE, media_type="image/png"),
    )


def test_videos_come_as_files_and_as_frames(served: Served) -> None:
    content = [
        video(FILM_URL),
        {"type": "video_url", "video_url": "https://example.org/a.mp4"},
        {"type": "text", "text": "and"},
        {"type": "video", "video": FILM_URL.replace("video/mp4", "")},
        {"type": "video", "video": [DATA_URL, "https://example.org/b.jpg"]},
    ]
    assert ask(served, content)[0] == 200
    prompt = served.last_request().prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages[0].content == (
        VideoContent(data=FILE, media_type="video/mp4"),
        VideoContent(url="https://example.org/a.mp4"),
        TextContent("and"),
        VideoContent(data=FILE),
        VideoContent(
            frames=(ImageContent(data=FILE, media_type="image/png"), ImageContent(url="https://example.org/b.jpg"))
        ),
    )


def test_a_tool_may_answer_with_a_picture(served: Served) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "Here:"}, picture(DATA_URL)]},
    ]
    with served.http() as client:
        assert client.post(CHAT, json={"model": "m", "messages": messages}).status_code == 200
    prompt = served.last_request().prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages[2].images == (ImageContent(data=FILE, media_type="image/png"),)


@pytest.mark.parametrize(
    "url",
    [
        DATA_URL.replace("image/png", "image/png;charset=utf-8"),
        DATA_URL.replace("image/png", ""),
        DATA_URL.replace("data:", "DATA:").replace("base64", "BASE64"),
        DATA_URL.rstrip("="),
        f"{DATA_URL[:30]}\n{DATA_URL[30:]}",
    ],
)
def test_data_urls_as_clients_write_them(served: Served, url: str) -> None:
    assert ask(served, [picture(url)])[0] == 200
    prompt = served.last_request().prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages[0].images[0].data == FILE


AT = "messages[0].content[0]"


@pytest.mark.parametrize(
    ("part", "code", "param", "says"),
    [
        ({"type": "image_url"}, "invalid_request", f"{AT}.image_url", "is required"),
        ({"type": "image_url", "image_url": {}}, "invalid_request", f"{AT}.image_url.url", "is required"),
        (picture(5), "invalid_request", f"{AT}.image_url.url", "string"),
        (picture("data:image/png;base64,@@"), "invalid_request", f"{AT}.image_url.url", "not base64"),
        (picture("data:image/png;base64,"), "invalid_request", f"{AT}.image_url.url", "empty"),
        (picture("data:image/png,abc"), "invalid_request", f"{AT}.image_url.url", "send data:image/png;base64"),
        (picture("data:video/mp4;base64,AAAA"), "unsupported_parameter", f"{AT}.image_url.url", "video/mp4"),
        (picture("http://example.org/a"), "unsupported_parameter", f"{AT}.image_url.url", "https"),
        (picture("file:///etc/passwd"), "unsupported_parameter", f"{AT}.image_url.url", "https"),
        (picture("/etc/passwd"), "unsupported_parameter", f"{AT}.image_url.url", "https"),
        (picture(DATA_URL, detail="fine"), "invalid_request", f"{AT}.image_url.detail", "auto, low, high"),
        (picture(f"https://{'a' * 9000}"), "invalid_request", f"{AT}.image_url.url", "at most 8192"),
        ({"type": "video_url"}, "invalid_request", f"{AT}.video_url", "is required"),
        ({"type": "video_url", "video_url": {}}, "invalid_request", f"{AT}.video_url.url", "is required"),
        ({"type": "video"}, "invalid_request", f"{AT}.video", "is required"),
        ({"type": "video", "video": []}, "invalid_request", f"{AT}.video", "no frames"),
        ({"type": "video", "video": 5}, "invalid_request", f"{AT}.video", "string"),
        ({"type": "video", "video": [DATA_URL, 5]}, "invalid_request", f"{AT}.video[1]", "string"),
        ({"type": "video", "video": [DATA_URL, FILM_URL]}, "unsupported_parameter", f"{AT}.video[1]", "send an image"),
        (video(DATA_URL), "unsupported_parameter", f"{AT}.video_url.url", "image/png: send a video"),
        (video("data:video/mp4;base64,@@"), "invalid_request", f"{AT}.video_url.url", "not base64"),
        (video("http://example.org/a"), "unsupported_parameter", f"{AT}.video_url.url", "https"),
        (video("file:///etc/passwd"), "unsupported_parameter", f"{AT}.video_url.url", "data:video/mp4;base64"),
        (video(FILM_URL) | {"fps": 1}, "unsupported_parameter", f"{AT}.fps", "leave it out"),
        ({"type": "input_video"}, "unsupported_parameter", f"{AT}.type", "video_url"),
        ({"type": "input_image", "image_url": "a"}, "unsupported_parameter", f"{AT}.type", "/v1/responses"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused_by_name(
    served: Served, part: dict[str, Any], code: str, param: str, says: str
) -> None:
    num_before = len(served.backend.requests)
    status, body = ask(served, [part])
    assert (status, body["error"]["code"], body["error"]["param"]) == (400, code, param)
    assert says in body["error"]["message"]
    assert len(served.backend.requests) == num_before
