"""Bodies that break servers: compressed, cut off, huge, deeply nested, with half of a character. Never a 500."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from backports import zstd

from mlx_manager.backends.scripted import script_of
from tests.http.scripted_server import HELLO, Serve, Served

MESSAGES, CHAT, RESPONSES = "/v1/messages", "/v1/chat/completions", "/v1/responses"
SAID = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    MESSAGES: {"model": "m", "max_tokens": 9, "messages": SAID},
    "/v1/messages/count_tokens": {"model": "m", "messages": SAID},
    CHAT: {"model": "m", "messages": SAID},
    RESPONSES: {"model": "m", "input": "hi"},
    "/v1/completions": {"model": "m", "prompt": "hi"},
}
GENERATING = (MESSAGES, CHAT, RESPONSES)


def send(served: Served, path: str, body: bytes, encoding: str | None = None) -> httpx.Response:
    headers = {"content-type": "application/json"} | ({"content-encoding": encoding} if encoding else {})
    with served.http() as client:
        return client.post(path, content=body, headers=headers)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}


@pytest.fixture(scope="module")
def packed() -> dict[str, bytes]:
    body = json.dumps(BODIES[MESSAGES]).encode()
    return {name: pack(body) for name, pack in PACKERS.items()}


@pytest.mark.parametrize("encoding", PACKERS)
def test_compressed_bodies_are_read(served: Served, encoding: str, packed: dict[str, bytes]) -> None:
    answer = send(served, MESSAGES, packed[encoding], encoding)
    assert answer.status_code == 200, answer.text
    chat = json.dumps(BODIES[CHAT]).encode()
    assert send(served, CHAT, gzip.compress(chat), "GZIP").status_code == 200


@pytest.mark.parametrize(
    "spoil", [lambda sent: sent[:-9], lambda sent: sent + b"more", lambda sent: b"{}", lambda _: b""]
)
@pytest.mark.parametrize("encoding", PACKERS)
def test_what_is_not_compressed_as_it_says_is_refused(
    served: Served, encoding: str, spoil: Any, packed: dict[str, bytes]
) -> None:
    answer = send(served, MESSAGES, spoil(packed[encoding]), encoding)
    assert (answer.status_code, encoding in answer.json()["error"]["message"]) == (400, True)


def test_other_compressions_are_refused_by_name(served: Served) -> None:
    answer = send(served, MESSAGES, b"x", "br")
    assert answer.status_code == 415
    assert "br are not accepted: send gzip, deflate, zstd" in answer.json()["error"]["message"]


def test_zstd_may_not_ask_for_much_memory(served: Served) -> None:
    body = json.dumps(BODIES[MESSAGES]).encode()
    # a stream whose length is not told beforehand, so that all of the window is claimed
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 24})
    answer = send(served, MESSAGES, packer.compress(body) + packer.flush(), "zstd")
    assert (answer.status_code, "zstd" in answer.json()["error"]["message"]) == (400, True)


@pytest.mark.parametrize("encoding", PACKERS)
def test_a_body_that_swells_is_bounded(serve: Serve, encoding: str) -> None:
    served = serve({"m": script_of(HELLO)}, max_body="64KiB")
    bomb = PACKERS[encoding](b'{"model": "' + b"a" * 20_000_000 + b'"}')
    assert len(bomb) < 64 * 1024
    assert send(served, MESSAGES, bomb, encoding).status_code == 413
    fits = json.dumps(BODIES[MESSAGES] | {"system": "a" * 60_000}).encode()
    assert send(served, MESSAGES, PACKERS[encoding](fits), encoding).status_code == 200


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("depth", [150, 1000, 100_000])
@pytest.mark.parametrize("field", ["messages", "tools", "metadata", "from_the_future", "input", "prompt"])
def test_deep_nesting_is_refused_or_taken(served: Served, path: str, depth: int, field: str) -> None:
    whole = json.dumps(BODIES[path] | {field: "<deep>"}).encode()
    for deep in (nested(depth), b"[" * depth + b"]" * depth):
        answer = send(served, path, whole.replace(b'"<deep>"', deep))
        assert answer.status_code in (200, 400), answer.text


@pytest.mark.parametrize("depth", [150, 190])
@pytest.mark.parametrize("path", GENERATING)
def test_deeply_nested_schemas_and_inputs_are_refused_or_taken(served: Served, path: str, depth: int) -> None:
    deep = json.loads(nested(depth))
    call = {"type": "tool_use", "id": "t", "name": "f", "input": deep}
    function = {"name": "f", "parameters": deep}
    sent: dict[str, list[dict[str, Any]]] = {
        MESSAGES: [
            {"tools": [{"name": "f", "input_schema": deep}]},
            {"messages": [*SAID, {"role": "assistant", "content": [call]}, *SAID]},
            {"output_config": {"format": {"type": "json_schema", "schema": deep}}},
        ],
        CHAT: [{"tools": [{"type": "function", "function": function}]}],
        RESPONSES: [{"tools": [{"type": "function", "strict": None} | function]}],
    }
    for more in sent[path]:
        answer = send(served, path, json.dumps(BODIES[path] | more).encode())
        assert answer.status_code in (200, 400), answer.text


HALVES = (b"\\ud800", b"\\udfff", b"a\\ud83d b", b"\xed\xa0\x80", b"\xff", b"\x00")


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("path", BODIES)
def test_half_of_a_character_is_refused(served: Served, path: str, half: bytes) -> None:
    whole = json.dumps(BODIES[path]).encode().replace(b"hi", half)
    answer = send(served, path, whole)
    assert answer.status_code == 400
    assert "not valid JSON" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", GENERATING)
def test_a_body_of_32_megabytes_is_taken(served: Served, path: str) -> None:
    text = "word " * (6 * 1024**2)
    field = "input" if path == RESPONSES else "messages"
    body = json.dumps(BODIES[path] | {field: [{"role": "user", "content": text}]}).encode()
    assert len(body) > 31_000_000
    assert send(served, path, body).status_code == 200
    assert send(served, path, body.replace(b"word ", b"words ")).status_code == 413


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'"hi"', b"{", b"{}", b"1e400", b"NaN"])
def test_what_is_no_request_is_refused(served: Served, path: str, body: bytes) -> None:
    assert send(served, path, body).status_code == 400
