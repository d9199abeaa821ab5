"""One structured line per request, whatever became of it; and which backend answers when the first cannot."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from mlx_manager.backends.scripted import Pause, ScriptedBackend, Step, script_of
from mlx_manager.errors import InvalidRequest, MlxManagerError, ShuttingDown, Unavailable, WorkerDied
from mlx_manager.gateway import Gateway
from mlx_manager.ir import (
    Answer,
    GenerationRequest,
    PartDelta,
    PartKind,
    PartStart,
    PromptReady,
    RequestRecord,
    TextPrompt,
    fold,
)
from tests.http.scripted_server import HELLO, TEXT, Serve
from tests.http.test_errors import CHAT, COMPLETIONS, complete_body
from tests.http.test_streams import DEAD, ENDLESS, post

REQUEST = GenerationRequest(request_id="a-1", model="m", prompt=TextPrompt(text="hi"))
Lines = Callable[[int], list[dict[str, Any]]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """The account's lines, once there are so many of them."""
    caplog.set_level(logging.INFO, "mlx_manager.requests")

    def wait_for(count: int) -> list[dict[str, Any]]:
        deadline_s = time.monotonic() + 10
        while True:
            found = [record.getMessage() for record in caplog.records if record.name == "mlx_manager.requests"]
            if len(found) >= count or time.monotonic() > deadline_s:
                assert len(found) == count
                return [json.loads(line) for line in found]
            time.sleep(0.01)

    return wait_for


def test_answered_requests(serve: Serve, lines: Lines) -> None:
    with serve({"m": (Pause(0.05), *script_of(HELLO))}).http() as client:
        for stream in (False, True):
            client.post(CHAT, json=complete_body(CHAT) | {"stream": stream}, headers={"x-request-id": "mine"})
    for line in lines(2):
        assert (line["request_id"], line["model"], line["target"]) == ("mine", "m", "recorder")
        assert (line["status"], line["error_code"], line["priority"]) == (200, None, "normal")
        assert 0.04 < line["queue_s"] <= line["ttft_s"] <= line["duration_s"] < 5
        assert (line["num_prompt_tokens"], line["num_cached_tokens"], line["num_completion_tokens"]) == (7, 0, 4)


def test_every_prompt_of_a_request_has_its_line(serve: Serve, lines: Lines) -> None:
    with serve({"m": script_of(HELLO)}).http() as client:
        client.post(COMPLETIONS, json={"model": "m", "prompt": ["a", "b"]}, headers={"x-request-id": "mine"})
    first, second = lines(2)
    assert first["request_id"] == second["request_id"] == "mine"
    assert first["answer_id"] != second["answer_id"]


def test_refused_and_failed_requests(serve: Serve, lines: Lines) -> None:
    with serve({"m": (*ENDLESS[:3], DEAD)}).http() as client:
        client.post(CHAT, json={"model": "m"})
        client.post(CHAT, json=complete_body(CHAT) | {"model": "nobody"})
        client.post(CHAT, json=complete_body(CHAT))
        client.post(CHAT, json=complete_body(CHAT) | {"stream": True})
    assert [(line["status"], line["error_code"]) for line in lines(4)] == [
        (400, "invalid_request"),
        (404, "model_not_found"),
        (503, "worker_died"),
        (503, "worker_died"),
    ]


def test_client_that_went(serve: Serve, lines: Lines) -> None:
    served = serve({"m": ENDLESS})
    connection = post(served, CHAT, complete_body(CHAT) | {"stream": True})
    served.backend.begun.get(timeout=10)
    connection.close()
    assert [(line["status"], line["error_code"]) for line in lines(1)] == [(499, "client_closed")]


async def answer_by(*scripts: tuple[Step, ...]) -> tuple[Answer | MlxManagerError, RequestRecord]:
    """What a gateway over these backends, in this order, makes of one request."""
    records: list[RequestRecord] = []
    backends = [ScriptedBackend({"m": script}, name=f"backend {index}") for index, script in enumerate(scripts)]
    gateway = Gateway(backends, account=[records.append])
    try:
        async with aclosing(gateway.generate(REQUEST, http_request_id="r")) as events:
            answer: Answer | MlxManagerError = await fold(events, 1)
    except MlxManagerError as error:
        answer = error
    (record,) = records
    return answer, record


async def test_the_next_backend_answers_when_the_first_cannot() -> None:
    answer, record = await answer_by((Unavailable("down"),), (Unavailable("down too"),), script_of(HELLO))
    assert isinstance(answer, Answer)
    assert answer.choices[0].text_of(PartKind.TEXT) == TEXT
    assert (record.status, record.target) == (200, "backend 2")
    assert (record.num_attempts, record.fallback_reason) == (3, "unavailable")


async def test_the_last_failure_is_the_answer() -> None:
    answer, record = await answer_by((Unavailable("down"),), (WorkerDied("dead"),))
    assert isinstance(answer, WorkerDied)
    assert (record.status, record.error_code, record.target) == (503, "worker_died", "backend 1")


async def test_nobody_else_is_asked_once_an_answer_has_begun() -> None:
    begun = (PartStart(0), PartDelta(0, "one"), WorkerDied("dead"))
    answer, record = await answer_by(begun, script_of(HELLO))
    assert isinstance(answer, WorkerDied)
    assert record.target == "backend 0"


async def test_a_prompt_that_is_ready_is_no_answer_yet() -> None:
    answer, record = await answer_by((PromptReady(7), WorkerDied("dead")), script_of(HELLO))
    assert isinstance(answer, Answer)
    assert (record.status, record.target) == (200, "backend 1")


async def test_a_wrong_request_is_not_tried_elsewhere() -> None:
    answer, record = await answer_by((InvalidRequest("wrong"),), script_of(HELLO))
    assert isinstance(answer, InvalidRequest)
    assert record.target == "backend 0"


async def test_a_closing_gateway_takes_no_new_requests() -> None:
    records: list[RequestRecord] = []
    gateway = Gateway([ScriptedBackend({"m": script_of(HELLO)})], account=[records.append])
    gateway.close()
    with pytest.raises(ShuttingDown):
        await anext(gateway.generate(REQUEST, http_request_id="r"))
    assert [(record.status, record.target) for record in records] == [(503, None)]


def test_who_asked_and_from_where(serve: Serve, lines: Lines) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    headers = {"user-agent": "tester/1 \t" + "x" * 500, "traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    with serve({"m": script_of(HELLO)}).http() as client:
        client.post(CHAT, json=complete_body(CHAT), headers=headers)
        client.post(CHAT, json=complete_body(CHAT), headers={"traceparent": "00-" + "0" * 32 + "-b7ad6b7169203331-01"})
    followed, own = lines(2)
    assert (followed["path"], followed["client_address"], followed["trace_id"]) == (CHAT, "127.0.0.1", trace_id)
    assert followed["user_agent"].startswith("tester/1 ?xxx")
    assert len(followed["user_agent"]) == 200
    assert re.fullmatch("[0-9a-f]{32}", own["trace_id"])
    assert int(own["trace_id"], 16) != 0
    assert abs(followed["arrived_unix_s"] - time.time()) < 20


def test_who_is_refused_at_the_door_has_a_line_too(serve: Serve, lines: Lines) -> None:
    served = serve({"m": script_of(HELLO)})
    with served.http() as client:
        client.post(CHAT, json=complete_body(CHAT), headers={"host": "evil.example"})
        client.post("/v1/no-such-thing", json={})
        client.get("/v1/models")
        client.post("/admin/models/m/load")
    refused, lost = lines(2)
    assert (refused["status"], refused["error_code"], refused["answer_id"]) == (403, "host_not_allowed", None)
    assert (lost["status"], lost["error_code"], lost["path"]) == (404, "not_found", "/v1/no-such-thing")
