"""The servers that are compared: how each is started on a model folder, found ready, and ended again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

PROGRAMS = Path(sys.executable).parent
"""Where this environment keeps its programs: python, mlx-manager."""

START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 15.0


class ServerBroken(Exception):
    """A server could not be started. The message holds the end of its log."""


@dataclass(frozen=True)
class Rival:
    """One server. `{programs}`, `{model}` and `{port}` in its command are filled in when it starts."""

    name: str
    command: tuple[str, ...]
    ready_path: str
    """Answers 200 once the model can be asked."""
    package: str
    """The distribution whose version names it in the results."""
    note: str
    """How it is set up, for the reader of the results."""


RIVALS: tuple[Rival, ...] = (
    Rival(
        "ours",
        ("{programs}/mlx-manager", "serve", "--model", "{model}", "--host", "127.0.0.1", "--port", "{port}"),
        "/ready",
        "mlx-manager",
        "defaults",
    ),
    Rival(
        "mlx_lm",
        (
            *(
                "{programs}/python",
                "-m",
                "mlx_lm",
                "server",
                "--model",
                "{model}",
                "--host",
                "127.0.0.1",
                "--port",
                "{port}",
            ),
            *("--decode-concurrency", "32", "--prompt-concurrency", "8", "--log-level", "WARNING"),
        ),
        "/health",
        "mlx-lm",
        "32 sequences decoded and 8 prompts prefilled together (its defaults), its prompt cache on",
    ),
    Rival(
        "mlx_vlm",
        (
            *(
                "{programs}/python",
                "-m",
                "mlx_vlm.server",
                "--model",
                "{model}",
                "--host",
                "127.0.0.1",
                "--port",
                "{port}",
            ),
            *("--max-num-seqs", "32", "--log-level", "WARNING"),
        ),
        "/health",
        "mlx-vlm",
        "up to 32 sequences decoded together; it serves text-only models through the same continuous batching",
    ),
)


@contextmanager
def running(
    rival: Rival, model: Path, folder: Path, openblas: Path | None, more: tuple[str, ...] = ()
) -> Iterator[str]:
    """Run one server on an ephemeral loopback port and give its address; it has ended when the block is left.

    `folder` holds what the server writes and its log; `more` are further arguments. Raises `ServerBroken`.
    """
    port = free_port()
    command = [part.format(programs=PROGRAMS, model=model, port=port) for part in rival.command] + list(more)
    log_path = folder / f"{rival.name}.log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            command,
            env=server_environment(folder, openblas),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(rival, process, url, log_path)
        yield url
    finally:
        _end(process)


def end_in_order() -> None:
    """Make SIGTERM raise, as Ctrl-C does, so that the servers that were started are ended as well."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def server_environment(folder: Path, openblas: Path | None) -> dict[str, str]:
    """The same for every server: the same BLAS, no model hub, a home of its own."""
    environment = dict(os.environ)
    environment.update(
        MLX_MANAGER_HOME=str(folder / "home"),
        HF_HOME=str(folder / "huggingface"),
        HF_HUB_OFFLINE="1",
        PYTHONUNBUFFERED="1",
    )
    if openblas is not None:
        environment["LD_PRELOAD"] = str(openblas)
    return environment


def free_port() -> int:
    """A port on loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _wait_until_ready(rival: Rival, process: subprocess.Popen[bytes], url: str, log_path: Path) -> None:
    give_up_at = time.monotonic() + START_TIMEOUT_S
    with httpx.Client(base_url=url, timeout=5.0, trust_env=False) as client:
        while time.monotonic() < give_up_at:
            if process.poll() is not None:
                raise ServerBroken(f"ended with status {process.returncode} while starting: {_end_of(log_path)}")
            try:
                if client.get(rival.ready_path).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass  # not listening yet
            time.sleep(0.25)
    raise ServerBroken(f"not ready after {START_TIMEOUT_S:.0f} s: {_end_of(log_path)}")


def _end_of(log_path: Path) -> str:
    return log_path.read_text(errors="replace")[-1500:]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the server to end, then end it and whatever it started: it leads a process group of its own."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):  # ended the hard way below
            process.wait(_STOP_TIMEOUT_S)
    with suppress(ProcessLookupError):  # the whole group is gone already
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
