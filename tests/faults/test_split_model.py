"""A server whose model is split over two ranks: the answers of one, and what becomes of them when a rank is killed."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.cli.server_process import COMMAND, environment, run
from tests.e2e.server_process import PATIENCE_S, ServerProcess, serving, wait_until
from tests.faults.test_sharded import free_ports

pytestmark = pytest.mark.faults
QUESTIONS = ("What is the capital of France?", "Tell me a story about a lighthouse.", "Go on. " * 200)
FLAGS = ("--no-use-spare", "--kv-budget", "64MiB")


def ask(server: ServerProcess, question: str, **more: Any) -> list[str]:
    body = {"model": server.model, "temperature": 0, "max_tokens": 24, **more}
    body["messages"] = [{"role": "user", "content": question}]
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    return [choice["message"]["content"] for choice in answer.json()["choices"]]


def all_answers(server: ServerProcess) -> list[list[str]]:
    """Several at the same time, one of them twice over."""
    with ThreadPoolExecutor(len(QUESTIONS) + 1) as pool:
        asked = [pool.submit(ask, server, question) for question in QUESTIONS]
        asked.append(pool.submit(ask, server, QUESTIONS[1], n=2, seed=1, temperature=0.8))
        return [each.result() for each in asked]


@contextmanager
def following(folder: Path, hostfile: Path, home: Path) -> Iterator[psutil.Process]:
    """The follower `mlx-manager follow`, as rank 1."""
    home.mkdir()
    with (home / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            [*COMMAND, "follow", str(folder), "--hostfile", str(hostfile), "--rank", "1"],
            env=environment(home),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield psutil.Process(process.pid)
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        process.wait(20)
        for child in children:
            if child.is_running():
                child.kill()


def test_a_follower_that_cannot_be_one_says_so(tiny_folder: Path, tmp_path: Path) -> None:
    hostfile = tmp_path / "hosts.json"
    for hosts, rank, said in (
        ([["127.0.0.1:5"], ["127.0.0.1:7"]], "5", "There is no rank 5"),
        ([["127.0.0.1:5"]], "1", "names 1 ranks"),
        ({"a": 1}, "1", "cannot be read"),
    ):
        hostfile.write_text(json.dumps(hosts))
        ended = run(tmp_path, "follow", str(tiny_folder), "--hostfile", str(hostfile), "--rank", rank)
        assert (ended.returncode, said in ended.stderr + ended.stdout) == (1, True), ended


def test_a_model_split_over_two_ranks(tiny_folder: Path, tmp_path: Path) -> None:
    with serving(tiny_folder, tmp_path / "one", *FLAGS) as alone:
        expected = all_answers(alone)
    first = free_ports(4)
    hostfile = tmp_path / "hosts.json"
    hostfile.write_text(json.dumps([[f"127.0.0.1:{first}"], [f"127.0.0.1:{first + 2}"]]))
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text(f'[models.{tiny_folder.name}]\nhostfile = "{hostfile}"\n')
    with (
        following(tiny_folder, hostfile, tmp_path / "follower") as follower,
        serving(tiny_folder, home, *FLAGS) as server,
    ):
        listed = httpx.get(f"{server.url}/v1/models/{server.model}", timeout=PATIENCE_S).json()
        assert listed["serving"]["path"] == "sequential"
        assert "split over several ranks" in listed["serving"]["reason"]
        assert all_answers(server) == expected
        assert all_answers(server) == expected
        server.wait_until_idle()
        (rank,) = follower.children(recursive=True)
        rank.kill()
        broken = httpx.post(
            f"{server.url}/v1/chat/completions",
            json={"model": server.model, "messages": [{"role": "user", "content": "Go on."}], "max_tokens": 5},
            timeout=PATIENCE_S,
        )
        assert (broken.status_code, broken.json()["error"]["code"]) == (503, "worker_died")
        # all ranks begin anew with the next request
        wait_until(lambda: ask(server, QUESTIONS[0]) == expected[0], PATIENCE_S, server.output.read_text)
        assert all_answers(server) == expected
