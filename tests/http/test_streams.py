"""Streams in trouble: silence, errors in the middle, clients that go; on raw sockets where the SDK would hide it."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import openai
import pytest

from mlx_manager.backends.scripted import Pause, Step, script_of
from mlx_manager.errors import WorkerDied
from mlx_manager.ir import PartDelta, PartStart, PromptReady
from tests.http.scripted_server import HELLO, TEXT, Recorder, Serve, Served
from tests.http.test_chat import MESSAGES, sdk
from tests.http.test_errors import CHAT, COMPLETIONS, BrokenBackend, complete_body

ENDLESS: tuple[Step, ...] = (PromptReady(3), PartStart(0), PartDelta(0, "one"), Pause(60))
PREFILL: tuple[Step, ...] = (PromptReady(3), Pause(60))
QUEUED: tuple[Step, ...] = (Pause(60),)
DEAD = WorkerDied("The model's worker died in the middle of the answer.")


def post(served: Served, path: str, body: dict[str, Any]) -> socket.socket:
    """Send a request on a bare socket and leave it open."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection = socket.create_connection(("127.0.0.1", served.port), timeout=20)
    connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return connection


def read_until(connection: socket.socket, mark: bytes) -> bytes:
    """Everything up to `mark` and whatever came with it."""
    received = b""
    while mark not in received:
        more = connection.recv(65536)
        assert more, f"the server closed the connection after {received!r}"
        received += more
    return received


@pytest.mark.parametrize("script", [QUEUED, PREFILL, ENDLESS], ids=["queued", "prefill", "decoding"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_client_that_goes_ends_the_backends_stream_at_once(
    serve: Serve, script: tuple[Step, ...], stream: bool, path: str
) -> None:
    served = serve({"m": script})
    connection = post(served, path, complete_body(path) | {"stream": stream})
    request_id = served.backend.begun.get(timeout=10)
    if stream and script is ENDLESS:
        read_until(connection, b"one")
    assert served.backend.ended.empty()
    connection.close()
    closed_s = time.monotonic()
    assert served.backend.ended.get(timeout=10) == request_id
    assert time.monotonic() - closed_s < 5


def test_client_that_goes_ends_all_prompts_of_its_request(serve: Serve) -> None:
    served = serve({"m": ENDLESS})
    connection = post(served, COMPLETIONS, {"model": "m", "prompt": ["a", "b", "c"], "stream": True})
    begun = {served.backend.begun.get(timeout=10) for _ in range(3)}
    connection.close()
    assert {served.backend.ended.get(timeout=10) for _ in range(3)} == begun


def test_client_that_stops_reading_and_goes(serve: Serve) -> None:
    words = script_of(["x" * 60_000] * 400)
    served = serve({"m": words})
    connection = post(served, CHAT, complete_body(CHAT) | {"stream": True})
    request_id = served.backend.begun.get(timeout=10)
    time.sleep(0.3)
    assert served.backend.ended.empty(), "24 MB fit into the socket's buffers: the test needs a longer answer"
    connection.close()
    assert served.backend.ended.get(timeout=10) == request_id


def test_sdk_stream_closed_early(serve: Serve) -> None:
    served = serve({"m": ENDLESS})
    with sdk(served) as client:
        stream = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        assert next(stream).choices[0].delta.role == "assistant"
        assert next(stream).choices[0].delta.content == "one"
        stream.close()
    served.backend.ended.get(timeout=10)


@pytest.mark.parametrize("script", [QUEUED, PREFILL, ENDLESS], ids=["queued", "prefill", "decoding"])
def test_silence_is_filled_with_comments(serve: Serve, script: tuple[Step, ...]) -> None:
    served = serve({"m": script}, keepalive=0.1)
    with post(served, CHAT, complete_body(CHAT) | {"stream": True}) as connection:
        received = b""
        began_s = time.monotonic()
        while received.count(b": keep-alive\n\n") < 3:
            received += read_until(connection, b": keep-alive\n\n")
        assert time.monotonic() - began_s > 0.25
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-type: text/event-stream" in received
    assert b"content-length" not in received


def test_comments_stop_while_there_is_text(serve: Serve) -> None:
    slow = [step for word in script_of(["w"] * 12) for step in (Pause(0.05), word)]
    with serve({"m": slow}, keepalive=0.5).http() as client:
        text = client.post(CHAT, json=complete_body(CHAT) | {"stream": True}).text
    assert "keep-alive" not in text


def test_sdk_reads_past_comments(serve: Serve) -> None:
    slow = (Pause(0.5), *script_of(HELLO))
    with sdk(serve({"m": slow}, keepalive=0.1)) as client:
        chunks = list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_error_in_the_middle_is_the_streams_last_event(serve: Serve, path: str) -> None:
    with serve({"m": (*ENDLESS[:3], DEAD)}).http() as client:
        answer = client.post(path, json=complete_body(path) | {"stream": True})
    assert answer.status_code == 200
    *_, last, end = answer.text.split("\n\n")
    assert end == ""
    assert json.loads(last.removeprefix("data: ")) == {
        "error": {"message": DEAD.message, "type": "server_error", "param": None, "code": "worker_died"}
    }
    assert "[DONE]" not in answer.text


def test_sdk_raises_the_error_in_the_middle(serve: Serve) -> None:
    with sdk(serve({"m": (*ENDLESS[:3], DEAD)})) as client:
        stream = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        assert [next(stream).choices[0].delta.content for _ in range(2)] == ["", "one"]
        with pytest.raises(openai.APIError, match="worker died") as caught:
            next(stream)
    assert caught.value.code == "worker_died"


def test_error_in_the_middle_of_an_unstreamed_answer_has_its_own_status(serve: Serve) -> None:
    with serve({"m": (*ENDLESS[:3], DEAD)}).http() as client:
        answer = client.post(CHAT, json=complete_body(CHAT))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "worker_died")


def test_error_after_the_headers_went_out_is_an_event(serve: Serve) -> None:
    with serve({"m": (Pause(0.5), DEAD)}, keepalive=0.1).http() as client:
        answer = client.post(CHAT, json=complete_body(CHAT) | {"stream": True})
    assert answer.status_code == 200
    assert answer.text.startswith(": keep-alive\n\n")
    assert '"worker_died"' in answer.text


def test_answer_that_breaks_off_is_an_error(serve: Serve) -> None:
    with serve({"m": ENDLESS[:3]}).http() as client:
        whole = client.post(CHAT, json=complete_body(CHAT))
        streamed = client.post(CHAT, json=complete_body(CHAT) | {"stream": True})
    assert (whole.status_code, whole.json()["error"]["code"]) == (500, "generation_failed")
    assert '"generation_failed"' in streamed.text


class BreakingBackend(Recorder):
    """Says a word, then fails as no backend should."""

    async def generate(self, request: Any) -> Any:
        """Fail late."""
        for event in ENDLESS[:3]:
            yield event
        raise RuntimeError("secret detail of the inside")


def test_unexpected_error_in_the_middle_tells_nothing_of_the_inside(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(BreakingBackend({})).http() as client:
        answer = client.post(CHAT, json=complete_body(CHAT) | {"stream": True})
    assert '"internal_error"' in answer.text
    assert "secret" not in answer.text
    assert "secret detail" in caplog.text


def test_other_requests_go_on_beside_a_broken_one(serve: Serve) -> None:
    served = serve({"m": script_of(HELLO), "dead": (DEAD,), "slow": ENDLESS})
    with post(served, CHAT, complete_body(CHAT) | {"model": "slow", "stream": True}) as slow, sdk(served) as client:
        read_until(slow, b"one")
        with pytest.raises(openai.APIStatusError):
            client.chat.completions.create(model="dead", messages=MESSAGES)
        assert client.chat.completions.create(model="m", messages=MESSAGES).choices[0].message.content == TEXT
        assert set(served.backend.begun.queue) - set(served.backend.ended.queue)


def test_broken_backend_leaves_the_server_alive(serve: Serve) -> None:
    with serve(BrokenBackend({})).http() as client:
        for stream in (True, False):
            assert client.post(CHAT, json=complete_body(CHAT) | {"stream": stream}).status_code == 500
        assert client.get("/health").status_code == 200


def test_the_servers_end_ends_answers_with_an_error(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    served = serve({"m": ENDLESS})
    streamed = post(served, CHAT, complete_body(CHAT) | {"stream": True})
    whole = post(served, CHAT, complete_body(CHAT))
    with streamed, whole:
        for _ in range(2):
            served.backend.begun.get(timeout=10)
        read_until(streamed, b"one")
        served.stop()
        assert b'"shutting_down"' in read_until(streamed, b"0\r\n\r\n")
        answer = read_until(whole, b'"shutting_down"')
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 5" in answer
    for _ in range(2):
        served.backend.ended.get(timeout=10)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(("timeout_s", "end"), [(0, b'"shutting_down"'), (1, b"data: [DONE]")])
def test_running_answers_are_given_the_time_that_is_set(serve: Serve, timeout_s: int, end: bytes) -> None:
    script = script_of(HELLO)
    served = serve({"m": (*script[:3], Pause(0.3), *script[3:])}, shutdown_timeout=timeout_s)
    with post(served, CHAT, complete_body(CHAT) | {"stream": True}) as streamed:
        read_until(streamed, b"Hel")
        served.stop()
        assert end in read_until(streamed, b"0\r\n\r\n")
