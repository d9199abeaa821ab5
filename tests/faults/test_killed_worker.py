"""A worker that is killed while it loads, prefills or decodes, or that hangs: again and again on one server."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.server_process import PATIENCE_S, ServerProcess, serving, wait_until
from tests.e2e.tiny_model import make_tiny_model
from tests.faults.conftest import Note

pytestmark = pytest.mark.faults
NUM_ROUNDS = 10
HANG_TIMEOUT_S = 2.0


@pytest.fixture(scope="module")
def server(
    tiny_folder: Path, starter_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server with the model `victim`, and another one that nothing may happen to."""
    home = tmp_path_factory.mktemp("killed")
    make_tiny_model(home / "models" / "victim", starter_folder, seed=2, max_context=16_384)
    flags = ("--hang-timeout", str(HANG_TIMEOUT_S), "--kv-budget", "64MiB")
    with serving(tiny_folder, home, *flags) as running:
        yield running


@contextlib.contextmanager
def bystander(server: ServerProcess) -> Iterator[None]:
    """A client of the other model, all of whose answers have to be whole."""
    is_over, finished = threading.Event(), []

    def ask() -> None:
        while not is_over.is_set():
            answer = server.sdk.chat.completions.create(
                model=server.model,
                messages=[{"role": "user", "content": "Go on."}],
                max_tokens=50,
                extra_body={"ignore_eos": True},
            )
            assert answer.usage is not None
            finished.append(answer.usage.completion_tokens)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(PATIENCE_S)
    assert finished
    assert set(finished) == {50}


def victim(server: ServerProcess) -> dict[str, Any]:
    status: dict[str, Any] = httpx.get(f"{server.url}/admin/models/victim", timeout=PATIENCE_S).json()
    return status


def load(server: ServerProcess, *, until: str = "ready") -> int:
    """Let the victim be loaded, whatever it failed of before; the process id of its worker."""
    httpx.post(f"{server.url}/admin/models/victim/load", timeout=PATIENCE_S)
    wait_until(lambda: victim(server)["state"] == until and victim(server)["worker_pid"], 60, lambda: victim(server))
    return int(victim(server)["worker_pid"])


@dataclass
class Attack:
    """A signal to a worker, so many seconds after it was given a request."""

    server: ServerProcess
    pid: int
    with_: signal.Signals
    after_s: float
    hit_s: float = 0.0
    """When it was sent, on the monotonic clock."""

    def run(self) -> None:
        wait_until(lambda: victim(self.server)["num_in_flight"], 60, lambda: victim(self.server))
        time.sleep(self.after_s)
        self.hit_s = time.monotonic()
        os.kill(self.pid, self.with_)


def ask(server: ServerProcess, num_words: int, attack: Attack) -> tuple[str, bool]:
    """Stream an answer under attack: the code that it ended with, and whether it had begun."""
    body = {
        "model": "victim",
        "messages": [{"role": "user", "content": "word " * num_words}],
        "stream": True,
        "max_tokens": 4000,
        "ignore_eos": True,
    }
    threading.Thread(target=attack.run).start()
    has_begun = False
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=PATIENCE_S) as response:
        if response.status_code != 200:
            response.read()
            return str(response.json()["error"]["code"]), False
        for line in response.iter_lines():
            if '"error"' in line:
                return ("worker_died" if '"worker_died"' in line else line), has_begun
            has_begun |= '"content":"' in line and '"content":""' not in line
    return "none", has_begun


def audited(server: ServerProcess) -> list[dict[str, Any]]:
    rows = httpx.get(f"{server.url}/admin/requests", params={"model": "victim", "limit": 1000}, timeout=PATIENCE_S)
    found: list[dict[str, Any]] = rows.json()["requests"]
    return found


@pytest.mark.parametrize(("moment", "num_words", "latest_s"), [("prefill", 12_000, 0.4), ("decode", 5, 2.0)])
def test_killed_in_the_middle_of_an_answer(
    server: ServerProcess, note: Note, moment: str, num_words: int, latest_s: float
) -> None:
    chance = random.Random(moment)
    back_s: list[float] = []
    num_at_moment = 0
    num_before = len(audited(server))
    with bystander(server):
        for _ in range(NUM_ROUNDS):
            pid = load(server)
            attack = Attack(server, pid, signal.SIGKILL, chance.uniform(0.0, latest_s))
            code, has_begun = ask(server, num_words, attack)
            assert code == "worker_died"
            back_s.append(time.monotonic() - attack.hit_s)
            num_at_moment += has_begun == (moment == "decode")
            load(server)
            whole = server.sdk.chat.completions.create(
                model="victim", messages=[{"role": "user", "content": "Go on."}], max_tokens=5
            )
            assert whole.choices
            books = victim_books(server)
            assert books["num_blocks_free"] + books["num_blocks_cached"] == books["num_blocks_total"]
    assert num_at_moment >= NUM_ROUNDS // 2
    note(f"kill -9 at {moment}, until the stream says so", back_s)
    wait_until(lambda: len(audited(server)) == num_before + 2 * NUM_ROUNDS, 20, lambda: len(audited(server)))
    assert sum(row["record"]["error_code"] == "worker_died" for row in audited(server)[: 2 * NUM_ROUNDS]) == NUM_ROUNDS


def victim_books(server: ServerProcess) -> dict[str, Any]:
    books: dict[str, Any] = httpx.get(f"{server.url}/admin/stats", timeout=PATIENCE_S).json()["engines"]["victim"]
    return books


def test_killed_while_it_loads(server: ServerProcess, note: Note) -> None:
    chance = random.Random("load")
    told_s: list[float] = []
    num_killed = 0
    with bystander(server):
        for _ in range(NUM_ROUNDS):
            httpx.post(f"{server.url}/admin/models/victim/unload", timeout=PATIENCE_S)
            wait_until(lambda: victim(server)["state"] in ("cold", "failed"), 60, lambda: victim(server))
            pid = load(server, until="loading")
            time.sleep(chance.uniform(0.0, 0.3))
            if victim(server)["state"] != "loading":
                continue
            os.kill(pid, signal.SIGKILL)
            num_killed += 1
            killed_s = time.monotonic()
            wait_until(lambda: victim(server)["state"] == "failed", 10, lambda: victim(server))
            told_s.append(time.monotonic() - killed_s)
            assert "SIGKILL" in victim(server)["error"]["message"]
            assert victim(server)["planned_bytes"] == 0
    assert num_killed >= NUM_ROUNDS // 2
    note("kill -9 at load, until the model says why it failed", told_s)
    load(server)


def test_hung_in_the_middle_of_an_answer(server: ServerProcess, note: Note) -> None:
    over_s: list[float] = []
    back_s: list[float] = []
    with bystander(server):
        for _ in range(5):
            pid = load(server)
            attack = Attack(server, pid, signal.SIGSTOP, 0.3)
            code, _ = ask(server, 5, attack)
            assert code == "worker_died"
            over_s.append(time.monotonic() - attack.hit_s)
            wait_until(lambda: victim(server)["state"] == "ready", 60, lambda: victim(server))
            back_s.append(time.monotonic() - attack.hit_s)
            # what follows is not in a row with what was
            httpx.post(f"{server.url}/admin/models/victim/unload", timeout=PATIENCE_S)
    assert min(over_s) > HANG_TIMEOUT_S * 0.9
    assert max(over_s) < HANG_TIMEOUT_S + 3
    note(f"hung with a hang_timeout of {HANG_TIMEOUT_S:g} s, until the stream says so", over_s)
    note("… until another worker has loaded the model", back_s)
