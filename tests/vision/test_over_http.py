"""Images and videos over HTTP: the real server with tiny vision models, the official SDK, data URLs and addresses."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import mlx_vlm.utils
import openai
import pytest
from openai.types.chat import ChatCompletion
from PIL import Image

from tests.e2e.server_process import ServerProcess, serving
from tests.vision.films import data_url, write_film
from tests.vision.https_server import HttpsServer, Page, https_server
from tests.vision.seeing import noise
from tests.vision.zoo import write_model

MODEL = "qwen2_5_vl"
STILLS_MODEL = "smolvlm"
"""Of a family that has no videos: it is shown their frames."""


def png(seed: int, width: int = 84, height: int = 84) -> bytes:
    buffer = io.BytesIO()
    noise(seed, width, height).picture.save(buffer, "PNG")
    return buffer.getvalue()


def url_of(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


CAT, DOG = url_of(png(1)), url_of(png(2))
NUM_IMAGE_TOKENS = 9


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HttpsServer, Path]]:
    folder = tmp_path_factory.mktemp("https")
    answers = {
        "/cat.png": Page(body=png(1)),
        "/text": Page(body=b"no image"),
        "/film.mp4": Page(body=write_film(folder / "film.mp4")),
    }
    with https_server(folder, answers) as running:
        yield running, folder / "certificate.pem"


@pytest.fixture(scope="module")
def server(pages: tuple[HttpsServer, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    home = tmp_path_factory.mktemp("home")
    folder = write_model(home / "models" / MODEL, MODEL)
    write_model(home / "models" / STILLS_MODEL, STILLS_MODEL)
    flags = (
        *("--no-use-spare", "--image-hosts", "localhost", "--max-images", "3", "--max-image-pixels", "100000"),
        *("--max-video-length", "5", "--max-video-frames", "6"),
    )
    with pytest.MonkeyPatch.context() as environment:
        # trusted by the server as the system's own certificates are
        environment.setenv("SSL_CERT_FILE", str(pages[1]))
        with serving(folder, home, *flags, "--kv-budget", "64MiB", "--no-use-spare") as running:
            yield running


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def video(url: str) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def ask(server: ServerProcess, *pieces: dict[str, Any], **more: Any) -> ChatCompletion:
    messages: Any = more.pop("messages", [{"role": "user", "content": list(pieces)}])
    model = more.pop("model", MODEL)
    answer: ChatCompletion = server.sdk.chat.completions.create(
        model=model, messages=messages, temperature=0, max_tokens=8, **more
    )
    return answer


def said(answer: ChatCompletion) -> str:
    return answer.choices[0].message.content or ""


def cached(answer: ChatCompletion) -> int:
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    return answer.usage.prompt_tokens_details.cached_tokens or 0


def test_it_is_paged_and_says_that_it_sees(server: ServerProcess) -> None:
    (model,) = [each for each in httpx.get(f"{server.url}/v1/models").json()["data"] if each["id"] == MODEL]
    assert "vision" in model["capabilities"]
    assert model["serving"]["path"] == "paged"
    assert "with an image" in model["serving"]["reason"]


def test_a_second_question_finds_the_image_in_the_cache(server: ServerProcess) -> None:
    lead = text("Look closely at this picture that I took, please, and say what it is:")
    first = ask(server, lead, image(CAT), text("What is it?"))
    again = ask(server, lead, image(CAT), text("What colour does it have?"))
    other = ask(server, lead, image(DOG), text("What is it?"))
    # every letter and every mark of the template is a token
    num_before = len("user:") + len(lead["text"]) + len(("<|begin|>", "<|vision_start|>"))
    assert cached(first) == 0
    assert cached(again) >= num_before + NUM_IMAGE_TOKENS
    assert cached(other) <= num_before
    assert said(other) != said(first)
    assert said(ask(server, lead, image(CAT), text("What is it?"))) == said(first)


def test_a_stream_says_the_same(server: ServerProcess) -> None:
    pieces = [image(DOG), text("And this?"), image(CAT)]
    messages: Any = [{"role": "user", "content": pieces}]
    stream = server.sdk.chat.completions.create(
        model=MODEL, messages=messages, temperature=0, max_tokens=8, stream=True
    )
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert streamed == said(ask(server, *pieces))


def test_the_order_of_pictures_and_words_counts(server: ServerProcess) -> None:
    pieces = [image(CAT), text("a"), image(DOG)]
    assert said(ask(server, *pieces)) != said(ask(server, *reversed(pieces)))
    assert said(ask(server, *pieces)) != said(ask(server, pieces[0], pieces[2], pieces[1]))


def test_many_at_once_answer_as_alone(server: ServerProcess) -> None:
    asked = [
        (image(CAT), text("One.")),
        (image(DOG), text("One.")),
        (text("No picture at all here."),),
        (text("Two:"), image(CAT), image(DOG)),
        (image(url_of(png(5, 140, 56))), text("Wide.")),
        (image(url_of(png(6, 56, 140))), text("Tall.")),
    ]
    alone = [said(ask(server, *pieces)) for pieces in asked]
    with ThreadPoolExecutor(12) as clients:
        together = list(clients.map(lambda pieces: said(ask(server, *pieces)), asked * 2))
    assert together == alone * 2
    server.wait_until_idle()


def test_a_picture_by_its_address_is_fetched(server: ServerProcess, pages: tuple[HttpsServer, Path]) -> None:
    base = f"https://localhost:{pages[0].port}"
    by_data = said(ask(server, image(CAT), text("What is it?")))
    assert said(ask(server, image(f"{base}/cat.png"), text("What is it?"))) == by_data
    with pytest.raises(openai.BadRequestError, match="in no format that is taken"):
        ask(server, image(f"{base}/text"))
    with pytest.raises(openai.BadRequestError, match="not a public one") as refused:
        ask(server, text("a"), image(f"https://127.0.0.1:{pages[0].port}/cat.png"))
    assert refused.value.param == "messages[0].content[1]"


def test_a_picture_in_the_result_of_a_tool(server: ServerProcess) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    results = [
        [
            {"role": "user", "content": "Look."},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": [text("Here:"), image(url)]},
        ]
        for url in (CAT, DOG)
    ]
    cat, dog = (ask(server, messages=messages) for messages in results)
    assert said(cat) != said(dog)


def test_the_other_dialects_show_the_same_picture(server: ServerProcess) -> None:
    in_chat = said(ask(server, image(DOG), text("What is it?")))
    part = {"type": "input_image", "image_url": DOG}
    asked: Any = [{"role": "user", "content": [part, {"type": "input_text", "text": "What is it?"}]}]
    response = server.sdk.responses.create(model=MODEL, input=asked, temperature=0, max_output_tokens=8)
    assert response.output_text == in_chat
    source = {"type": "base64", "media_type": "image/png", "data": DOG.partition(",")[2]}
    messages = [{"role": "user", "content": [{"type": "image", "source": source}, text("What is it?")]}]
    body = {"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 8}
    answer = httpx.post(f"{server.url}/v1/messages", json=body, timeout=60).json()
    assert answer["content"][0]["text"] == in_chat
    counted = httpx.post(
        f"{server.url}/v1/messages/count_tokens", json={"model": MODEL, "messages": messages}, timeout=60
    )
    assert counted.json()["input_tokens"] == answer["usage"]["input_tokens"] + answer["usage"].get(
        "cache_read_input_tokens", 0
    )


def test_a_second_question_finds_the_video_in_the_cache(
    server: ServerProcess, pages: tuple[HttpsServer, Path], tmp_path: Path
) -> None:
    film = data_url((pages[1].parent / "film.mp4").read_bytes())
    other = data_url(write_film(tmp_path / "other.mp4", seed=1))
    lead = text("Watch this film that I took, please, and say what happens in it:")
    first = ask(server, lead, video(film), text("What happens?"))
    again = ask(server, lead, video(f"https://localhost:{pages[0].port}/film.mp4"), text("Who comes last?"))
    another = ask(server, lead, video(other), text("What happens?"))
    num_before = len("user:") + len(lead["text"]) + len(("<|begin|>", "<|vision_start|>"))
    # six frames in pairs, made smaller until a pair takes three tokens
    num_video_tokens = 3 * 3
    assert cached(first) < num_before
    assert cached(again) >= num_before + num_video_tokens
    assert cached(another) <= num_before
    assert said(another) != said(first)
    messages: Any = [{"role": "user", "content": [lead, video(film), text("What happens?")]}]
    streamed = server.sdk.chat.completions.create(
        model=MODEL, messages=messages, temperature=0, max_tokens=8, stream=True
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices) == said(first)


def test_a_family_without_videos_is_shown_their_frames(server: ServerProcess, tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4")
    frames, _ = mlx_vlm.utils.load_video(str(tmp_path / "film.mp4"), mlx_vlm.utils.VideoSampling(max_frames=6))
    stills = []
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame.transpose(1, 2, 0)).save(buffer, "PNG")
        stills.append(url_of(buffer.getvalue()))
    question = text("What happens?")
    by_file = ask(server, video(data_url(film)), question, model=STILLS_MODEL)
    by_frames = ask(server, {"type": "video", "video": stills}, question, model=STILLS_MODEL)
    assert (said(by_file), by_file.usage and by_file.usage.prompt_tokens) == (
        said(by_frames),
        by_frames.usage and by_frames.usage.prompt_tokens,
    )
    two = ask(server, {"type": "video", "video": stills[:2]}, question, model=STILLS_MODEL)
    assert said(two) == said(ask(server, *map(image, stills[:2]), question, model=STILLS_MODEL))


@pytest.mark.parametrize(
    ("pieces", "says"),
    [
        ([video("data:video/mp4;base64,AAAA")], "Video 1 of 1 is in no format that is taken"),
        ([{"type": "video", "video": [CAT] * 7}], "has 7 frames of videos, and 6 frames are taken"),
        ([text("<|video_pad|>"), image(CAT)], "stands for an image"),
        ([image(url_of(png(1)[:900]))], "Image 1 of 1 is damaged"),
        ([image(CAT), image(url_of(b"\x00\x01"))], "Image 2 of 2 is in no format"),
        ([image(CAT)] * 4, "has 4 images, and 3 are taken"),
        ([image(url_of(png(1, 400, 300)))], "is 400 by 300, and 100000 pixels are taken"),
        ([image(CAT), text("<|image_pad|>")], "stands for an image"),
    ],
)
def test_what_cannot_be_taken_is_named(server: ServerProcess, pieces: list[dict[str, Any]], says: str) -> None:
    for is_streamed in (False, True):
        with pytest.raises(openai.BadRequestError, match=says):
            ask(server, *pieces, stream=is_streamed)
    server.wait_until_idle()


def test_tokens_are_counted_without_looking(server: ServerProcess) -> None:
    pieces = [text("First"), image(CAT), text("then"), image(url_of(png(5, 140, 56)))]
    body = {"model": MODEL, "messages": [{"role": "user", "content": pieces}]}
    counted = httpx.post(f"{server.url}/tokenize", json=body, timeout=60).json()
    used = ask(server, *pieces).usage
    assert used is not None
    assert counted["count"] == used.prompt_tokens


def test_what_does_not_fit_the_context_is_refused(server: ServerProcess) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(server, image(CAT), text("word " * 420))
    assert refused.value.code == "context_length_exceeded"


def test_a_client_that_leaves_takes_its_pictures_along(server: ServerProcess) -> None:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": [image(CAT)] * 3}],
        "stream": True,
        "max_tokens": 500,
    }
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60):
        pass
    server.wait_until_idle()


def test_a_picture_of_one_pixel(server: ServerProcess) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1), "red").save(buffer, "PNG")
    assert ask(server, image(url_of(buffer.getvalue())), text("What?")).usage is not None
