"""Traces over HTTP: which spans a request leaves, what is in them and what is not, and that none gets lost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlx_manager.app import create_app
from mlx_manager.backends.scripted import Pause, script_of
from mlx_manager.catalog.settings import load_settings
from mlx_manager.observability.scrub import HIDDEN, scrub
from mlx_manager.observability.span_store import SPANS_FILE, SpanReader
from tests.http.scripted_server import HELLO, TEXT, Serve
from tests.http.test_errors import CHAT, COMPLETIONS, complete_body
from tests.http.test_streams import DEAD, ENDLESS
from tests.observability.otlp_collector import collecting

TRACE_ID, CLIENT_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE_ID}-{CLIENT_SPAN}-01"}
SECRET = "sk-proj-abcdefghijklmnopqrstuv"


def traces(client: httpx.Client, count: int, **query: Any) -> list[dict[str, Any]]:
    """The list, once it has so many; they are written a moment after their requests."""
    deadline_s = time.monotonic() + 10
    while True:
        found: list[dict[str, Any]] = client.get("/admin/traces", params=query).json()["traces"]
        if len(found) >= count or time.monotonic() > deadline_s:
            assert len(found) == count
            return found
        time.sleep(0.05)


def spans(client: httpx.Client, id_: str) -> list[dict[str, Any]]:
    """Those of one trace, once the whole HTTP request is among them."""
    deadline_s = time.monotonic() + 10
    while True:
        answer = client.get(f"/admin/traces/{id_}")
        found: list[dict[str, Any]] = answer.json().get("spans", [])
        if any(span["name"].startswith("POST") for span in found):
            return found
        assert time.monotonic() < deadline_s, found
        time.sleep(0.05)


def test_a_request_is_one_trace_under_the_clients_span(serve: Serve) -> None:
    with serve({"m": (Pause(0.05), *script_of(HELLO))}).http() as client:
        client.post(CHAT, json=complete_body(CHAT) | {"temperature": 0.5}, headers=TRACEPARENT)
        (listed,) = traces(client, 1)
        found = spans(client, TRACE_ID)
    assert (listed["trace_id"], listed["model"], listed["status"]) == (TRACE_ID, "m", 200)
    http, request, route, attempt = found
    assert [span["name"] for span in found] == [f"POST {CHAT}", "chat m", "route", "attempt recorder"]
    assert [span["parent_id"] for span in found] == [CLIENT_SPAN, http["span_id"], *[request["span_id"]] * 2]
    assert route["attributes"]["mlx_manager.route.steps"] == [
        "no route matches: this machine answers, if it has the model"
    ]
    assert {span["trace_id"] for span in found} == {TRACE_ID}
    assert http["attributes"]["http.response.status_code"] == 200
    said = request["attributes"]
    assert (said["gen_ai.operation.name"], said["gen_ai.request.model"]) == ("chat", "m")
    assert (said["gen_ai.usage.input_tokens"], said["gen_ai.usage.output_tokens"]) == (7, 4)
    assert (said["gen_ai.request.temperature"], said["gen_ai.response.finish_reasons"]) == (0.5, ["stop"])
    assert "gen_ai.request.presence_penalty" not in said, "nobody named it"
    for span in (http, request, attempt):
        assert 0.04 < (span["end_unix_ns"] - span["start_unix_ns"]) / 1e9 < 5
        assert abs(span["start_unix_ns"] / 1e9 - time.time()) < 20
    assert http["start_unix_ns"] <= request["start_unix_ns"] <= attempt["start_unix_ns"]


def test_every_prompt_of_a_request_is_in_its_trace(serve: Serve) -> None:
    with serve({"m": script_of(HELLO)}).http() as client:
        client.post(COMPLETIONS, json={"model": "m", "prompt": ["a", "b"]}, headers={"x-request-id": "mine"})
        traces(client, 2)
        names = [span["name"] for span in spans(client, "mine")]
    assert sorted(names) == sorted([f"POST {COMPLETIONS}", *["text_completion m", "route", "attempt recorder"] * 2])


def test_failures_and_the_list_of_them(serve: Serve) -> None:
    with serve({"m": (*ENDLESS[:3], DEAD), "slow": (Pause(0.3), *script_of(HELLO))}).http() as client:
        client.post(CHAT, json=complete_body(CHAT))
        client.post(CHAT, json=complete_body(CHAT) | {"model": "slow"})
        first, last = traces(client, 2)
        assert traces(client, 1, failed=True) == [last]
        assert traces(client, 1, min_duration=0.25) == [first]
        assert traces(client, 1, model="slow") == [first]
        page = client.get("/admin/traces", params={"limit": 1}).json()
        assert page["traces"] == [first]
        assert traces(client, 1, before=page["next_before"]) == [last]
        assert client.get("/admin/traces", params={"limit": 0}).status_code == 400
        failed = spans(client, last["trace_id"])
        assert {span["error"] for span in failed if span["name"] != "route"} == {"worker_died"}
        assert client.get("/admin/traces/none").json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("is_kept", [False, True])
def test_prompts_only_with_the_switch_and_secrets_never(serve: Serve, tmp_path: Path, is_kept: bool) -> None:
    served = serve({"m": script_of(HELLO)}, trace_content=is_kept)
    message = {"role": "user", "content": f"my key is {SECRET}, what now?"}
    with served.http() as client:
        headers = {"authorization": f"Bearer {SECRET}"}
        client.post(CHAT, json={"model": "m", "messages": [message]}, headers=headers)
        (listed,) = traces(client, 1)
        said = spans(client, listed["trace_id"])[1]["attributes"]
    assert ("gen_ai.input.messages" in said) == ("gen_ai.output.messages" in said) == is_kept
    if is_kept:
        assert f"my key is {HIDDEN}, what now?" in said["gen_ai.input.messages"]
        assert said["gen_ai.output.messages"] == TEXT
    held = b"".join(file.read_bytes() for file in (tmp_path / "state").glob(f"{SPANS_FILE}*"))
    assert held
    assert SECRET.encode() not in held
    assert (b"what now" in held) == is_kept


def test_without_traces_nothing_is_kept(serve: Serve, tmp_path: Path) -> None:
    with serve({"m": script_of(HELLO)}, traces=False).http() as client:
        client.post(CHAT, json=complete_body(CHAT))
        assert client.get("/admin/traces").json() == {"traces": [], "next_before": None}
    assert not (tmp_path / "state" / SPANS_FILE).exists()


def test_an_orderly_stop_loses_nothing_and_the_file_is_private(serve: Serve, tmp_path: Path) -> None:
    served = serve({"m": script_of(HELLO)})
    with served.http() as client:
        for _ in range(100):
            client.post(CHAT, json=complete_body(CHAT))
        served.stop()
    reader = SpanReader(tmp_path / "state")
    deadline_s = time.monotonic() + 10
    while len(reader.requests(limit=200)) < 100:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    assert (tmp_path / "state" / SPANS_FILE).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "secret",
    [SECRET, "hf_abcdefghijklmnopqrst", "Bearer abcdefghijklmnop", "AKIAIOSFODNN7EXAMPLE", "ghp_" + "a" * 36],
)
def test_what_looks_like_a_secret_is_hidden(secret: str) -> None:
    assert scrub(f"before {secret} after") == f"before {HIDDEN} after"
    assert scrub("a plain sk- text with bearer bonds") == "a plain sk- text with bearer bonds"


SENDER = """
import sys
from pathlib import Path
from mlx_manager.backends.scripted import script_of
from mlx_manager.catalog.settings import load_settings
from tests.http.scripted_server import Recorder, Shelf, running
import httpx
settings = load_settings({}, {"home": sys.argv[1], "port": 0})
with running(settings, Recorder({"m": script_of(["hi", "ho"])}), Shelf()) as served, served.http() as client:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    client.post("/v1/chat/completions", json=body, headers={"traceparent": sys.argv[2]})
print("logfire" in sys.modules)
"""


def run_sender(home: Path, variables: Mapping[str, str]) -> str:
    """One request to a server in a process of its own, whose environment may name a collector."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "LOGFIRE_", "LD_"))}
    command = [sys.executable, "-c", SENDER, str(home), TRACEPARENT["traceparent"]]
    ended = subprocess.run(command, env={**kept, **variables}, capture_output=True, text=True, timeout=60, check=True)
    return ended.stdout.strip()


def test_spans_go_to_the_collector_that_the_environment_names(tmp_path: Path) -> None:
    with collecting() as collector:
        assert run_sender(tmp_path, {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}) == "True"
        sent = {span["span_id"]: span for span in collector.spans()}
        kept = {span.span_id: span for span in SpanReader(tmp_path / "state").trace(TRACE_ID)}
        assert {span.name for span in kept.values()} == {f"POST {CHAT}", "chat m", "route", "attempt recorder"}
        assert set(sent) == set(kept)
        for span_id, span in kept.items():
            for field in ("trace_id", "parent_id", "start_unix_ns", "end_unix_ns"):
                assert sent[span_id][field] == getattr(span, field)
        wanted = {"gen_ai.client.token.usage", *(f"gen_ai.server.{name}" for name in _SERVER_METRICS)}
        assert wanted <= collector.metric_names()


_SERVER_METRICS = ("request.duration", "time_to_first_token", "time_per_output_token")


def test_logfire_is_not_even_imported_where_nobody_is_named(tmp_path: Path) -> None:
    assert run_sender(tmp_path, {}) == "False"


def test_the_app_can_be_made_without_a_home(tmp_path: Path) -> None:
    create_app(load_settings({}, {"home": tmp_path / "none"}))
    assert not (tmp_path / "none").exists()
