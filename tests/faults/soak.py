"""200 clients at once, for ten minutes, who leave as they like: `python -m tests.faults.soak [--minutes 10]`.

They stream and do not, in three dialects, with priorities, prompts of one to 1,500 words, up to three choices, and
answers of up to 200 tokens; two in five leave at random or cancel. The server is a real one with a tiny random model.
It is looked at when it is idle, after a warm-up of a tenth of the time and at the end: no block, task, thread, open
file, socket or file may have been added, and every request has to be in the audit once. Prints what it came to as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from mlx_manager.hub import STARTER_NAME, ensure_starter
from tests.e2e.server_process import ServerProcess, serving
from tests.e2e.tiny_model import make_tiny_model

NUM_CLIENTS = 200
_WARM_UP_SHARE = 0.1
_SETTLE_S = 60.0
_PATIENCE_S = 300.0
_MOST_LATE = 4
_WORDS = (1, 5, 20, 20, 100, 400, 1500)
_SHARED = tuple(f"You are assistant number {number}. " + "Answer at length. " * 60 for number in range(5))
_FLAGS = (
    "--kv-budget",
    "48MiB",
    "--max-queued-requests",
    "1000",
    "--log-level",
    "warning",
    "--audit-max-rows",
    "5000000",
)


@dataclass(frozen=True)
class Look:
    """What an idle server holds."""

    num_blocks_used: int
    num_blocks_lost: int
    num_running: int
    num_tasks: int
    num_connections: int
    num_gateway_files: int
    num_gateway_threads: int
    num_worker_files: int
    num_worker_threads: int
    num_files_on_disk: int
    gateway_bytes: int
    worker_bytes: int


@dataclass
class Tally:
    """What the clients saw."""

    sent: set[str] = field(default_factory=set)
    """Ids of all requests that were begun."""
    answered: set[str] = field(default_factory=set)
    """Those that the server said anything to."""
    outcomes: Counter[str] = field(default_factory=Counter)
    num_bytes: int = 0


class Client:
    """One of the many."""

    def __init__(self, url: str, model: str, number: int, tally: Tally) -> None:
        self._url, self._model, self._tally = url, model, tally
        self._chance = random.Random(number)
        self._number = number
        self._num_asked = 0

    async def run(self, http: httpx.AsyncClient, until_s: float) -> None:
        """Ask until then."""
        while time.monotonic() < until_s:
            self._num_asked += 1
            request_id = f"soak-{self._number}-{self._num_asked}-{round(until_s)}"
            self._tally.sent.add(request_id)
            leaves_after_s = self._chance.uniform(0.0, 8.0) if self._chance.random() < 0.4 else _PATIENCE_S
            try:
                async with asyncio.timeout(leaves_after_s):
                    self._tally.outcomes[await self._ask(http, request_id)] += 1
            except TimeoutError:
                self._tally.outcomes["left"] += 1
            await asyncio.sleep(self._chance.uniform(0.0, 0.2))

    async def _ask(self, http: httpx.AsyncClient, request_id: str) -> str:
        """Whether it was answered whole."""
        path, body = self._question()
        priority = self._chance.choice(("high", "normal", "low"))
        headers = {"x-request-id": request_id, "x-priority": priority}
        last = b""
        async with http.stream("POST", f"{self._url}{path}", json=body, headers=headers) as response:
            self._tally.answered.add(request_id)
            async for piece in response.aiter_bytes():
                self._tally.num_bytes += len(piece)
                last = (last + piece)[-4000:]
        if response.status_code != 200:
            return f"{response.status_code}"
        return "error in the stream" if b'"error":{' in last else "whole"

    def _question(self) -> tuple[str, dict[str, Any]]:
        chance = self._chance
        text = f"{chance.choice(_SHARED)} {chance.random()} " + "word " * chance.choice(_WORDS)
        shared = {"model": self._model, "stream": chance.random() < 0.7}
        longest = chance.choice((1, 10, 50, 200))
        kind = chance.choice(("chat", "chat", "messages", "completions", "responses"))
        if kind == "messages":
            return "/v1/messages", shared | {"messages": [{"role": "user", "content": text}], "max_tokens": longest}
        if kind == "completions":
            return "/v1/completions", shared | {"prompt": text, "max_tokens": longest, "ignore_eos": True}
        if kind == "responses":
            return "/v1/responses", shared | {"input": text, "max_output_tokens": max(longest, 16), "store": False}
        return "/v1/chat/completions", shared | {
            "messages": [{"role": "user", "content": text}],
            "max_tokens": longest,
            "ignore_eos": True,
            "n": chance.choice((1, 1, 1, 3)),
        }


def soak(folder: Path, home: Path, minutes: float) -> dict[str, Any]:
    """Run it on the model in `folder`. Raises `AssertionError` where anything is left or lost."""
    sockets = home.parent / "t"
    sockets.mkdir(parents=True)
    with serving(folder, home, *_FLAGS, environment={"TMPDIR": str(sockets)}) as server:
        began_s = time.monotonic()
        warm, before = _phase(server, home, minutes * 60 * _WARM_UP_SHARE)
        main, after = _phase(server, home, minutes * 60 * (1 - _WARM_UP_SHARE))
        audit = _audit(server)
        report = {
            "minutes": round((time.monotonic() - began_s) / 60, 1),
            "num_clients": NUM_CLIENTS,
            "num_requests": len(warm.sent) + len(main.sent),
            "outcomes": dict(sorted((warm.outcomes + main.outcomes).items())),
            "num_bytes": warm.num_bytes + main.num_bytes,
            "engine": {name: server.stats()[name] for name in _BOOKS},
            "after_the_warm_up": asdict(before),
            "at_the_end": asdict(after),
            "audit": _compare(audit, warm.sent | main.sent, warm.answered | main.answered),
        }
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    _check(report)
    return report


_BOOKS = ("num_steps", "num_prompt_tokens", "num_cached_tokens", "num_generated_tokens", "num_preemptions",
          "num_aborted_requests", "num_finished_requests")  # fmt: skip


def _phase(server: ServerProcess, home: Path, seconds: float) -> tuple[Tally, Look]:
    tally = Tally()

    async def run() -> None:
        until_s = time.monotonic() + seconds
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
        async with httpx.AsyncClient(timeout=None, limits=limits) as http:
            clients = [Client(server.url, server.model, number, tally) for number in range(NUM_CLIENTS)]
            await asyncio.gather(*(client.run(http, until_s) for client in clients))

    asyncio.run(run())
    server.wait_until_idle(within_s=_SETTLE_S)
    return tally, _settled(server, home)


def _settled(server: ServerProcess, home: Path) -> Look:
    """How the server is once its connections are closed and its books are written."""
    look = _look(server, home)
    deadline_s = time.monotonic() + _SETTLE_S
    while time.monotonic() < deadline_s:
        time.sleep(2.0)
        latest = _look(server, home)
        is_steady = (latest.num_tasks, latest.num_gateway_files) == (look.num_tasks, look.num_gateway_files)
        # the one that it listens on
        if is_steady and latest.num_connections == 1:
            return latest
        look = latest
    return look


def _look(server: ServerProcess, home: Path) -> Look:
    stats = server.stats()
    gateway = psutil.Process(server.process.pid)
    worker = psutil.Process(server.model_health()["worker_pid"])
    metrics = httpx.get(f"{server.url}/metrics", timeout=_PATIENCE_S).text
    tasks = next(line for line in metrics.splitlines() if line.startswith("mlx_manager_event_loop_tasks "))
    own = [file for folder in (home, *(home.parent / "t").glob("mlxm-*")) for file in folder.rglob("*")]
    return Look(
        num_blocks_used=stats["num_blocks_used"],
        num_blocks_lost=stats["num_blocks_total"] - stats["num_blocks_free"] - stats["num_blocks_cached"],
        num_running=stats["num_running"] + stats["num_waiting"],
        num_tasks=round(float(tasks.rsplit(" ", 1)[1])),
        num_connections=len(gateway.net_connections("inet")),
        num_gateway_files=gateway.num_fds(),
        num_gateway_threads=gateway.num_threads(),
        num_worker_files=worker.num_fds(),
        num_worker_threads=worker.num_threads(),
        num_files_on_disk=len(own),
        gateway_bytes=gateway.memory_info().rss,
        worker_bytes=worker.memory_info().rss,
    )


def _audit(server: ServerProcess) -> Counter[str]:
    """How often each request is in the audit, once what ended last is written."""
    time.sleep(3.0)
    seen: Counter[str] = Counter()
    with httpx.stream("GET", f"{server.url}/admin/requests/export", timeout=_PATIENCE_S) as response:
        for line in response.iter_lines():
            if line:
                seen[str(json.loads(line)["request_id"])] += 1
    return seen


def _compare(audit: Counter[str], sent: set[str], answered: set[str]) -> dict[str, int]:
    ours = {name: count for name, count in audit.items() if name.startswith("soak-")}
    return {
        "num_rows": sum(ours.values()),
        "num_twice": sum(count > 1 for count in ours.values()),
        "num_unknown": len(ours.keys() - sent),
        "num_answered_and_missing": len(answered - ours.keys()),
        "num_that_left_before_they_were_read": len(sent - ours.keys()),
    }


def _check(report: dict[str, Any]) -> None:
    before, after, audit = report["after_the_warm_up"], report["at_the_end"], report["audit"]
    assert set(report["outcomes"]) <= {"whole", "left"}, report["outcomes"]
    for name in ("num_blocks_used", "num_blocks_lost", "num_running"):
        assert after[name] == 0, name
    for name in ("num_tasks", "num_connections", "num_worker_files", "num_files_on_disk"):
        assert after[name] <= before[name], (name, before[name], after[name])
    for name in ("num_gateway_files", "num_gateway_threads", "num_worker_threads"):
        # connections to the database are opened as they are needed, and kept; each has a thread
        assert after[name] <= before[name] + _MOST_LATE, (name, before[name], after[name])
    for name in ("gateway_bytes", "worker_bytes"):
        assert after[name] <= before[name] * 1.2 + 20e6, (name, before[name], after[name])
    assert audit["num_twice"] == audit["num_unknown"] == audit["num_answered_and_missing"] == 0, audit


def main() -> None:
    """Make the model, and soak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    arguments = parser.parse_args()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        ensure_starter(root / "starter", lambda stage, fraction: None)
        make_tiny_model(root / "tiny", root / "starter" / "models" / STARTER_NAME, seed=1, max_context=8192)
        soak(root / "tiny", root / "home", arguments.minutes)


if __name__ == "__main__":
    main()
