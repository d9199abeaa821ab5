"""`X-Debug: prefix` is answered with what the prefix cache had of each prompt, and every account says it too."""

from __future__ import annotations

import queue
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from mlx_manager.backends.scripted import Pause, Step, script_of
from mlx_manager.ir import Event, GenerationRequest, PrefixReason, PrefixReport, PromptReady
from tests.http.scripted_server import HELLO, Recorder, Serve, Served
from tests.http.test_account import Lines, lines
from tests.http.test_errors import CHAT, COMPLETIONS, complete_body
from tests.http.test_streams import post, read_until

__all__ = ["lines"]

ASKED = {"x-debug": "timing, Prefix"}


def prompt_ready(reason: PrefixReason, num_agreed_tokens: int) -> PromptReady:
    return PromptReady(
        7,
        PrefixReport(reason=reason, num_prompt_tokens=7, num_matched_tokens=4, num_agreed_tokens=num_agreed_tokens),
    )


REPORTED: tuple[Step, ...] = (prompt_ready(PrefixReason.TEXT, 5), *script_of(HELLO)[1:])
BODIES: dict[str, dict[str, Any]] = {
    **{path: complete_body(path) for path in (CHAT, COMPLETIONS)},
    "/v1/responses": {"model": "m", "input": "hi"},
    "/v1/messages": {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]},
}
TEXT_HEADER = "text;prompt=7;matched=4;agreed=5"


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [False, True])
def test_the_header_is_there_for_who_asks(serve: Serve, stream: bool, path: str) -> None:
    with serve({"m": REPORTED}).http() as client:
        body = BODIES[path] | {"stream": stream}
        assert client.post(path, json=body, headers=ASKED).headers["x-prefix-cache"] == TEXT_HEADER
        for headers in ({}, {"x-debug": "prefixes"}):
            assert "x-prefix-cache" not in client.post(path, json=body, headers=headers).headers


def test_headers_that_went_out_before_are_made_up_for_by_one_comment(serve: Serve) -> None:
    slow = (Pause(0.3), *REPORTED)
    with serve({"m": slow}, keepalive=0.1).http() as client:
        answer = client.post(CHAT, json=complete_body(CHAT) | {"stream": True}, headers=ASKED)
    assert "x-prefix-cache" not in answer.headers
    frames = [frame for frame in answer.text.split("\n\n") if frame != ": keep-alive"]
    assert frames[0] == f": x-prefix-cache: {TEXT_HEADER}"
    assert answer.text.count("x-prefix-cache") == 1


class OnePerPrompt(Recorder):
    """Agrees with each prompt as far as its text says, the first prompt last."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """A report and an answer."""
        num_agreed_tokens = int(getattr(request.prompt, "text", "0"))
        steps = (prompt_ready(PrefixReason.EVICTED, num_agreed_tokens), *script_of(HELLO)[1:])
        self._scripted = type(self._scripted)({"m": (Pause((9 - num_agreed_tokens) / 20), *steps)})
        async for event in super().generate(request):
            yield event


def test_several_prompts_have_their_items_in_their_order(serve: Serve) -> None:
    with serve(OnePerPrompt({})).http() as client:
        answer = client.post(COMPLETIONS, json={"model": "m", "prompt": ["5", "6"]}, headers=ASKED)
    assert answer.headers["x-prefix-cache"] == (
        "evicted;prompt=7;matched=4;agreed=5, evicted;prompt=7;matched=4;agreed=6"
    )


def test_the_account_says_it_for_every_request(serve: Serve, lines: Lines) -> None:
    served = serve({"m": REPORTED, "endless": (*REPORTED[:3], Pause(60))})
    with served.http() as client:
        client.post(CHAT, json=complete_body(CHAT))
    connection = post(served, CHAT, complete_body(CHAT) | {"model": "endless", "stream": True})
    read_until(connection, HELLO[0].encode())
    connection.close()
    whole, left = lines(2)
    assert (whole["prefix_reason"], whole["num_agreed_tokens"], whole["num_cached_tokens"]) == ("text", 5, 0)
    assert (left["status"], left["prefix_reason"], left["num_prompt_tokens"], left["num_cached_tokens"]) == (
        499,
        "text",
        7,
        4,
    )


@pytest.mark.parametrize(("stream", "num_prompts"), [(False, 1), (True, 2)])
def test_requests_that_the_servers_end_cut_short_are_accounted_as_that(
    serve: Serve, lines: Lines, stream: bool, num_prompts: int
) -> None:
    served: Served = serve({"m": (*REPORTED[:2], Pause(60))})
    body = {"model": "m", "prompt": ["a", "b"][:num_prompts], "stream": stream}
    with post(served, COMPLETIONS, body) as connection:
        for _ in range(num_prompts):
            served.backend.begun.get(timeout=10)
        served.stop()
        read_until(connection, b"shutting_down")
    assert {(line["status"], line["error_code"]) for line in lines(num_prompts)} == {(503, "shutting_down")}
    with pytest.raises(queue.Empty):
        served.backend.begun.get_nowait()
