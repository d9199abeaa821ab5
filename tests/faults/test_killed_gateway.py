"""A gateway that is killed in the middle of answers and of a download, again and again on one home folder."""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from tests.e2e.server_process import PATIENCE_S, ServerProcess, is_gone, serving, wait_until
from tests.faults.conftest import Note
from tests.hub.conftest import CONFIG, weights
from tests.hub.hub_server import HubServer, Repository

pytestmark = pytest.mark.faults
NUM_ROUNDS = 6
NUM_STREAMS = 8
WEIGHTS = "model.safetensors"


def stream_until_it_breaks(server: ServerProcess, num_broken: list[str]) -> None:
    try:
        for _ in server.sdk.chat.completions.create(
            model=server.model,
            messages=[{"role": "user", "content": "Go on."}],
            stream=True,
            max_tokens=8000,
            extra_body={"ignore_eos": True},
        ):
            pass
    except openai.APIConnectionError:
        num_broken.append("connection")
    except openai.APIError as error:
        num_broken.append(str(error.code))


def whole_answers(server: ServerProcess, count: int) -> None:
    for _ in range(count):
        server.sdk.chat.completions.create(
            model=server.model, messages=[{"role": "user", "content": "Go on."}], max_tokens=3
        )


@pytest.fixture
def repository(hub: HubServer) -> Repository:
    """A model of 20 MB on the hub, which comes in pieces."""
    files = {"config.json": json.dumps(CONFIG).encode(), "tokenizer.json": b"{}" * 2000, WEIGHTS: weights(20_000_000)}
    hub.repositories["org/large"] = Repository(files=files, facts={"tags": ["mlx"]})
    return hub.repositories["org/large"]


def num_audited(server: ServerProcess) -> int:
    rows = httpx.get(f"{server.url}/admin/requests", params={"limit": 1000}, timeout=PATIENCE_S).json()
    return len(rows["requests"])


def kill(server: ServerProcess) -> float:
    """Kill the gateway; seconds until the last process that it had started is gone."""
    children = server.children()
    server.process.kill()
    server.process.wait()
    killed_s = time.monotonic()
    wait_until(lambda: all(map(is_gone, children)), 10, lambda: children)
    return time.monotonic() - killed_s


def live_and_be_killed(server: ServerProcess, wanted_bytes: int, after_s: float) -> tuple[int, float]:
    """Answer, download so much, and be killed in the middle of streams; the requests in the audit, and as `kill`."""
    wait_until(server.is_ready, PATIENCE_S, server.output.read_text)
    wait_until(lambda: download(server)["done_bytes"] >= wanted_bytes, 30, lambda: download(server))
    whole_answers(server, 5)
    broken: list[str] = []
    streams = [threading.Thread(target=stream_until_it_breaks, args=(server, broken)) for _ in range(NUM_STREAMS)]
    for stream in streams:
        stream.start()
    time.sleep(after_s)
    num_committed = num_audited(server)
    gone_s = kill(server)
    for stream in streams:
        stream.join(PATIENCE_S)
    assert len(broken) == NUM_STREAMS
    return num_committed, gone_s


def check_database(home: Path) -> None:
    with sqlite3.connect(home / "mlx-manager.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()


def test_killed_again_and_again(
    tiny_folder: Path, tmp_path: Path, hub: HubServer, repository: Repository, note: Note
) -> None:
    chance = random.Random(9)
    # a place of its own for sockets: other servers have theirs in the usual one
    sockets = tmp_path / "t"
    sockets.mkdir()
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "TMPDIR": str(sockets)}
    home = tmp_path / "home"
    gone_s: list[float] = []
    up_s: list[float] = []
    num_committed = 0
    for number in range(NUM_ROUNDS):
        # each start lets a further part of the file through
        hub.faults.slow_after[WEIGHTS] = 3_000_000 * (number + 1)
        began_s = time.monotonic()
        with serving(tiny_folder, home, "--kv-budget", "64MiB", is_ready=False, environment=environment) as server:
            up_s.append(time.monotonic() - began_s)
            assert num_audited(server) >= num_committed, "requests that were in the database are gone"
            if number == 0:
                httpx.post(f"{server.url}/admin/downloads", json={"model": "org/large"}, timeout=PATIENCE_S)
            assert download(server)["state"] in ("queued", "downloading")
            wanted_bytes = round(hub.faults.slow_after[WEIGHTS] * 0.9)
            num_committed, its_gone_s = live_and_be_killed(server, wanted_bytes, chance.uniform(0.2, 1.5))
            gone_s.append(its_gone_s)
        check_database(home)
    hub.faults.slow_after.clear()
    hub.faults.go_on.set()
    with serving(tiny_folder, home, "--kv-budget", "64MiB", environment=environment) as server:
        wait_until(lambda: download(server)["state"] == "done", 60, lambda: download(server))
        arrived = Path(download(server)["path"]) / WEIGHTS
        assert hashlib.sha256(arrived.read_bytes()).digest() == hashlib.sha256(repository.files[WEIGHTS]).digest()
        whole_answers(server, 1)
        assert len(list(sockets.glob("mlxm-*"))) == 1
    assert list(sockets.glob("mlxm-*")) == []
    # it was gone on with, not begun again: each range begins where the one before had ended
    begins = [int(ranged.removeprefix("bytes=").partition("-")[0]) for ranged in hub.ranges(WEIGHTS) if ranged]
    assert len([begin for begin in begins if begin > 2_000_000]) >= NUM_ROUNDS - 1
    assert begins == sorted(begins)
    assert not [process for process in psutil.process_iter(["cmdline"]) if str(home) in (process.info["cmdline"] or ())]
    note("kill -9 of the gateway, until the last of its processes is gone", gone_s)
    note("… the next start on its home folder, until it answers", up_s)


def download(server: ServerProcess) -> dict[str, Any]:
    (status,) = httpx.get(f"{server.url}/admin/downloads", timeout=PATIENCE_S).json()["downloads"]
    found: dict[str, Any] = status
    return found
