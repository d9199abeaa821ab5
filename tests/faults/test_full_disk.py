"""A disk that is full while a model is downloaded, requests are logged and the database is written; a locked one."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from mlx_manager.engine.disk_cache import DeviceReader, DiskCache
from tests.e2e.server_process import PATIENCE_S, ServerProcess, serving, wait_until
from tests.hub.conftest import CONFIG, weights
from tests.hub.hub_server import HubServer, Repository

pytestmark = pytest.mark.faults
WEIGHTS = "model.safetensors"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Nothing more fits on `disk`."""
    filler = disk / "filler"
    with filler.open("wb") as sink:
        try:
            while True:
                sink.write(bytes(65536))
                sink.flush()
        except OSError:
            pass
        while True:
            # what is left of the last page is no room, either
            try:
                os.write(sink.fileno(), b"\0")
            except OSError:
                break
    try:
        yield
    finally:
        filler.unlink()


def ask(server: ServerProcess, words: str = "Go on.") -> int:
    body = {"model": server.model, "messages": [{"role": "user", "content": words}], "max_tokens": 3}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=PATIENCE_S).status_code


def num_audited(server: ServerProcess) -> int:
    params = {"model": server.model, "limit": "1000"}
    return len(httpx.get(f"{server.url}/admin/requests", params=params, timeout=PATIENCE_S).json()["requests"])


def test_requests_are_answered_while_nothing_can_be_written(tiny_folder: Path, small_disk: Path) -> None:
    with serving(tiny_folder, small_disk / "home", "--kv-budget", "64MiB") as server:
        assert ask(server) == 200
        with full(small_disk):
            # the log, the audit, the traces and the books of usage all lie on it
            assert [ask(server) for _ in range(30)] == [200] * 30
            refused = httpx.post(
                f"{server.url}/auth/register", json={"name": "ann", "password": "correct horse battery"}, timeout=60
            )
            assert refused.status_code == 503, refused.text
            assert "disk" in refused.json()["error"]["message"] or "full" in refused.json()["error"]["message"]
            assert httpx.get(f"{server.url}/health", timeout=PATIENCE_S).json()["status"] == "ok"
        assert ask(server) == 200
        wait_until(lambda: num_audited(server) == 32, 30, lambda: num_audited(server))
    with sqlite3.connect(small_disk / "home" / "mlx-manager.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()


def test_prefixes_that_cannot_be_spilled_are_left_out(tiny_folder: Path, small_disk: Path) -> None:
    flags = ("--kv-budget", "64MiB", "--disk-cache", "64MiB")
    with serving(tiny_folder, small_disk / "home", *flags) as server:

        def num_spilled() -> int:
            return len([*(small_disk / "home" / "state").rglob("*.safetensors")])

        with full(small_disk):
            assert ask(server, "Tell of the sea. " * 40) == 200
            time.sleep(3)
            assert num_spilled() == 0
            assert ask(server, "Tell of the sea. " * 40) == 200
        assert ask(server, "Tell of the hills. " * 40) == 200
        wait_until(num_spilled, 30, server.output.read_text)
        assert server.is_ready()


def test_a_prefix_cache_goes_on_where_its_disk_was_full(small_disk: Path) -> None:
    block = (b"keys" * 1000, b"values" * 1000)
    cache = DiskCache(small_disk / "cache", "model", 1 << 30, DeviceReader(lambda blocks: [block for _ in blocks]))
    cache.put(b"before", block)
    cache.flush()
    with full(small_disk):
        assert cache.put(b"during", block)
        cache.flush()
        assert b"during" not in cache
        assert cache.fetch(b"during") is None
        assert cache.fetch(b"before") == block
    cache.put(b"after", block)
    cache.flush()
    assert cache.fetch(b"after") == block
    assert not [*small_disk.rglob("*.partial")]


def test_a_disk_that_fills_up_during_a_download(
    tiny_folder: Path, small_disk: Path, tmp_path: Path, hub: HubServer
) -> None:
    content = weights(20_000_000)
    files = {"config.json": str(CONFIG).replace("'", '"').encode(), "tokenizer.json": b"{}" * 2000, WEIGHTS: content}
    hub.repositories["org/large"] = Repository(files=files, facts={"tags": ["mlx"]})
    hub.faults.slow_after[WEIGHTS] = 5_000_000
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(small_disk / "hf")}
    with serving(tiny_folder, tmp_path / "home", "--kv-budget", "64MiB", environment=environment) as server:
        downloads = f"{server.url}/admin/downloads"
        id_ = httpx.post(downloads, json={"model": "org/large"}, timeout=PATIENCE_S).json()["id"]

        def status() -> dict[str, object]:
            found: dict[str, object] = httpx.get(f"{downloads}/{id_}", timeout=PATIENCE_S).json()
            return found

        wait_until(lambda: int(str(status()["done_bytes"])) > 4_000_000, 30, status)
        with full(small_disk):
            hub.faults.go_on.set()
            wait_until(lambda: status()["state"] == "failed", 60, status)
            assert "disk" in str(status()["error"]) or "space" in str(status()["error"])
            assert ask(server) == 200
        hub.faults.slow_after.clear()
        assert httpx.post(f"{downloads}/{id_}/resume", timeout=PATIENCE_S).status_code == 202
        wait_until(lambda: status()["state"] == "done", 60, status)
        arrived = Path(str(status()["path"])) / WEIGHTS
        assert hashlib.sha256(arrived.read_bytes()).digest() == hashlib.sha256(content).digest()


def test_a_database_that_is_locked_for_long(tiny_folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with serving(tiny_folder, home, "--kv-budget", "64MiB") as server:
        assert ask(server) == 200
        holder = sqlite3.connect(home / "mlx-manager.db", isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        until_s = time.monotonic() + 12
        num_asked = 0
        while time.monotonic() < until_s:
            assert ask(server) == 200
            num_asked += 1
        holder.execute("ROLLBACK")
        holder.close()
        wait_until(lambda: num_audited(server) == num_asked + 1, 30, lambda: (num_audited(server), num_asked))
