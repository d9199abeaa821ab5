"""search, pull, show and rm as processes, against a hub on loopback."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.server_process import COMMAND, environment, run
from tests.hub.conftest import CONFIG, weights
from tests.hub.hub_server import HubServer, Repository, running_hub

WEIGHTS = "model.safetensors"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with running_hub() as server:
        for number, size in enumerate((1000, 200_000)):
            server.repositories[f"org/tiny-{number}"] = Repository(
                files={
                    "README.md": b"---\nlicense: mit\n---\nHello.\n",
                    "config.json": json.dumps(CONFIG).encode(),
                    "tokenizer_config.json": json.dumps({"chat_template": "{{ tools }}<think>"}).encode(),
                    WEIGHTS: weights(size),
                },
                facts={
                    "tags": ["mlx", "4-bit"],
                    "downloads": 10 - number,
                    "pipeline_tag": "text-generation",
                    "lastModified": "2026-11-01T00:00:00.000Z",
                    "cardData": {"license": "mit", "base_model": "org/big"},
                    "safetensors": {"parameters": {"U32": 1_000_000, "BF16": 500}, "total": 1_000_500},
                },
            )
        server.repositories["org/torch"] = Repository({"pytorch_model.bin": b"PK"}, facts={"tags": ["pytorch"]})
        yield server


def test_a_model_is_found_looked_at_pulled_and_deleted(hub: HubServer, tmp_path: Path) -> None:
    found = run(tmp_path, "search", "TINY", HF_ENDPOINT=hub.url)
    header, first, second = found.stdout.splitlines()
    assert header.split() == ["name", "task", "parameters", "size", "downloads", "likes", "updated"]
    assert first.split() == ["org/tiny-0", "text-generation", "8M", "3.8", "MiB", "10", "0", "2026-11-01"]
    assert second.split()[0] == "org/tiny-1"
    before = run(tmp_path, "show", "org/tiny-1", HF_ENDPOINT=hub.url)
    assert re.search(r"^parameters +200K$", before.stdout, re.MULTILINE)
    assert re.search(r"^knows +tools, thinking$", before.stdout, re.MULTILINE)
    assert re.search(r"^license +mit$", before.stdout, re.MULTILINE)
    assert re.search(r"^Fits: one request of full context needs", before.stdout, re.MULTILINE)
    assert "mlx-manager pull org/tiny-1" in before.stdout
    assert hub.ranges(f"tiny-1::{WEIGHTS}") == ["bytes=0-65535"]

    pulled = run(tmp_path, "pull", "org/tiny-1", HF_ENDPOINT=hub.url)
    assert (pulled.returncode, pulled.stdout) == (
        0,
        "Downloaded org/tiny-1 (llama, 200K parameters, bf16, 195.4 KiB)\n"
        "Serve it: mlx-manager serve --model org/tiny-1\n",
    )
    assert re.search(r"^org/tiny-1: done 100% of 19\d\.\d KiB$", pulled.stderr, re.MULTILINE)
    (entry,) = json.loads(run(tmp_path, "models", "--json").stdout)
    assert (entry["name"], entry["kind"], entry["has_tools"], entry["has_thinking"]) == (
        "org/tiny-1",
        "text",
        True,
        True,
    )

    assert run(tmp_path, "rm", "org/tiny-1").returncode == 1
    assert Path(entry["path"]).is_dir()
    assert re.fullmatch(
        r"Deleted org/tiny-1: .* KiB are free again\.\n", run(tmp_path, "rm", "org/tiny-1", "-y").stdout
    )
    assert not list((tmp_path / "huggingface" / "hub").glob("models--*"))


def test_an_interrupt_pauses_and_the_same_command_goes_on(hub: HubServer, tmp_path: Path) -> None:
    hub.faults.slow_after[WEIGHTS] = 100_000
    process = subprocess.Popen(
        [*COMMAND, "pull", "org/tiny-1", "--revision", "main"],
        env=environment(tmp_path, HF_ENDPOINT=hub.url),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    partials: list[Path] = []
    while not partials or partials[0].stat().st_size < 100_000:
        assert process.poll() is None
        time.sleep(0.05)
        partials = list((tmp_path / "huggingface").rglob("*.mlx-manager.incomplete"))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.endswith(
        "Paused: what has arrived is kept. Go on with: mlx-manager pull org/tiny-1 --revision main\n"
    )
    hub.faults.slow_after.clear()
    assert run(tmp_path, "pull", "org/tiny-1", "--revision", "main", HF_ENDPOINT=hub.url).returncode == 0
    assert hub.ranges(f"tiny-1::{WEIGHTS}") == [None, "bytes=100000-"]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (("search", "--kind", "sound"), 2, r"kind cannot be 'sound' .*text, vision, embedding, reranker\."),
        (("pull", "org/none"), 1, r"There is no model 'org/none' on http://.*hf_token.*"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    hub: HubServer, tmp_path: Path, arguments: tuple[str, ...], exit_code: int, message: str
) -> None:
    done = run(tmp_path, *arguments, HF_ENDPOINT=hub.url)
    assert (done.returncode, done.stdout) == (exit_code, "")
    assert re.fullmatch(rf"error: {message}", done.stderr.splitlines()[-1])
