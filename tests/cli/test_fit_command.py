"""mlx-manager fit, as a process: what it prints, and with which exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.server_process import run
from tests.hub.gguf_writer import tiny_llama


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with one tiny model, `tiny`, of 256 tokens of context."""
    source = tiny_llama().write(tmp_path / "tiny.gguf")
    assert run(tmp_path, "import", str(source)).returncode == 0
    return tmp_path


def test_a_model_that_fits(home: Path) -> None:
    done = run(home, "fit", "tiny", "--memory", "16GB")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("tiny in float32 on ")
    assert "14.9 GiB of memory, of which models may take 75%: 11.2 GiB" in lines[0]
    parts = ("weights", "keys and values", "recurrent state", "activations", "process")
    assert all(any(line.startswith(part) for line in lines) for part in parts)
    for num_requests in (1, 2, 4, 8, 16):
        assert any(line.split()[:2] == [str(num_requests), "256"] for line in lines)
    assert any(line.startswith("Fits: one request of full context needs ") for line in lines)
    by_folder = run(home, "fit", str(home / "models" / "tiny"), "--memory", "16GB")
    assert by_folder.stdout == done.stdout


def test_the_same_as_json(home: Path) -> None:
    found = json.loads(run(home, "fit", "tiny", "--memory", "16GB", "--dtype", "bfloat16", "--json").stdout)
    wide = json.loads(run(home, "fit", "tiny", "--memory", "16GB", "--json").stdout)
    assert (found["model"], found["verdict"]) == ("tiny", "fits")
    assert (found["memory_bytes"], found["budget_bytes"]) == (16 * 10**9, 12 * 10**9)
    assert found["largest_context"] == {"1": 256, "2": 256, "4": 256, "8": 256, "16": 256}
    assert found["most_full_requests"] > 1000
    for part in ("weights_bytes", "kv_bytes_per_token"):
        assert 2 * found["footprint"][part] == wide["footprint"][part]


def test_a_models_own_settings_hold_but_for_the_flags(home: Path) -> None:
    def kv_bytes(*flags: str) -> int:
        found = json.loads(run(home, "fit", "tiny", "--memory", "16GB", "--json", *flags).stdout)
        return int(found["footprint"]["kv_bytes_per_token"])

    computed = kv_bytes()
    (home / "config.toml").write_text('dtype = "float32"\n[models.tiny]\ndtype = "bfloat16"\n')
    assert kv_bytes() == computed // 2
    assert kv_bytes("--dtype", "float32") == computed
    (home / "config.toml").unlink()


def test_a_draft_model_is_counted_in(home: Path) -> None:
    alone = json.loads(run(home, "fit", "tiny", "--memory", "16GB", "--json").stdout)["footprint"]
    both = json.loads(run(home, "fit", "tiny", "--draft-model", "tiny", "--memory", "16GB", "--json").stdout)
    for part in ("weights_bytes", "kv_bytes_per_token"):
        assert both["footprint"][part] == 2 * alone[part]
    (home / "config.toml").write_text('[models.tiny]\ndraft_model = "tiny"\n')
    configured = run(home, "fit", "tiny", "--memory", "16GB")
    assert "Its draft model tiny is counted in: " in configured.stdout
    assert run(home, "fit", "tiny", "--draft-model", "nobody").returncode == 1


def test_a_model_that_does_not_fit_is_an_exit_code(home: Path) -> None:
    done = run(home, "fit", "tiny", "--memory", "100MiB")
    assert done.returncode == 1
    assert "Does not fit: weights and process alone take " in done.stdout


def test_a_kv_budget_beyond_the_memory_is_told(home: Path) -> None:
    done = run(home, "fit", "tiny", "--memory", "1GiB", "--kv-budget", "8GiB")
    assert done.returncode == 0
    assert "With kv_budget at 8.0 GiB the prefix cache would outgrow this memory in time" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (("fit", "missing"), 1, "error: There is no model 'missing'"),
        (("fit", "tiny", "--memory", "lots"), 2, "error: memory cannot be 'lots' (from the flag --memory): it takes"),
    ],
)
def test_an_error_is_one_line(home: Path, arguments: tuple[str, ...], exit_code: int, message: str) -> None:
    done = run(home, *arguments)
    assert (done.returncode, done.stdout) == (exit_code, "")
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
