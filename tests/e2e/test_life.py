"""The life of a server process: start, readiness, what it prints, and its end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.server_process import COMMAND, PATIENCE_S, ServerProcess, is_gone, serving, wait_until

STORY: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Tell me a long story about a lighthouse."}]


@pytest.mark.skipif(shutil.which("curl") is None, reason="the line is for curl")
def test_the_curl_line_works_as_printed(server: ServerProcess) -> None:
    line = re.search(r"^curl .*?^}'$", server.output.read_text(), re.MULTILINE | re.DOTALL)
    assert line is not None
    ended = subprocess.run(["sh", "-c", line[0]], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert '"finish_reason":"stop"' in ended.stdout.replace(" ", "")
    assert "Paris" in ended.stdout


def test_the_sdk_snippet_works_as_printed(server: ServerProcess) -> None:
    snippet = re.search(r"^from openai import.*flush=True\)$", server.output.read_text(), re.MULTILINE | re.DOTALL)
    assert snippet is not None
    ended = subprocess.run(
        [sys.executable, "-c", snippet[0]], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert "Paris" in ended.stdout


def test_ready_once_the_model_can_answer_and_gone_with_its_workers(starter_folder: Path, tmp_path: Path) -> None:
    with serving(starter_folder, tmp_path, is_ready=False) as server, server.http() as http:
        assert http.get("/health").json()["status"] == "ok"
        first = http.get("/ready")
        assert first.status_code == 503, "the load was over before the server answered"
        assert first.headers["retry-after"]
        assert first.json()["ready"] is False
        assert server.model in first.json()["waiting_for"]
        wait_until(server.is_ready, PATIENCE_S, server.output.read_text)
        assert http.get("/ready").json() == {"ready": True, "model": server.model, "waiting_for": None}
        assert server.model_health()["state"] == "ready"
        stream = server.sdk.chat.completions.create(
            model=server.model, messages=STORY, stream=True, max_tokens=2000, extra_body={"ignore_eos": True}
        )
        next(stream)
        wait_until(lambda: len(server.children()) >= 2, 30, server.children)
        workers = server.children()
        server.process.kill()
        server.process.wait()
        with pytest.raises(openai.APIConnectionError):
            for _ in stream:
                pass
        wait_until(lambda: all(map(is_gone, workers)), 10, lambda: workers)


@pytest.mark.parametrize(("stop", "is_busy"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_a_signal_ends_it_cleanly(starter_folder: Path, tmp_path: Path, stop: signal.Signals, is_busy: bool) -> None:
    # Busy: in the middle of an answer. Otherwise: while the model is loaded.
    with serving(starter_folder, tmp_path, is_ready=is_busy) as server:
        wait_until(server.children, 30, server.output.read_text)
        workers = server.children()
        stream = None
        if is_busy:
            stream = server.sdk.chat.completions.create(
                model=server.model, messages=STORY, stream=True, max_tokens=2000, extra_body={"ignore_eos": True}
            )
            next(stream)
        # As a terminal does for Ctrl-C: to the whole group.
        os.killpg(server.process.pid, stop)
        if stream is not None:
            with pytest.raises(openai.APIError) as stopped:
                for _ in stream:
                    pass
            assert stopped.value.code == "shutting_down"
        assert server.process.wait(20) == 0
        wait_until(lambda: all(map(is_gone, workers)), 10, lambda: workers)
        assert "Traceback" not in server.output.read_text()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/health")


def test_a_taken_port_is_told(server: ServerProcess, starter_folder: Path, tmp_path: Path) -> None:
    port = server.url.rpartition(":")[2]
    command = [str(COMMAND), "serve", "--model", str(starter_folder), "--port", port, "--home", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert "already runs" in ended.stderr
    assert "--port" in ended.stderr
