"""`mlx-manager service`: the files that launchd and systemd are given, and what is said of them."""

from __future__ import annotations

import os
import plistlib
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_manager.cli.services import LABEL, UNIT, Plan, service_of
from mlx_manager.errors import InvalidRequest
from tools.docs import REPOSITORY

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
    assert f'Environment="PATH={tmp_path}/no-programs"' in lines
    assert "Restart=on-failure" in lines
    assert "ExecReload=kill -HUP $MAINPID" in lines
    assert "Not installed" not in run(tmp_path, "status").stdout
    assert "Removed" in run(tmp_path, "uninstall").stdout
    assert not file.exists()
    assert "There was none" in run(tmp_path, "uninstall").stdout


@pytest.mark.skipif(sys.platform != "linux", reason="asks for systemd")
def test_a_unit_that_runs_already_is_started_again(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    systemctl = tmp_path / "no-programs" / "systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    systemctl.chmod(0o755)
    assert run(tmp_path, "install").returncode == 0
    assert asked.read_text().splitlines() == [
        "--user daemon-reload",
        f"--user enable {UNIT}",
        f"--user restart {UNIT}",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="asks for systemd")
def test_without_systemd_the_file_is_written_and_the_rest_is_told(tmp_path: Path) -> None:
    failed = run(tmp_path, "install")
    assert failed.returncode == 1
    assert "no systemctl here" in failed.stderr
    assert (tmp_path / ".config" / "systemd" / "user" / UNIT).exists()


def test_the_property_list_of_launchd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    environ = {"PATH": "/opt/homebrew/bin:/usr/bin", "HF_HOME": "/models", "HF_TOKEN": "hf_secret"}
    service = service_of(Plan(tmp_path / "home", environ, 30), "darwin")
    service.install(starts=False)
    agent = plistlib.loads(service.file.read_bytes())
    assert service.file == tmp_path / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    assert agent["ProgramArguments"] == [str(COMMAND), "serve"]
    assert agent["EnvironmentVariables"] == {
        "MLX_MANAGER_HOME": str(tmp_path / "home"),
        "PATH": "/opt/homebrew/bin:/usr/bin",
        "HF_HOME": "/models",
    }
    assert agent["ExitTimeOut"] > 30
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert Path(agent["StandardOutPath"]).parent.is_dir()


def test_other_systems_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="macOS and Linux"):
        service_of(Plan(tmp_path, {}, 5), "win32")


@pytest.mark.parametrize(
    ("shell", "words"), [("zsh", "#compdef mlx-manager"), ("fish", "complete --command mlx-manager")]
)
def test_completions_as_a_package_manager_asks_for_them(tmp_path: Path, shell: str, words: str) -> None:
    # what Homebrew's format `typer` does: without the variable the shell is told by who runs the command
    environ = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    environ["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
    command = [str(COMMAND), "--show-completion", shell]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, env=environ)
    assert words in shown.stdout
    formula = (REPOSITORY / "deploy" / "homebrew" / "mlx-manager.rb").read_text(encoding="utf-8")
    assert 'bin/"mlx-manager", shell_parameter_format: :typer' in formula
