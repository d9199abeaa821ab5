"""`mlx-manager launch`: what an agent is started with. The agents here are scripts that say what they were given."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlx_manager.backends.scripted import script_of
from mlx_manager.catalog.settings import load_settings
from tests.cli.server_process import COMMAND
from tests.http.scripted_server import HELLO, Recorder, Served, Shelf, running, shelved

_AGENT = """#!/usr/bin/env python3
import json, os, sys
print(json.dumps({"arguments": sys.argv[1:], "variables": dict(os.environ)}))
sys.exit(7)
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = load_settings({}, {"home": str(tmp_path_factory.mktemp("home")), "port": 0})
    shelf = Shelf([shelved("org/first"), shelved("second")], default_model="org/first")
    with running(settings, Recorder({"org/first": script_of(HELLO)}), shelf) as running_server:
        yield running_server


def launch(served: Served, home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    programs = home / "programs"
    programs.mkdir(exist_ok=True)
    for name in ("claude", "codex", "opencode"):
        (programs / name).write_text(_AGENT)
        (programs / name).chmod(0o755)
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLX_MANAGER_")}
    return subprocess.run(
        [*COMMAND, "launch", *arguments, "--port", str(served.port)],
        env=environment | {"HOME": str(home), "PATH": path} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def given(served: Served, home: Path, *arguments: str, **variables: str) -> tuple[list[str], dict[str, str]]:
    """Arguments and variables of the agent; its exit code is that of the command, and no file is written."""
    done = launch(served, home, *arguments, **variables)
    assert done.returncode == 7, done.stderr
    assert [path.name for path in home.iterdir()] == ["programs"]
    said: dict[str, Any] = json.loads(done.stdout)
    return said["arguments"], said["variables"]


def test_claude_is_told_by_its_variables(served: Served, tmp_path: Path) -> None:
    arguments, variables = given(served, tmp_path, "claude", "-p", "hi", "--output-format", "json")
    assert arguments == ["-p", "hi", "--output-format", "json"]
    assert variables["ANTHROPIC_BASE_URL"] == f"http://127.0.0.1:{served.port}"
    assert variables["ANTHROPIC_AUTH_TOKEN"] == "none"
    models = {value for name, value in variables.items() if name.startswith("ANTHROPIC_") and name.endswith("MODEL")}
    assert models == {"org/first"}


def test_codex_is_told_by_its_flags(served: Served, tmp_path: Path) -> None:
    arguments, variables = given(
        served, tmp_path, "codex", "--model", "second", "exec", "--json", "hi", MLX_MANAGER_API_KEY="sk-x"
    )
    assert arguments[-3:] == ["exec", "--json", "hi"]
    assert set(arguments[:-3:2]) == {"-c"}
    settings = tomllib.loads("\n".join(arguments[1:-3:2]))
    assert (settings["model"], settings["model_provider"], settings["model_context_window"]) == (
        "second",
        "mlx-manager",
        8192,
    )
    provider = settings["model_providers"]["mlx-manager"]
    assert provider["base_url"] == f"{served.base_url}"
    assert provider["wire_api"] == "responses"
    assert variables[provider["env_key"]] == "sk-x"


def test_opencode_is_told_in_a_variable(served: Served, tmp_path: Path) -> None:
    arguments, variables = given(served, tmp_path, "opencode", "run", "hi")
    assert arguments == ["run", "hi"]
    settings = json.loads(variables["OPENCODE_CONFIG_CONTENT"])
    provider = settings["provider"]["mlx-manager"]
    assert provider["options"]["baseURL"] == served.base_url
    assert provider["models"]["org/first"]["limit"]["context"] == 8192
    assert settings["model"] == settings["small_model"] == "mlx-manager/org/first"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nobody",), "There is no agent 'nobody' here: launch one of claude, codex, opencode."),
        (("codex", "--model", "third"), "no model 'third' that can chat. Models there: org/first, second."),
    ],
)
def test_what_cannot_be_launched_is_said(served: Served, tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    done = launch(served, tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr


def test_an_agent_that_is_not_there_can_be_installed(served: Served, tmp_path: Path) -> None:
    done = launch(served, tmp_path, "codex", PATH="/nowhere")
    assert done.returncode == 1
    assert done.stderr == "error: codex is not installed: npm install -g @openai/codex\n"
