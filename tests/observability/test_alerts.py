"""Alerts: each fires once and says when it clears, in the log, over HTTP and at a webhook that fails at first."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlx_manager.backends.scripted import script_of
from mlx_manager.catalog.settings.setting import SettingsError
from mlx_manager.ir import RequestRecord
from mlx_manager.observability.alerts import AlertLimits, AlertWatch
from mlx_manager.observability.budget_use import BudgetUse
from mlx_manager.observability.webhook import Webhook
from mlx_manager.pool import PoolStats
from tests.http.scripted_server import HELLO, Serve, shelved
from tests.http.test_errors import CHAT, complete_body
from tests.http.test_streams import DEAD
from tests.observability.webhook_server import Hook, running_hook

NEVER = AlertLimits(error_share=0, ttft_s=0, num_worker_restarts=0, disk_free_bytes=0)


@pytest.fixture
def hook() -> Iterator[Hook]:
    """Listens until the test ends."""
    with running_hook() as listening:
        yield listening


def test_an_alert_fires_once_and_says_when_it_clears(serve: Serve, hook: Hook) -> None:
    served = serve({"m": script_of(HELLO), "dies": (DEAD,)}, alert_webhook=hook.url, alert_period=0.1)
    with served.http() as client:
        for _ in range(10):
            client.post(CHAT, json=complete_body(CHAT) | {"model": "dies"})
        fired = hook.posts.get(timeout=10)
        assert (fired["name"], fired["cleared_unix_s"]) == ("error_rate", None)
        assert "10 of 10 requests" in fired["message"]
        (listed,) = client.get("/admin/alerts").json()["firing"]
        assert listed == fired
        # 10 of 250 is less than the 5 % of the default
        for _ in range(240):
            client.post(CHAT, json=complete_body(CHAT))
        cleared = hook.posts.get(timeout=10)
        assert (cleared["name"], cleared["fired_unix_s"]) == ("error_rate", fired["fired_unix_s"])
        assert abs(cleared["cleared_unix_s"] - time.time()) < 20
        time.sleep(0.5)
        assert hook.posts.empty()
        assert client.get("/admin/alerts").json() == {"firing": [], "past": [cleared]}


async def test_a_webhook_that_fails_is_asked_again(hook: Hook) -> None:
    hook.num_failures = 3
    webhook = Webhook(hook.url, backoff_s=0.01)
    webhook.put(b'{"number": 1}')
    webhook.put(b'{"number": 2}')
    await webhook.close()
    assert [hook.posts.get(timeout=5)["number"] for _ in range(2)] == [1, 2]


class Clock:
    """Time that a test moves."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def record(*, ttft_s: float) -> RequestRecord:
    return RequestRecord(request_id="r", status=200, ttft_s=ttft_s)


def test_slow_first_tokens(tmp_path: Path) -> None:
    clock = Clock()
    limits = AlertLimits(error_share=0, ttft_s=1.0, num_worker_restarts=0, disk_free_bytes=0)
    watch = AlertWatch(limits, tmp_path, lambda: [], lambda: None, clock=clock)
    for _ in range(9):
        watch.count(record(ttft_s=5.0))
    watch.look()
    assert not watch.firing, "too few to tell"
    watch.count(record(ttft_s=5.0))
    watch.look()
    assert set(watch.firing) == {"time_to_first_token"}
    clock.now_s += 301
    watch.look()
    assert not watch.firing
    assert [alert.name for alert in watch.past] == ["time_to_first_token"]


def test_workers_that_die(tmp_path: Path) -> None:
    clock, deaths = Clock(), [5]
    limits = AlertLimits(error_share=0, ttft_s=0, num_worker_restarts=2, disk_free_bytes=0)
    watch = AlertWatch(limits, tmp_path, lambda: [shelved("m", num_worker_deaths=deaths[0])], lambda: None, clock=clock)
    watch.look()
    deaths[0] = 6
    watch.look()
    assert not watch.firing
    deaths[0] = 7
    watch.look()
    assert set(watch.firing) == {"worker_restarts"}
    clock.now_s += 901
    watch.look()
    assert not watch.firing


def test_a_disk_that_fills(tmp_path: Path) -> None:
    limits = AlertLimits(error_share=0, ttft_s=0, num_worker_restarts=0, disk_free_bytes=2**60)
    watch = AlertWatch(limits, tmp_path, lambda: [], lambda: None)
    watch.look()
    assert set(watch.firing) == {"disk"}
    off = AlertWatch(NEVER, tmp_path, lambda: [], lambda: None)
    off.look()
    assert not off.firing


def test_budgets_in_all_and_by_key(tmp_path: Path) -> None:
    uses = [
        BudgetUse(spent_usd=9.0),
        BudgetUse(spent_usd=7.9, budget_usd=10.0, key="cheap", key_id=1, user="ada"),
        BudgetUse(spent_usd=8.0, budget_usd=10.0, key="ci", key_id=2, user="ada"),
        BudgetUse(spent_usd=0.0, budget_usd=0.0, key="none", key_id=3),
    ]
    watch = AlertWatch(NEVER, tmp_path, lambda: [], lambda: None, budget_uses=lambda: uses)
    watch.look()
    assert set(watch.firing) == {"budget:ci#2", "budget:none#3", "budget_spent:none#3"}
    assert "'ci' (of ada)" in watch.firing["budget:ci#2"].message
    # the next month begins
    uses[:] = [BudgetUse(spent_usd=0.0)]
    watch.look()
    assert not watch.firing


async def test_the_watch_goes_on_where_a_look_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    home = tmp_path / "home"
    answers: list[PoolStats | None] = []
    limits = dataclasses.replace(NEVER, disk_free_bytes=1)
    # the first looks raise, as there is no answer yet
    watch = AlertWatch(limits, home, lambda: [], lambda: answers[0], period_s=0.01)
    watch.open()
    await asyncio.sleep(0.1)
    assert "A look at the alerts failed" in caplog.text
    answers.append(None)
    await until(lambda: "disk" in watch.firing)
    assert "cannot be looked at" in watch.firing["disk"].message
    home.mkdir()
    await until(lambda: not watch.firing)
    await watch.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the watch has no event for it
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "address", ["http://[::1", "http://", "https://a b/", "http://x:port/", "ftp://x/", "http://\n"]
)
def test_a_webhook_that_is_no_address_is_refused(serve: Serve, address: str) -> None:
    with pytest.raises(SettingsError, match="such as https"):
        serve({}, alert_webhook=address)


async def test_a_webhook_that_cannot_be_asked_is_given_up_with_words(caplog: pytest.LogCaptureFixture) -> None:
    webhook = Webhook("http://[::1", backoff_s=0.001)
    webhook.put(b"{}")
    await webhook.close()
    assert "could not be posted to the webhook: InvalidURL" in caplog.text
