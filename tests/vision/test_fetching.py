"""What requests name by address is fetched over https from public hosts, within bounds, and from nowhere else."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mlx_manager.backends.documents import DocumentReader
from mlx_manager.backends.pictures import FetchLimits, PictureFetcher
from mlx_manager.errors import InvalidRequest, PayloadTooLarge
from mlx_manager.ir import ChatPrompt, Content, DocumentContent, ImageContent, Message, Role, TextContent, VideoContent
from tests.documents.pdf import pdf
from tests.vision.https_server import HttpsServer, Page, https_server

PICTURE = b"the bytes of a picture"
LIMITS = FetchLimits(
    max_image_bytes=1000,
    max_images=3,
    max_video_bytes=9000,
    max_video_frames=2,
    timeout_s=10.0,
    hosts=frozenset({"localhost"}),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpsServer]:
    pages = {
        "/picture": Page(body=PICTURE),
        "/moved": Page(status=302, headers={"Location": "/picture"}),
        "/round": Page(status=307, headers={"Location": "/round"}),
        "/plain": Page(status=301, headers={"Location": "http://localhost/picture"}),
        "/inside": Page(status=302, headers={"Location": "https://127.0.0.1:1/secret"}),
        "/large": Page(body=b"x" * 5000),
        "/larger": Page(body=b"x" * 9001),
        "/slow": Page(body=PICTURE, delay_s=1.5),
        "/none": Page(status=404),
        "/paper": Page(body=pdf("Paris has a tower.")),
    }
    with https_server(tmp_path_factory.mktemp("https"), pages) as running:
        yield running


def prompt(*urls: str) -> ChatPrompt:
    content: tuple[Content, ...] = (TextContent("Look:"), *(ImageContent(url=url, detail="low") for url in urls))
    messages = (
        Message(role=Role.SYSTEM, content=(TextContent("Be brief."),)),
        Message(role=Role.USER, content=content),
    )
    return ChatPrompt(messages=messages)


def fetch(
    server: HttpsServer, *urls: str, limits: FetchLimits = LIMITS, trust: bool = True
) -> tuple[ImageContent, ...]:
    context = server.trusting if trust else ssl.create_default_context()
    filled = asyncio.run(PictureFetcher(limits, context).fetched(prompt(*urls), ImageContent))
    assert isinstance(filled, ChatPrompt)
    return filled.messages[1].images


def test_the_file_takes_the_place_of_its_address(server: HttpsServer) -> None:
    base = f"https://localhost:{server.port}"
    images = fetch(server, f"{base}/picture", f"{base}/moved")
    assert images == (ImageContent(data=PICTURE, detail="low"),) * 2
    # the server is asked by its name, although the connection goes to the address that was checked
    assert ("/picture", f"localhost:{server.port}") in server.asked


def test_a_document_is_fetched_and_its_text_told(server: HttpsServer) -> None:
    paper = DocumentContent(url=f"https://localhost:{server.port}/paper", name="a.pdf")
    asked = ChatPrompt(messages=(Message(role=Role.USER, content=(paper, ImageContent(url="https://elsewhere/"))),))

    async def told(limits: FetchLimits) -> tuple[Content, ...]:
        fetched = await PictureFetcher(limits, server.trusting).fetched(asked, DocumentContent)
        prompt = await DocumentReader().told(fetched)
        assert isinstance(prompt, ChatPrompt)
        return prompt.messages[0].content

    text, picture = asyncio.run(told(LIMITS))
    assert text == TextContent("a.pdf\nParis has a tower.")
    # only what was asked for
    assert picture == ImageContent(url="https://elsewhere/")
    with pytest.raises(PayloadTooLarge, match=r"document of messages\[0\].content\[0\] is larger than the 9 bytes"):
        asyncio.run(told(replace(LIMITS, max_document_bytes=9)))


def fetch_pieces(server: HttpsServer, *pieces: Content) -> tuple[Content, ...]:
    said = Message(role=Role.USER, content=pieces)
    filled = asyncio.run(
        PictureFetcher(LIMITS, server.trusting).fetched(ChatPrompt(messages=(said,)), ImageContent, VideoContent)
    )
    assert isinstance(filled, ChatPrompt)
    return filled.messages[0].content


def test_videos_and_frames_are_fetched_as_pictures_are(server: HttpsServer) -> None:
    base = f"https://localhost:{server.port}"
    cut = VideoContent(frames=(ImageContent(data=b"here"), ImageContent(url=f"{base}/picture")))
    whole = VideoContent(url=f"{base}/large")
    assert fetch_pieces(server, TextContent("Look:"), whole, cut) == (
        TextContent("Look:"),
        VideoContent(data=b"x" * 5000),
        VideoContent(frames=(ImageContent(data=b"here"), ImageContent(data=PICTURE))),
    )
    with pytest.raises(
        PayloadTooLarge, match=r"video .* larger than the 9000 bytes accepted \(setting max_video_bytes"
    ):
        fetch_pieces(server, VideoContent(url=f"{base}/larger"))
    with pytest.raises(InvalidRequest, match=r"The frame of .* answered 404") as refused:
        fetch_pieces(server, VideoContent(frames=(ImageContent(url=f"{base}/none"),)))
    assert refused.value.param == "messages[0].content[0].video[0]"
    with pytest.raises(InvalidRequest, match=r"The video of .* not a public one"):
        fetch_pieces(server, VideoContent(url=f"https://127.0.0.1:{server.port}/large"))
    with pytest.raises(InvalidRequest, match="names 3 videos, and 2 are taken"):
        fetch_pieces(server, *[whole] * 3)


def test_what_is_in_the_request_already_is_left_alone(server: HttpsServer) -> None:
    sent = prompt()
    assert asyncio.run(PictureFetcher(LIMITS).fetched(sent)) is sent


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/round", "redirected more than 3 times"),
        ("/plain", "only https"),
        ("/inside", "not a public one"),
        ("/none", "answered 404"),
    ],
)
def test_what_cannot_be_had_is_named(server: HttpsServer, path: str, reason: str) -> None:
    base = f"https://localhost:{server.port}"
    with pytest.raises(InvalidRequest, match=reason) as refused:
        fetch(server, f"{base}/picture", f"{base}{path}")
    assert refused.value.param == "messages[1].content[2]"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "10.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
        "[fe80::1]",
        "[fd00::1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "100.64.0.1",
        "224.0.0.1",
        "2130706433",
        "0x7f.1",
    ],
)  # fmt: skip
def test_hosts_that_are_not_public_are_never_connected_to(server: HttpsServer, host: str) -> None:
    num_asked = len(server.asked)
    strict = FetchLimits(max_image_bytes=1000, max_images=3, timeout_s=2.0)
    with pytest.raises(InvalidRequest, match="cannot be fetched"):
        fetch(server, f"https://{host}:{server.port}/picture", limits=strict)
    assert len(server.asked) == num_asked


def test_a_certificate_that_nobody_signed_is_not_trusted(server: HttpsServer) -> None:
    with pytest.raises(InvalidRequest, match="certificate"):
        fetch(server, f"https://localhost:{server.port}/picture", trust=False)


def test_a_slow_server_is_not_waited_for(server: HttpsServer) -> None:
    hasty = replace(LIMITS, timeout_s=0.5)
    with pytest.raises(InvalidRequest, match=r"did not arrive within 0.5 s"):
        fetch(server, f"https://localhost:{server.port}/slow", limits=hasty)


def test_a_large_file_is_left_where_it_is(server: HttpsServer) -> None:
    with pytest.raises(PayloadTooLarge, match="larger than the 1000 bytes"):
        fetch(server, f"https://localhost:{server.port}/large")


def test_too_many_are_refused_before_any_is_fetched(server: HttpsServer) -> None:
    num_asked = len(server.asked)
    with pytest.raises(InvalidRequest, match="names 4 images, and 3 are taken"):
        fetch(server, *[f"https://localhost:{server.port}/picture"] * 4)
    assert len(server.asked) == num_asked
