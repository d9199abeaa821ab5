"""One operating-system process: started, watched to its end, its output forwarded to the log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)

DEFAULT_COMMAND = (sys.executable, "-P", "-m", "mlx_manager.worker")
"""-P: a file called like a library in the working directory must not be imported in its place."""
MAX_KEPT_LINES = 20
MAX_LINE_BYTES = 8192


@dataclass(frozen=True)
class WorkerLaunch:
    """How a worker is started: `command` gets `--socket ADDRESS` appended."""

    command: tuple[str, ...] = DEFAULT_COMMAND
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


class WorkerProcess:
    """A running worker. It ends when its standard input does, which only this process holds open.

    `label` names it in the log: the model it serves, or "spare". Raises `OSError` where it cannot be started.
    """

    def __init__(self, launch: WorkerLaunch, address: str, label: str) -> None:
        self.label = label
        self.last_lines: deque[str] = deque(maxlen=MAX_KEPT_LINES)
        self._loop = asyncio.get_running_loop()
        self._popen = subprocess.Popen(
            [*launch.command, "--socket", address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(launch.environment),
            # Ctrl-C in the terminal is for the gateway alone, which then stops its workers in order.
            start_new_session=True,
            bufsize=0,
        )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._stdin = self._popen.stdin
        self._output = self._popen.stdout
        self._unfinished_line = b""
        os.set_blocking(self._output.fileno(), False)
        self._loop.add_reader(self._output.fileno(), self._forward_output)
        self.exited: asyncio.Future[int] = self._loop.create_future()
        """Exit code once it is over; minus the signal's number where a signal ended it."""
        threading.Thread(target=self._wait, name=f"worker-{self._popen.pid}-exit", daemon=True).start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs, as far as is known; `exited` follows a moment later."""
        return self._popen.returncode is None and not self.exited.done()

    def describe_end(self) -> str:
        """How it ended, to be read after "the worker": "was killed by SIGKILL, …", "ended with exit code 1: …"."""
        code = self._popen.returncode
        assert code is not None, "the process has not ended"
        if code >= 0:
            last_line = next((line for line in reversed(self.last_lines) if line.strip()), "")
            return f"ended with exit code {code}" + (f" ({last_line.strip()})" if last_line else "")
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        meaning = {
            "SIGKILL": ", as the system does with a process when memory runs out",
            "SIGABRT": ", as the Metal driver does after a GPU error",
        }.get(name, "")
        return f"was ended by {name}{meaning}"

    def kill(self) -> None:
        """End it at once."""
        self._popen.kill()

    async def stop(self, grace_s: float) -> None:
        """Wait `grace_s` for it to end by itself, then terminate it, and after `grace_s` more kill it."""
        for end_it in (self._popen.terminate, self._popen.kill):
            await asyncio.wait((self.exited,), timeout=grace_s)
            if self.exited.done():
                return
            end_it()
        await asyncio.wait((self.exited,))

    def _wait(self) -> None:
        code = self._popen.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
            self._loop.call_soon_threadsafe(self._on_exit, code)

    def _on_exit(self, code: int) -> None:
        self._forward_output()
        if self._unfinished_line:
            self._log(self._unfinished_line)
        self._close_output()
        self._stdin.close()
        self.exited.set_result(code)

    def _forward_output(self) -> None:
        # Read up to what a pipe holds, so that a worker that prints without end cannot hold the loop.
        if self._output.closed:
            return
        try:
            chunk = os.read(self._output.fileno(), 65536)
        except BlockingIOError:
            return
        if not chunk:
            self._close_output()
            return
        *lines, rest = (self._unfinished_line + chunk).splitlines(keepends=False) or [b""]
        if chunk.endswith(b"\n") or len(rest) > MAX_LINE_BYTES:
            lines.append(rest)
            rest = b""
        self._unfinished_line = rest
        for line in lines:
            self._log(line)

    def _log(self, line: bytes) -> None:
        text = line.decode(errors="replace")
        self.last_lines.append(text)
        logger.info("[%s] %s", self.label, text)

    def _close_output(self) -> None:
        if not self._output.closed:
            self._loop.remove_reader(self._output.fileno())
            self._output.close()
