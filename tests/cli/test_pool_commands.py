"""ps, load and unload as processes, against a running server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cli.server_process import run
from tests.pool.counting_pool import KV_BYTES, MODEL_BYTES, set_mode
from tests.pool.pool_server import pool_server
from tests.pool.test_trim import room_for


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pool")


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[str]:
    """The port of a server with room for two models and the caches of one."""
    with pool_server(folder, names=("a", "b", "c"), has_caches=True, memory_budget=room_for(2, 1)) as client:
        yield str(client.base_url.port)


def test_models_are_loaded_shown_and_unloaded(folder: Path, port: str, tmp_path: Path) -> None:
    assert "No model is in memory" in run(tmp_path, "ps", "--port", port).stdout
    assert run(tmp_path, "load", "a", "--port", port).stdout.splitlines()[-1].startswith("a is ready after ")
    run(tmp_path, "load", "b", "--port", port)
    httpx.post(f"http://127.0.0.1:{port}/admin/models/b/pin").raise_for_status()
    header, first, second, _, last = run(tmp_path, "ps", "--port", port).stdout.splitlines()
    assert header.split() == ["name", "state", "requests", "idle", "planned", "measured", "note"]
    assert (first.split()[:2], first.split()[-1]) == (["a", "ready"], "trimmed")
    assert (second.split()[:2], second.split()[-1]) == (["b", "ready"], "pinned")
    assert last == "216.0 MiB planned of a budget of 216.0 MiB."
    shown = json.loads(run(tmp_path, "ps", "--all", "--json", "--port", port).stdout)
    planned = {model["id"]: model["planned_bytes"] for model in shown["models"]}
    assert planned == {"a": MODEL_BYTES, "b": MODEL_BYTES + KV_BYTES, "c": 0}
    assert shown["pool"]["num_trims"] == 1
    assert run(tmp_path, "unload", "b", "--port", port).stdout == "b is unloaded.\n"


def test_settings_of_one_model_are_shown_and_changed(folder: Path, port: str, tmp_path: Path) -> None:
    assert run(tmp_path, "set", "a", "--port", port).stdout == ""
    run(tmp_path, "load", "a", "--port", port)
    changed = run(tmp_path, "set", "a", "draft_model=nobody", "max_draft_tokens=4", "aliases=x,y", "--port", port)
    assert changed.stdout.splitlines() == [
        "aliases = x, y",
        "max_draft_tokens = 4",
        "draft_model = nobody",
        "After the next load of a: draft_model, max_draft_tokens.",
    ]
    run(tmp_path, "unload", "x", "--port", port)
    refused = run(tmp_path, "load", "a", "--port", port)
    assert "The draft_model of a is 'nobody', and there is no such model on this machine" in refused.stderr
    cleared = run(tmp_path, "set", "y", "draft_model=", "max_draft_tokens=", "aliases=", "--port", port)
    assert (cleared.returncode, cleared.stdout) == (0, "")
    wrong = run(tmp_path, "set", "a", "max_draft_tokens=many", "--port", port)
    assert (wrong.returncode, "max_draft_tokens cannot be 'many': it takes" in wrong.stderr) == (1, True)
    nameless = run(tmp_path, "set", "a", "pinned", "--port", port)
    assert (nameless.returncode, "'pinned' is no NAME=VALUE" in nameless.stderr) == (1, True)


def test_what_fails_is_said_in_a_line(folder: Path, port: str, tmp_path: Path) -> None:
    set_mode(folder, "broken", "c")
    failed = run(tmp_path, "load", "c", "--port", port)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("error: c is failed: its config.json names no model")
    unknown = run(tmp_path, "unload", "nobody", "--port", port)
    assert (unknown.returncode, "There is no model 'nobody'" in unknown.stderr) == (1, True)
    nowhere = run(tmp_path, "ps", "--port", "9")
    assert (nowhere.returncode, "No MLX Manager answers on http://127.0.0.1:9" in nowhere.stderr) == (1, True)
