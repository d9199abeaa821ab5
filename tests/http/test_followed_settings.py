"""Each setting that is said to take effect at once: changed while a server runs, and what follows it observed.

One server over a pool of workers that count, and a table of observers: a new setting fails until it has one.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlx_manager.app import Parts
from mlx_manager.app.parts import follow_in_pool
from mlx_manager.backends.local import LocalBackend
from mlx_manager.catalog.settings import SETTINGS, Effect, Settings, load_settings
from mlx_manager.observability.span_store import SPANS_FILE
from mlx_manager.storage.database import SQLITE_FILE
from tests.http.scripted_server import running_app
from tests.observability.webhook_server import Hook, running_hook
from tests.pool.counting_pool import MODEL_BYTES, counting_pool, set_mode

MIB = 1024**2
NO_ALERTS = {"alert_error_share": 0, "alert_worker_restarts": 0, "alert_disk_free": 0, "alert_period": 3600}
START = {"memory_budget": f"{2 * MODEL_BYTES // MIB}MiB", "memory_floor": 0, **NO_ALERTS}
"""Room for two models, and no alert that nobody asked for."""
LONG = {"model": "a", "prompt": "200 0.1", "stream": True}


@dataclass
class Running:
    """The server, and what a test may do to it beside asking."""

    client: httpx.Client
    folder: Path
    """Of the models a, b and c."""
    hook: Hook
    taken_bytes: list[int] = field(default_factory=lambda: [0])
    """What every worker is found to take."""

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def change(self, **settings: object) -> None:
        changed = self.client.patch("/admin/settings", json=settings)
        assert changed.status_code == 200, changed.text

    def ask(self, prompt: str = "1 0", model: str = "a", **more: Any) -> httpx.Response:
        """`prompt` is how many tokens are wanted, and how many seconds lie between two of them."""
        return self.client.post("/v1/completions", json={"model": model, "prompt": prompt, **more})

    def get(self, path: str) -> Any:
        return self.client.get(f"/admin/{path}").raise_for_status().json()

    def model(self, name: str = "a") -> dict[str, Any]:
        found: dict[str, Any] = next(one for one in self.get("models")["models"] if one["id"] == name)
        return found

    def num_hung(self) -> int:
        """How often the worker of a was ended because it said nothing."""
        return int(self.model()["num_by_fault"].get("hung", 0))

    def firing(self) -> set[str]:
        return {alert["name"] for alert in self.get("alerts")["firing"]}

    def lose_a_worker(self) -> None:
        """One that dies as it loads c, of which a request fails."""
        self.client.post("/admin/models/c/unload").raise_for_status()
        set_mode(self.folder, "dies", "c")
        self.client.post("/admin/models/c/load").raise_for_status()
        assert self.ask(model="c").status_code == 503
        self.mend("c")

    def mend(self, name: str) -> None:
        """Load a model that could not be loaded."""
        set_mode(self.folder, "good", name)
        self.client.post(f"/admin/models/{name}/load").raise_for_status()
        self.wait(lambda: self.model(name)["state"] == "ready")

    def age(self, file: Path, statement: str) -> None:
        """Change what is kept in one of its databases."""
        with closing(sqlite3.connect(file, timeout=10)) as database, database:
            assert database.execute(statement).rowcount > 0

    def wait(self, is_so: Callable[[], object]) -> None:
        deadline_s = time.monotonic() + 20
        while not is_so():
            assert time.monotonic() < deadline_s
            time.sleep(0.02)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that has been asked a few times. Log levels are this process's: they are put back."""
    log_level_before = logging.getLogger().level
    folder = tmp_path_factory.mktemp("followed")
    taken_bytes = [0]

    @asynccontextmanager
    async def parts(_: Settings) -> AsyncIterator[Parts]:
        async with counting_pool(folder, names="abc", check_period_s=0.05, measure=lambda pid: taken_bytes[0]) as pool:
            follow_in_pool(pool, settings)
            yield Parts(
                backends=(LocalBackend(pool),),
                models=pool,
                pool=pool,
                follow=lambda changed: follow_in_pool(pool, changed),
            )

    settings = load_settings({}, {"home": str(folder / "home"), "port": 0, **START})
    with (
        running_hook() as hook,
        running_app(settings, parts) as (port, _),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
    ):
        started = Running(client, folder, hook, taken_bytes)
        provider = {"name": "up", "kind": "openai-compatible", "base_url": "http://127.0.0.1:9/v1"}
        client.post("/admin/providers", json=provider | {"allows_private_address": True}).raise_for_status()
        route = {"name": "away", "pattern": "far", "targets": [{"provider": "up", "model": "far"}]}
        client.post("/admin/routes", json=route).raise_for_status()
        for _ in range(12):
            assert started.ask().status_code == 200
        yield started
    logging.getLogger().setLevel(log_level_before)


def log_level(running: Running) -> None:
    assert logging.getLogger().level != logging.ERROR
    running.change(log_level="error")
    assert logging.getLogger().level == logging.ERROR


def max_body(running: Running) -> None:
    assert running.ask(user="x" * 3000).status_code == 200
    running.change(max_body="2KiB")
    assert running.ask(user="x" * 3000).status_code == 413


def bounds_of_conversations(running: Running) -> None:
    def refusal() -> str:
        message = {"role": "user", "content": "1 0"}
        tools = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in "abc"]
        body = {"model": "a", "messages": [message] * 3, "tools": tools}
        return running.client.post("/v1/chat/completions", json=body).text

    running.change(max_messages=2)
    assert "2 are accepted (setting max_messages)" in refusal()
    running.change(max_messages=None, max_tools=2)
    assert "2 are accepted (setting max_tools)" in refusal()


def keepalive(running: Running) -> None:
    def is_kept_alive() -> bool:
        return any(line.startswith(":") for line in running.ask("2 0.3", stream=True).text.splitlines())

    assert not is_kept_alive()
    running.change(keepalive=0.1)
    assert is_kept_alive()


def use_cloud(running: Running) -> None:
    assert running.ask(model="far").json()["error"]["code"] == "provider_failed"
    running.change(use_cloud=False)
    assert "use_cloud is off" in running.ask(model="far").json()["error"]["message"]


def cloud_budget(running: Running) -> None:
    running.change(cloud_budget=0)
    assert running.ask(model="far").json()["error"]["code"] == "budget_spent"


def local_timeout(running: Running) -> None:
    running.change(local_timeout=1)
    began_s = time.monotonic()
    assert running.ask("2 30").status_code == 504
    assert time.monotonic() - began_s < 20


def memory_budget(running: Running) -> None:
    running.change(memory_budget="150MiB")
    assert running.get("stats")["pool"]["budget_bytes"] == 150 * MIB
    assert running.ask(model="b").status_code == 200
    assert running.model()["state"] == "cold"


def memory_floor(running: Running) -> None:
    running.change(memory_floor="123MiB")
    assert running.get("stats")["pool"]["memory_floor_bytes"] == 123 * MIB


def eviction(running: Running) -> None:
    for model in "ab":
        assert running.ask(model=model).status_code == 200
    running.change(eviction="none")
    assert running.ask(model="c").status_code == 503
    running.change(eviction="lru")
    assert running.ask(model="c").status_code == 200


def model_ttl(running: Running) -> None:
    assert running.ask().status_code == 200
    running.change(model_ttl=0.1)
    running.wait(lambda: running.model()["state"] == "cold")


def drain_timeout(running: Running) -> None:
    running.change(drain_timeout=0.1)
    with running.client.stream("POST", "/v1/completions", json=LONG) as answer:
        lines = answer.iter_lines()
        assert next(lines)
        began_s = time.monotonic()
        running.client.post("/admin/models/a/unload").raise_for_status()
        assert any("error" in line for line in lines)
        assert time.monotonic() - began_s < 15


def hang_timeout(running: Running) -> None:
    before = running.num_hung()
    running.change(hang_timeout=0.4)
    assert running.ask("2 30").status_code >= 500
    running.wait(lambda: running.num_hung() > before)


def load_timeout(running: Running) -> None:
    running.client.post("/admin/models/a/unload").raise_for_status()
    before = running.num_hung()
    set_mode(running.folder, "silent", "a")
    running.client.post("/admin/models/a/load").raise_for_status()
    running.wait(lambda: running.model()["stage"] == "counting to three")
    running.change(load_timeout=0.4)
    running.wait(lambda: running.num_hung() > before)
    running.change(load_timeout=None)
    running.mend("a")


def leak_limit(running: Running) -> None:
    assert running.ask().status_code == 200
    running.taken_bytes[0] = MODEL_BYTES + 8 * MIB
    running.change(leak_limit="1MiB")
    running.wait(lambda: running.model()["num_by_fault"].get("leaked"))
    running.taken_bytes[0] = 0


def audit_max_rows(running: Running) -> None:
    running.wait(lambda: len(running.get("requests?model=a")["requests"]) > 2)
    running.change(audit_max_rows=2)
    assert running.ask().status_code == 200
    running.wait(lambda: len(running.get("requests")["requests"]) <= 2)


def audit_max_age(running: Running) -> None:
    assert running.ask(model="b").status_code == 200
    running.wait(lambda: running.get("requests?model=b")["requests"])
    running.age(running.home / SQLITE_FILE, "UPDATE requests SET arrived_unix_s = arrived_unix_s - 7200")
    assert running.get("requests?model=b")["requests"]
    running.change(audit_max_age=1)
    assert running.ask().status_code == 200
    running.wait(lambda: not running.get("requests?model=b")["requests"])


def trace_content(running: Running) -> None:
    def spans_of(prompt: str) -> str:
        request_id = running.ask(prompt).headers["x-request-id"]
        running.wait(lambda: running.client.get(f"/admin/traces/{request_id}").status_code == 200)
        return running.client.get(f"/admin/traces/{request_id}").text

    assert "1 0.015625" not in spans_of("1 0.015625")
    running.change(trace_content=True)
    assert "1 0.015625" in spans_of("1 0.015625")


def trace_max_size(running: Running) -> None:
    running.change(trace_content=True)
    # a number may begin with many zeros
    for _ in range(3):
        assert running.ask("1 " + "0" * MIB).status_code == 200

    def used_bytes() -> int:
        with closing(sqlite3.connect(running.home / "state" / SPANS_FILE, timeout=10)) as spans:
            return int(spans.execute("SELECT sum(length(attributes)) FROM spans").fetchone()[0])

    running.wait(lambda: used_bytes() > 2 * MIB)
    running.change(trace_max_size="1MiB", trace_content=False)
    assert running.ask().status_code == 200
    running.wait(lambda: used_bytes() < MIB)


def trace_max_age(running: Running) -> None:
    assert running.ask(model="b").status_code == 200
    running.wait(lambda: running.get("traces?model=b")["traces"])
    hour_ns = 3600 * 10**9
    spans = running.home / "state" / SPANS_FILE
    running.age(spans, f"UPDATE requests SET start_unix_ns = start_unix_ns - {2 * hour_ns}")
    assert running.get("traces?model=b")["traces"]
    running.change(trace_max_age=1)
    assert running.ask().status_code == 200
    running.wait(lambda: not running.get("traces?model=b")["traces"])


def alert_limits(running: Running) -> None:
    assert running.firing() == set()
    running.lose_a_worker()
    changes: dict[str, dict[str, object]] = {
        "error_rate": {"alert_error_share": 0.000001},
        "time_to_first_token": {"alert_ttft": 0.000001},
        "worker_restarts": {"alert_worker_restarts": 1},
        "disk": {"alert_disk_free": "1000000TiB"},
    }
    for name, settings in changes.items():
        running.change(**settings)
        running.wait(lambda name=name: running.firing() == {name})  # type: ignore[misc]
        running.change(**dict.fromkeys(settings))
        running.wait(lambda: running.firing() == set())


def alert_webhook(running: Running) -> None:
    running.change(alert_webhook=running.hook.url, alert_disk_free="1000000TiB")
    assert running.hook.posts.get(timeout=10)["name"] == "disk"


def alert_period(running: Running) -> None:
    num_deaths = sum(model["num_worker_deaths"] for model in running.get("models")["models"])
    running.change(alert_worker_restarts=num_deaths + 1, alert_period=0.1)
    running.lose_a_worker()
    # nobody changes a setting any more
    running.wait(lambda: running.firing() == {"worker_restarts"})


OBSERVERS: Mapping[Callable[[Running], None], set[str]] = {
    log_level: {"log_level"},
    max_body: {"max_body"},
    bounds_of_conversations: {"max_messages", "max_tools"},
    keepalive: {"keepalive"},
    use_cloud: {"use_cloud"},
    cloud_budget: {"cloud_budget"},
    local_timeout: {"local_timeout"},
    memory_budget: {"memory_budget"},
    memory_floor: {"memory_floor"},
    eviction: {"eviction"},
    model_ttl: {"model_ttl"},
    drain_timeout: {"drain_timeout"},
    hang_timeout: {"hang_timeout"},
    load_timeout: {"load_timeout"},
    leak_limit: {"leak_limit"},
    audit_max_rows: {"audit_max_rows"},
    audit_max_age: {"audit_max_age"},
    trace_content: {"trace_content"},
    trace_max_size: {"trace_max_size"},
    trace_max_age: {"trace_max_age"},
    alert_limits: {"alert_error_share", "alert_ttft", "alert_worker_restarts", "alert_disk_free"},
    alert_webhook: {"alert_webhook"},
    alert_period: {"alert_period"},
}
AT_ONCE = [row.name for row in SETTINGS if row.takes_effect is Effect.AT_ONCE]


@pytest.mark.parametrize("observe", OBSERVERS, ids=lambda observe: observe.__name__)
def test_a_change_is_followed_at_once(running: Running, observe: Callable[[Running], None]) -> None:
    try:
        observe(running)
    finally:
        running.change(**dict.fromkeys(AT_ONCE))


def test_each_setting_that_takes_effect_at_once_has_an_observer() -> None:
    assert sorted(AT_ONCE) == sorted(name for names in OBSERVERS.values() for name in names)
