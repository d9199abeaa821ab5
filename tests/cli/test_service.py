"""`mlx-manager service`: the files that launchd and systemd are given, and what is said of them."""

from __future__ import annotations

import os
import plistlib
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_manager.cli.services import LABEL, UNIT, service_of
from mlx_manager.errors import InvalidRequest

COMMAND = Path(sys.executable).with_name("mlx-manager")


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, for a user whose home folder is `home` and who has no systemd."""
    environ = {"HOME": str(home), "PATH": str(home / "no-programs"), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    command = [str(COMMAND), "service", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=environ)


@pytest.mark.skipif(sys.platform != "linux", reason="writes a unit of systemd")
def test_install_status_and_uninstall(tmp_path: Path) -> None:
    file = tmp_path / ".config" / "systemd" / "user" / UNIT
    assert "Not installed" in run(tmp_path, "status").stdout
    home = tmp_path / 'with "space" 100%'
    installed = run(tmp_path, "install", "--no-start", "--home", str(home))
    assert installed.returncode == 0, installed.stderr
    assert str(file) in installed.stdout
    lines = file.read_text().splitlines()
    assert f'ExecStart="{COMMAND}" "serve"' in lines
    assert f'Environment="MLX_MANAGER_HOME={tmp_path}/with \\"space\\" 100%%"' in lines
    assert "Restart=on-failure" in lines
    assert "ExecReload=kill -HUP $MAINPID" in lines
    assert "Not installed" not in run(tmp_path, "status").stdout
    assert "Removed" in run(tmp_path, "uninstall").stdout
    assert not file.exists()
    assert "There was none" in run(tmp_path, "uninstall").stdout


@pytest.mark.skipif(sys.platform != "linux", reason="asks for systemd")
def test_without_systemd_the_file_is_written_and_the_rest_is_told(tmp_path: Path) -> None:
    failed = run(tmp_path, "install")
    assert failed.returncode == 1
    assert "no systemctl here" in failed.stderr
    assert (tmp_path / ".config" / "systemd" / "user" / UNIT).exists()


def test_the_property_list_of_launchd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    service = service_of(tmp_path / "home", "darwin")
    service.install(starts=False)
    agent = plistlib.loads(service.file.read_bytes())
    assert service.file == tmp_path / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    assert agent["ProgramArguments"] == [str(COMMAND), "serve"]
    assert agent["EnvironmentVariables"] == {"MLX_MANAGER_HOME": str(tmp_path / "home")}
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert Path(agent["StandardOutPath"]).parent.is_dir()


def test_other_systems_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="macOS and Linux"):
        service_of(tmp_path, "win32")
