"""`mlx-manager serve` as a process, watched through what it prints."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

COMMAND = [sys.executable, "-m", "mlx_manager.cli"]


def environment(home: Path, **variables: str) -> dict[str, str]:
    """This process's environment with no settings of ours but these."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MLX_MANAGER_", "HF_"))}
    # the cache of the hub is this machine's, unless it is moved along with home
    return clean | {"MLX_MANAGER_HOME": str(home), "HF_HOME": str(home / "huggingface")} | variables


def run(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """One command, run to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(home, **variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@dataclass
class ServerProcess:
    """A running `serve`. `printed` grows while it runs."""

    process: subprocess.Popen[str]
    printed: list[str] = field(default_factory=list)
    _grown: threading.Condition = field(default_factory=threading.Condition)

    def read(self) -> None:
        """Collect what the process prints, until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._grown:
                self.printed.append(line)
                self._grown.notify_all()

    @property
    def text(self) -> str:
        """All that was printed so far."""
        return "".join(self.printed)

    def wait_for(self, pattern: str, timeout_s: float = 60.0) -> re.Match[str]:
        """The first match of `pattern` in what is printed. Fails after `timeout_s`."""
        with self._grown:
            self._grown.wait_for(lambda: self.process.poll() is not None or re.search(pattern, self.text), timeout_s)
        match = re.search(pattern, self.text)
        assert match is not None, self.text
        return match

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """Send the signal and return the exit code."""
        self.process.send_signal(how)
        return self.process.wait(timeout=30)


@contextmanager
def serving(home: Path, *flags: str, variables: Mapping[str, str] | None = None) -> Iterator[ServerProcess]:
    """`serve` on a free port, killed at the end if it still runs."""
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", *flags],
        env=environment(home, **(variables or {})),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    server = ServerProcess(process)
    reader = threading.Thread(target=server.read)
    reader.start()
    try:
        yield server
    finally:
        process.kill()
        process.wait()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()
