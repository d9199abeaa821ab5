"""Who answers when somebody cannot: the next target, before anything has gone out, and never for a wrong request."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from mlx_manager.backends.scripted import Pause, script_of
from mlx_manager.errors import (
    ContextLengthExceeded,
    GenerationFailed,
    InsufficientMemory,
    InvalidRequest,
    ModelLoadFailed,
    QueueFull,
    Unavailable,
    UnsupportedParameter,
    WorkerDied,
)
from mlx_manager.ir import PartDelta, PartStart, PromptReady
from tests.clouds.conftest import Cloud
from tests.clouds.upstream_server import TEXT
from tests.http.scripted_server import HELLO

CLOUD_TEXT = "".join(TEXT)
LOCAL_TEXT = "".join(HELLO)
Make = Callable[..., Cloud]
LOCAL_THEN_CLOUD = [{"model": "m"}, {"provider": "up", "model": "ok"}]


def text_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unavailable("down"), "unavailable"),
        (ModelLoadFailed("broken"), "model_load_failed"),
        (InsufficientMemory("no room"), "insufficient_memory"),
        (WorkerDied("dead"), "worker_died"),
        (QueueFull("full"), "queue_full"),
        (GenerationFailed("broken"), "generation_failed"),
    ],
)
def test_a_local_model_that_fails_is_stood_in_for(scripted_cloud: Make, error: Exception, code: str) -> None:
    cloud = scripted_cloud({"m": (PromptReady(7), error)})
    cloud.route("spill", LOCAL_THEN_CLOUD)
    answer = cloud.ask()
    assert text_of(answer) == CLOUD_TEXT
    assert answer.headers["x-mlx-backend"] == "up"
    assert answer.headers["x-mlx-fallback-reason"] == code


def test_who_answered_is_said(cloud: Cloud) -> None:
    cloud.route("spill", LOCAL_THEN_CLOUD)
    answer = cloud.ask()
    assert text_of(answer) == LOCAL_TEXT
    assert answer.headers["x-mlx-backend"] == "recorder"
    assert "x-mlx-fallback-reason" not in answer.headers
    assert cloud.ask("m").headers["x-mlx-backend"] == "recorder"
    assert cloud.ask(stream=True).headers["x-mlx-backend"] == "recorder"


def test_who_answered_late_is_said_in_a_comment(scripted_cloud: Make) -> None:
    cloud = scripted_cloud({"m": (Pause(1.2), Unavailable("down"))}, keepalive=0.5)
    cloud.route("spill", LOCAL_THEN_CLOUD)
    answer = cloud.ask(stream=True)
    assert ": x-mlx-fallback-reason: unavailable\n" in answer.text
    assert ": x-mlx-backend: up\n" in answer.text


def test_nobody_stands_in_once_something_has_gone_out(scripted_cloud: Make) -> None:
    cloud = scripted_cloud({"m": (PartStart(0), PartDelta(0, "one"), WorkerDied("dead"))})
    cloud.route("spill", LOCAL_THEN_CLOUD)
    before = cloud.upstream.num_asked
    failed = cloud.ask()
    assert (failed.status_code, failed.json()["error"]["code"]) == (503, "worker_died")
    streamed = cloud.ask(stream=True)
    assert streamed.status_code == 200
    assert "worker_died" in streamed.text.splitlines()[-2]
    assert cloud.upstream.num_asked == before


def test_a_wrong_request_is_not_handed_on(scripted_cloud: Make) -> None:
    cloud = scripted_cloud({"m": (InvalidRequest("wrong"),)})
    cloud.route("spill", [*LOCAL_THEN_CLOUD])
    before = cloud.upstream.num_asked
    assert cloud.ask().status_code == 400
    cloud.route("cloud", [{"provider": "up", "model": "refused"}, {"provider": "up", "model": "ok"}], "other")
    refused = cloud.ask("other")
    assert refused.status_code == 400
    assert "up refuses the request: messages: too odd" in refused.json()["error"]["message"]
    assert cloud.upstream.num_asked == before + 1


def test_what_one_target_cannot_do_is_asked_of_the_next(scripted_cloud: Make) -> None:
    blind = UnsupportedParameter("this model does not see", param="messages")
    cloud = scripted_cloud({"m": (blind,)})
    cloud.provider(name="claude", kind="anthropic")
    cloud.route("sees", LOCAL_THEN_CLOUD)
    seen = cloud.ask()
    assert text_of(seen) == CLOUD_TEXT
    assert seen.headers["x-mlx-fallback-reason"] == "unsupported_parameter"
    cloud.route("seeded", [{"provider": "claude", "model": "ok"}, {"provider": "up", "model": "ok"}], "seeded")
    assert cloud.ask("seeded", seed=1).headers["x-mlx-backend"] == "up"
    assert cloud.ask("seeded").headers["x-mlx-backend"] == "claude"
    # where nobody can, the last one says so, and a model that is asked for by its own name does itself
    refused = cloud.ask("seeded", top_k=5, seed=1)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "top_k")
    assert cloud.ask("m").status_code == 400


def test_a_context_that_is_too_short_is_no_error_where_a_route_says_so(scripted_cloud: Make) -> None:
    cloud = scripted_cloud({"m": (ContextLengthExceeded("too long"),)})
    cloud.route("strict", LOCAL_THEN_CLOUD)
    cloud.route("long", LOCAL_THEN_CLOUD, "gpt-long", spill={"when_too_long": True})
    assert cloud.ask().status_code == 400
    assert text_of(cloud.ask("gpt-long")) == CLOUD_TEXT


def test_a_queue_that_is_too_long_is_passed_by(scripted_cloud: Make) -> None:
    cloud = scripted_cloud({"m": (Pause(15.0), *script_of(HELLO))})
    cloud.route("spill", LOCAL_THEN_CLOUD, spill={"queue_wait_s": 0.3})
    began_s = time.monotonic()
    answer = cloud.ask()
    assert text_of(answer) == CLOUD_TEXT
    assert answer.headers["x-mlx-fallback-reason"] == "queue_wait"
    assert 0.3 <= time.monotonic() - began_s < 10.0


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("busy", "provider_busy"),
        ("broken", "provider_failed"),
        ("no-key", "provider_failed"),
        ("html", "provider_failed"),
        ("elsewhere", "provider_failed"),
        ("malformed", "provider_failed"),
        ("other-form", "provider_failed"),
        ("cut-first", "provider_failed"),
        ("hang", "target_timeout"),
    ],
)
def test_a_provider_that_fails_is_stood_in_for(cloud: Cloud, model: str, code: str) -> None:
    cloud.route("chain", [{"provider": "up", "model": model}, {"model": "m"}])
    for stream in (False, True):
        answer = cloud.ask(stream=stream)
        assert answer.status_code == 200
        assert answer.headers["x-mlx-backend"] == "recorder"
        assert answer.headers["x-mlx-fallback-reason"] == code


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [("busy", 503, "provider_busy"), ("broken", 502, "provider_failed"), ("hang", 504, "target_timeout")],
)
def test_a_provider_that_fails_alone_says_so(cloud: Cloud, model: str, status: int, code: str) -> None:
    cloud.lead(model)
    failed = cloud.ask()
    assert (failed.status_code, failed.json()["error"]["code"]) == (status, code)
    assert cloud.upstream.base_url not in failed.text
    if model == "busy":
        assert failed.headers["retry-after"] == "30"


@pytest.mark.parametrize("model", ["busy-forever", "busy-never"])
def test_a_provider_that_names_no_time_names_none(cloud: Cloud, model: str) -> None:
    cloud.lead(model)
    failed = cloud.ask()
    assert (failed.status_code, failed.json()["error"]["code"]) == (503, "provider_busy")
    assert failed.headers["retry-after"] == "1"


def test_a_model_that_a_provider_does_not_have_is_not_found_and_no_failure(cloud: Cloud) -> None:
    cloud.lead("unknown")
    for _ in range(6):
        missing = cloud.ask()
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")
    assert "up has no model 'unknown'" in missing.json()["error"]["message"]
    # an address that leads elsewhere is the operator's to mend
    cloud.lead("misled")
    assert cloud.ask().status_code == 502


def test_a_pause_between_tokens_may_be_longer_than_the_wait_for_the_first(cloud: Cloud) -> None:
    patient = {"connect_s": 2.0, "first_token_s": 0.5, "between_tokens_s": 5.0, "total_s": 20.0}
    cloud.client.patch("/admin/providers/up", json={"timeouts": patient})
    cloud.lead("pauses")
    assert text_of(cloud.ask()) == CLOUD_TEXT


@pytest.mark.parametrize("model", ["cut", "silent"])
def test_a_stream_that_breaks_in_the_middle_ends_with_an_error(cloud: Cloud, model: str) -> None:
    cloud.route("chain", [{"provider": "up", "model": model}, {"model": "m"}])
    streamed = cloud.ask(stream=True)
    assert TEXT[0] in streamed.text
    last = json.loads(streamed.text.strip().splitlines()[-1].removeprefix("data: "))
    assert last["error"]["code"] in ("provider_failed", "target_timeout")
    assert cloud.ask().status_code in (502, 504)


def test_a_stream_in_small_pieces_is_whole(cloud: Cloud) -> None:
    cloud.lead("drip")
    assert text_of(cloud.ask()) == CLOUD_TEXT


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_connections_are_used_again(cloud: Cloud, kind: str) -> None:
    cloud.provider(name="again", kind=kind)
    cloud.route("again", [{"provider": "again", "model": "ok"}])
    assert [text_of(cloud.ask(stream=False)) for _ in range(12)] == [CLOUD_TEXT] * 12
    # the end of an answer may still be on its way when the next request comes
    assert len(set(cloud.upstream.connections[-12:])) <= 4


def test_nobody_waits_for_a_provider_that_ends_late(cloud: Cloud) -> None:
    cloud.lead("lingers")
    answer = cloud.ask()
    assert text_of(answer) == CLOUD_TEXT
    assert answer.elapsed.total_seconds() < 0.4


def test_a_provider_is_asked_again_before_its_first_byte(cloud: Cloud) -> None:
    cloud.client.patch("/admin/providers/up", json={"max_retries": 2})
    cloud.lead("flaky")
    cloud.upstream.num_failures_first = 2
    before = cloud.upstream.num_asked
    assert text_of(cloud.ask()) == CLOUD_TEXT
    assert cloud.upstream.num_asked == before + 3
    cloud.upstream.num_failures_first = 3
    assert cloud.ask().status_code == 502
    assert cloud.upstream.num_failures_first == 0


def test_a_target_that_keeps_failing_is_left_alone(cloud: Cloud) -> None:
    cloud.route("chain", [{"provider": "up", "model": "broken"}, {"model": "m"}])
    before = cloud.upstream.num_asked
    for _ in range(8):
        assert text_of(cloud.ask()) == LOCAL_TEXT
    assert cloud.upstream.num_asked == before + 5
    explained = cloud.client.post("/admin/routes/test", json={"model": "gpt"}).json()
    assert [target["breaker"] for target in explained["targets"]] == ["open", "closed"]
    cloud.lead("broken")
    alone = cloud.client.post("/admin/routes/test", json={"model": "gpt"}).json()
    assert alone["route"] == "chain"


def test_a_model_here_that_keeps_failing_is_left_alone(scripted_cloud: Make) -> None:
    cloud = scripted_cloud({"m": (WorkerDied("dead"),), "full": (QueueFull("full"),)})
    cloud.client.patch("/admin/providers/up", json={"timeouts": {}})
    cloud.route("spill", LOCAL_THEN_CLOUD)
    cloud.route("crowd", [{"model": "full"}, {"provider": "up", "model": "ok"}], "crowd")
    for model in ("gpt", "crowd"):
        for _ in range(8):
            assert text_of(cloud.ask(model)) == CLOUD_TEXT
    # that its queue is full says nothing of a model
    assert [request.model for request in cloud.served.backend.requests] == ["m"] * 5 + ["full"] * 8
    # who has nobody else is told by the model itself
    assert cloud.ask("m").json()["error"]["code"] == "worker_died"


def test_a_client_that_goes_ends_the_provider_s_stream_and_pays_for_it(scripted_cloud: Make) -> None:
    cloud = scripted_cloud({})
    cloud.client.patch("/admin/providers/up", json={"prices": {"slow": {"input_usd": 1000.0, "output_usd": 2000.0}}})
    cloud.lead("slow")
    before = cloud.upstream.num_left
    body = {"model": "gpt", "messages": [{"role": "user", "content": "word " * 80}], "stream": True}
    headers = {"x-request-id": f"left-{time.time()}"}
    with cloud.client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as streamed:
        next(streamed.iter_raw())
    deadline_s = time.monotonic() + 5
    while cloud.upstream.num_left == before and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert cloud.upstream.num_left == before + 1
    # nobody told what it had used: it is estimated, and counts
    query = {"request_id": headers["x-request-id"]}
    while not (rows := cloud.client.get("/admin/requests", params=query).json()["requests"]):
        assert time.monotonic() < deadline_s + 5
        time.sleep(0.02)
    record = rows[0]["record"]
    assert (record["status"], record["num_prompt_tokens"]) == (499, 100)
    assert record["num_completion_tokens"] >= 1
    assert record["cost_usd"] == pytest.approx((100 * 1000 + record["num_completion_tokens"] * 2000) / 1_000_000)


def test_private_means_private(cloud: Cloud) -> None:
    cloud.route("spill", [{"provider": "up", "model": "ok"}, {"model": "m"}])
    cloud.route("cloud", [{"provider": "up", "model": "ok"}], "only-cloud")
    assert text_of(cloud.ask()) == CLOUD_TEXT
    before = cloud.upstream.num_asked
    assert text_of(cloud.ask(headers={"x-backend": "local"})) == LOCAL_TEXT
    for wrong in ("lokal", "local, x", "cloud"):
        unclear = cloud.ask(headers={"x-backend": wrong})
        assert (unclear.status_code, unclear.json()["error"]["param"]) == (400, "x-backend")
    refused = cloud.ask("only-cloud", headers={"x-backend": "local"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_permitted")
    cloud.client.patch("/admin/settings", json={"use_cloud": False})
    assert text_of(cloud.ask()) == LOCAL_TEXT
    assert cloud.ask("only-cloud").status_code == 403
    assert cloud.upstream.num_asked == before
    cloud.client.patch("/admin/settings", json={"use_cloud": None})
    assert text_of(cloud.ask()) == CLOUD_TEXT


def test_each_request_is_accounted_for_once(scripted_cloud: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mlx_manager.requests")
    cloud = scripted_cloud({"m": (WorkerDied("dead"),)})
    cloud.route("spill", LOCAL_THEN_CLOUD)
    for _ in range(3):
        assert cloud.ask().status_code == 200
    lines: list[dict[str, Any]] = [
        json.loads(record.getMessage()) for record in caplog.records if record.name == "mlx_manager.requests"
    ]
    assert len(lines) == 3
    for line in lines:
        assert (line["target"], line["num_attempts"], line["fallback_reason"]) == ("up", 2, "worker_died")
        assert (line["num_prompt_tokens"], line["num_cached_tokens"], line["num_completion_tokens"]) == (11, 4, 5)


def test_many_at_once_use_no_more_of_a_budget_than_one_by_one(scripted_cloud: Make) -> None:
    cloud = scripted_cloud({"m": (Pause(0.3), *script_of(HELLO))})
    client = cloud.client
    client.patch("/admin/providers/up", json={"prices": {"slow": {"input_usd": 1e6, "output_usd": 1e6}}})
    cloud.lead("slow")
    client.post("/auth/register", json={"name": "ada", "password": "correct horse"})
    headers = []
    for name, limits in (("money", {"budget_usd_per_month": 1.0}), ("tokens", {"tokens_per_day": 5})):
        made = client.post("/admin/keys", json={"name": name, "user": "ada", "limits": limits}).json()
        headers.append({"x-api-key": made["secret"]})
    for shown, model in ((headers[0], "gpt"), (headers[1], "m")):
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _, s=shown, m=model: cloud.ask(m, headers=s), range(8)))
        assert sorted(answer.status_code for answer in answers) == [200] + [429] * 7
        held = next(answer for answer in answers if answer.status_code == 429)
        assert int(held.headers["retry-after"]) <= 5
        # what one has used is used
        spent = cloud.ask(model, headers=shown)
        assert spent.status_code == 429
        assert int(spent.headers["retry-after"]) > 5


def test_what_answers_cost_is_held_to_a_budget(cloud: Cloud) -> None:
    # an answer takes 11 tokens, 4 of them cached, and 5
    price = {"input_usd": 10_000.0, "output_usd": 20_000.0, "cached_input_usd": 2_500.0}
    cloud.client.patch("/admin/providers/up", json={"prices": {"ok": price}})
    cloud.route("spill", [{"provider": "up", "model": "ok"}, {"model": "m"}])
    cost_usd = (7 * 10_000 + 4 * 2_500 + 5 * 20_000) / 1_000_000
    cloud.client.patch("/admin/settings", json={"cloud_budget": cost_usd * 2})
    first = cloud.ask()
    assert first.headers["x-mlx-backend"] == "up"
    assert "x-mlx-budget-used" not in first.headers
    assert cloud.ask().headers["x-mlx-backend"] == "up"
    assert cloud.ask().headers["x-mlx-backend"] == "recorder"
    cloud.client.patch("/admin/settings", json={"cloud_budget": cost_usd * 2.4})
    warned = cloud.ask()
    assert (warned.headers["x-mlx-backend"], warned.headers["x-mlx-budget-used"]) == ("up", "83%")
    cloud.lead("ok")
    cloud.client.delete("/admin/routes/spill")
    spent = cloud.ask()
    assert (spent.status_code, spent.json()["error"]["code"]) == (429, "budget_spent")
