"""A real `mlx-manager serve`, as a person starts it: its own process, home, and free port."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil

PATIENCE_S = 120.0
COMMAND = Path(sys.executable).with_name("mlx-manager")
_ANNOUNCED = re.compile(r"^MLX Manager \S+ on (http://\S+) serves (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class ServerProcess:
    """A running server."""

    process: subprocess.Popen[bytes]
    output: Path
    """What it prints, errors included."""
    url: str
    model: str
    sdk: openai.OpenAI

    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE_S)

    def async_sdk(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE_S)

    def model_health(self) -> dict[str, Any]:
        """What /health says of the default model."""
        body = httpx.get(f"{self.url}/health", timeout=PATIENCE_S).json()
        health: dict[str, Any] = next(model for model in body["models"] if model["id"] == self.model)
        return health

    def stats(self) -> dict[str, Any]:
        """The engine's books; nothing but zeros before its first step."""
        stats: dict[str, Any] | None = self.model_health()["stats"]
        return defaultdict(int) if stats is None else stats

    def is_ready(self) -> bool:
        return httpx.get(f"{self.url}/ready", timeout=PATIENCE_S).status_code == 200

    def wait_until_idle(self, within_s: float = 20) -> None:
        """Until no request runs or waits and no block is in use."""
        busy = ("num_running", "num_waiting", "num_blocks_used")
        wait_until(lambda: not any(self.stats()[name] for name in busy), within_s, self.stats)

    def children(self) -> list[psutil.Process]:
        """Its workers: the one that serves, and the spare."""
        found: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return found


@contextmanager
def serving(
    folder: Path, home: Path, *flags: str, is_ready: bool = True, environment: Mapping[str, str] | None = None
) -> Iterator[ServerProcess]:
    """Serve the model in `folder` until the context ends; by default from when it is ready.

    What is in `environment` comes on top of this process's own.
    """
    home.mkdir(parents=True, exist_ok=True)
    output = home / "output.txt"
    command = [str(COMMAND), "serve", "--model", str(folder), "--port", "0"]
    # The server finds its own BLAS, whatever this process was started with.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLX_MANAGER_", "LD_PRELOAD"))}
    started_with = kept | {"MLX_MANAGER_HOME": str(home)} | dict(environment or {})
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [*command, *flags], stdout=sink, stderr=subprocess.STDOUT, env=started_with, start_new_session=True
        )
    try:
        wait_until(lambda: process.poll() is not None or _ANNOUNCED.search(output.read_text()), 60, output.read_text)
        announced = _ANNOUNCED.search(output.read_text())
        assert announced is not None, output.read_text()
        url, model = announced.groups()
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=PATIENCE_S) as client:
            server = ServerProcess(process, output, url, model, client)
            if is_ready:
                wait_until(lambda: server.model_health()["state"] in ("ready", "failed"), PATIENCE_S, output.read_text)
                assert server.is_ready(), output.read_text()
            yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def wait_until(is_so: Callable[[], object], within_s: float, describe: Callable[[], object]) -> None:
    """Until `is_so()`; fails after `within_s` with what `describe()` says then."""
    deadline_s = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline_s, describe()
        time.sleep(0.05)


def is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended; one that nobody has reaped yet counts as ended."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
