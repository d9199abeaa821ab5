"""What `service` does: writes the file of launchd (macOS) or of systemd's user manager (Linux), and tells them."""

from __future__ import annotations

import os
import plistlib
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mlx_manager.errors import InvalidRequest, Unavailable

LABEL = "com.mlx-manager.server"
UNIT = "mlx-manager.service"
_STOP_S = 55
"""Longer than the server takes, after its `shutdown_timeout`, to end its workers and to write what it keeps."""

_KEPT_VARIABLES = ("PATH", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME")
"""Where commands of tool servers and the shared cache of models are found; secrets are not among them."""


class Service(Protocol):
    """The server, as the system's own manager of services sees it."""

    file: Path
    log: str

    def install(self, *, starts: bool) -> None:
        """Write the file, and let the system know. Raises `Unavailable`."""
        ...

    def uninstall(self) -> bool:
        """Stop it and remove the file; whether there was one."""
        ...

    def status(self) -> str:
        """For people."""
        ...


@dataclass(frozen=True)
class Plan:
    """What the server is started with."""

    home: Path
    environ: Mapping[str, str]
    """Of the shell that installs it."""
    shutdown_timeout_s: int

    @property
    def stop_s(self) -> int:
        """How long it may take to stop."""
        return self.shutdown_timeout_s + _STOP_S

    @property
    def variables(self) -> dict[str, str]:
        """What it finds in its environment: the managers of services start it with next to nothing in theirs."""
        kept = {name: self.environ[name] for name in _KEPT_VARIABLES if self.environ.get(name)}
        return {"MLX_MANAGER_HOME": str(self.home)} | kept


def service_of(plan: Plan, platform: str = sys.platform) -> Service:
    """The service for the server of `plan`. Raises `InvalidRequest` where there is no manager of services we know."""
    if platform == "darwin":
        return LaunchAgent(plan)
    if platform == "linux":
        return SystemdUnit(plan)
    raise InvalidRequest(f"Services can be installed on macOS and Linux, not on {platform}.")


class LaunchAgent:
    """A launch agent of this user."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.file = Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"
        self.log = str(plan.home / "server.log")

    def install(self, *, starts: bool) -> None:
        """Write the property list and load it."""
        agent = {
            "Label": LABEL,
            "ProgramArguments": [*_program(), "serve"],
            "EnvironmentVariables": self._plan.variables,
            "RunAtLoad": True,
            # again after a crash, not after an orderly end
            "KeepAlive": {"SuccessfulExit": False},
            "ExitTimeOut": self._plan.stop_s,
            "ProcessType": "Interactive",
            "StandardOutPath": self.log,
            "StandardErrorPath": self.log,
        }
        self._plan.home.mkdir(parents=True, exist_ok=True)
        _write(self.file, plistlib.dumps(agent))
        if starts:
            _tell("launchctl", "bootout", self._domain, str(self.file), may_fail=True)
            _tell("launchctl", "bootstrap", self._domain, str(self.file))

    def uninstall(self) -> bool:
        """Unload and remove it."""
        if not self.file.exists():
            return False
        _tell("launchctl", "bootout", self._domain, str(self.file), may_fail=True)
        self.file.unlink()
        return True

    def status(self) -> str:
        """What launchctl prints of it."""
        if not self.file.exists():
            return f"Not installed: there is no {self.file}."
        return _tell("launchctl", "print", f"{self._domain}/{LABEL}", may_fail=True) or "Installed, not loaded."

    @property
    def _domain(self) -> str:
        return f"gui/{os.getuid()}"


class SystemdUnit:
    """A unit of this user's systemd."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        config = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
        self.file = Path(config) / "systemd" / "user" / UNIT
        self.log = f"journalctl --user -u {UNIT}"

    def install(self, *, starts: bool) -> None:
        """Write the unit, enable it, start it, or start it again."""
        command = " ".join(_quoted(word) for word in [*_program(), "serve"])
        variables = "\n".join(
            f"Environment={_quoted(f'{name}={value}')}" for name, value in self._plan.variables.items()
        )
        unit = f"""\
[Unit]
Description=MLX Manager, a local inference server
After=network.target

[Service]
ExecStart={command}
ExecReload=kill -HUP $MAINPID
{variables}
Restart=on-failure
RestartSec=2
KillMode=mixed
TimeoutStopSec={self._plan.stop_s}
NoNewPrivileges=true

[Install]
WantedBy=default.target
"""
        _write(self.file, unit.encode())
        if starts:
            _tell("systemctl", "--user", "daemon-reload")
            _tell("systemctl", "--user", "enable", UNIT)
            # one that runs already goes by the new file from now on
            _tell("systemctl", "--user", "restart", UNIT)

    def uninstall(self) -> bool:
        """Stop, disable and remove it."""
        if not self.file.exists():
            return False
        _tell("systemctl", "--user", "disable", "--now", UNIT, may_fail=True)
        self.file.unlink()
        _tell("systemctl", "--user", "daemon-reload", may_fail=True)
        return True

    def status(self) -> str:
        """What systemctl prints of it."""
        if not self.file.exists():
            return f"Not installed: there is no {self.file}."
        return _tell("systemctl", "--user", "status", "--no-pager", UNIT, may_fail=True) or "Installed, not loaded."


def _program() -> list[str]:
    """What starts this very installation, wherever a shell would look."""
    command = Path(sys.executable).with_name("mlx-manager")
    return [str(command)] if command.exists() else [sys.executable, "-P", "-m", "mlx_manager.cli"]


def _write(file: Path, content: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    except OSError as error:
        raise Unavailable(f"{file} cannot be written: {error.strerror}.") from None


def _quoted(word: str) -> str:
    """`word` as systemd reads it: quoted, with its specifiers and variables taken literally."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _tell(program: str, *arguments: str, may_fail: bool = False) -> str:
    """Run the manager of services; what it printed. Raises `Unavailable` when it fails."""
    if shutil.which(program) is None:
        if may_fail:
            return ""
        raise Unavailable(f"There is no {program} here; the file is written. --no-start only writes it.")
    ended = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=90)
    said = (ended.stdout + ended.stderr).strip()
    if ended.returncode and not may_fail:
        raise Unavailable(f"{program} {arguments[0]} failed: {said[:300]}")
    return said
