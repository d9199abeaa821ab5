"""ps, load and unload as processes, against a running server."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mlx_manager.catalog import MODEL_SETTINGS
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


def test_the_profile_of_a_model_is_shown_and_changed(port: str, tmp_path: Path) -> None:
    def profile(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run(tmp_path, "profile", "c", *arguments, "--port", port)

    changed = profile("temperature=0.25", "disk_cache=OFF", "max_draft_tokens=0", "aliases=little, small").stdout
    cells = [re.split(" {2,}", line)[:2] for line in changed.splitlines()[1:]]
    assert cells == [
        ["aliases", "little, small"],
        ["max_draft_tokens", "0"],
        ["disk_cache", "off"],
        ["temperature", "0.25"],
    ]
    kept = {"temperature": 0.25, "disk_cache": "off", "max_draft_tokens": 0, "aliases": ["little", "small"]}
    assert httpx.get(f"http://127.0.0.1:{port}/admin/models/c").json()["settings"] == kept
    back = json.loads(profile("--unset", "temperature", "--unset", "aliases", "top_k=7", "--json").stdout)
    assert back["settings"] == {"disk_cache": "off", "max_draft_tokens": 0, "top_k": 7}
    # what is wrong is said by name, and nothing of it holds
    for wrong, said in (
        (("top_k=2", "temperature=9"), "temperature cannot be '9': it takes a number from 0.0 to 2.0."),
        (("disk_cash=off",), "A model has no setting 'disk_cash'. Did you mean disk_cache?"),
        (("top_k=",), "top_k= says no value. To take what it says away: --unset top_k"),
    ):
        refused = profile(*wrong)
        assert (refused.returncode, refused.stderr.splitlines()[-1]) == (1, f"error: {said}")
    header, *rows = profile().stdout.splitlines()
    assert header.split()[:3] == ["setting", "value", "takes"]
    own = {"disk_cache": "off", "max_draft_tokens": "0", "top_k": "7"}
    assert [re.split(" {2,}", row)[:2] for row in rows] == [
        [row.name, own.get(row.name, "-")] for row in MODEL_SETTINGS
    ]


def test_a_draft_model_that_is_not_there_is_refused_when_it_is_set(port: str, tmp_path: Path) -> None:
    refused = run(tmp_path, "profile", "a", "draft_model=nobody", "max_draft_tokens=4", "--port", port)
    assert "The draft_model of a is 'nobody', and there is no such model on this machine" in refused.stderr
    assert (refused.returncode, refused.stdout) == (1, "")
    kept = httpx.get(f"http://127.0.0.1:{port}/admin/models/a").raise_for_status().json()["settings"]
    assert "draft_model" not in kept
    assert "max_draft_tokens" not in kept


def test_what_fails_is_said_in_a_line(folder: Path, port: str, tmp_path: Path) -> None:
    set_mode(folder, "broken", "c")
    failed = run(tmp_path, "load", "c", "--port", port)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("error: c is failed: its config.json names no model")
    unknown = run(tmp_path, "unload", "nobody", "--port", port)
    assert (unknown.returncode, "There is no model 'nobody'" in unknown.stderr) == (1, True)
    nowhere = run(tmp_path, "ps", "--port", "9")
    assert (nowhere.returncode, "No MLX Manager answers on http://127.0.0.1:9" in nowhere.stderr) == (1, True)
