"""Downloads in processes of their own: stopped at once, resumed from what is there, remembered between starts."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from mlx_manager.errors import Conflict, InvalidRequest, ModelNotFound
from mlx_manager.hub import Inventory
from mlx_manager.hub.access import HubAccess
from mlx_manager.hub.download import DownloadRequest, DownloadState, DownloadStatus
from mlx_manager.hub.downloads import Downloads
from tests.hub.hub_server import HubServer

WEIGHTS = "model.safetensors"
TINY = DownloadRequest(model="org/tiny")


async def until(downloads: Downloads, id_: str, holds: Callable[[DownloadStatus], bool]) -> DownloadStatus:
    """The first status that `holds`. Fails after a while."""
    deadline_s = time.monotonic() + 20
    while not holds(status := downloads.status(id_)):
        assert time.monotonic() < deadline_s, status
        await asyncio.sleep(0.02)
    return status


def has_some(status: DownloadStatus) -> bool:
    return status.done_bytes >= 50_000


def fetchers() -> list[int]:
    """The downloading processes below this one."""
    children = psutil.Process(os.getpid()).children(recursive=True)
    return [child.pid for child in children if "mlx_manager.hub.fetch" in " ".join(child.cmdline())]


async def test_a_download_is_paused_survives_a_restart_and_goes_on(hub: HubServer, tmp_path: Path) -> None:
    access, file = hub.access(tmp_path / "hub"), tmp_path / "downloads.json"
    hub.faults.slow_after[WEIGHTS] = 60_000
    done: list[str] = []
    first = Downloads(access, state_file=file)
    await first.start()
    added = first.add(TINY)
    assert (added.state, added.model, added.total_bytes) == (DownloadState.DOWNLOADING, "org/tiny", 0)
    assert first.add(TINY).id == added.id
    running = await until(first, added.id, has_some)
    assert (running.total_bytes, running.stage) == (sum_of(hub), "downloading")
    paused = await first.pause(added.id)
    assert (paused.state, paused.bytes_per_s, fetchers()) == (DownloadState.PAUSED, 0.0, [])
    with pytest.raises(Conflict, match="is paused: only a running one pauses"):
        await first.pause(added.id)
    await first.close()

    second = Downloads(access, state_file=file, on_done=done.append)
    await second.start()
    (remembered,) = second.statuses()
    assert (remembered.state, remembered.done_bytes) == (DownloadState.PAUSED, paused.done_bytes)
    assert Inventory(tmp_path, cache=tmp_path / "hub").entries() == []
    hub.faults.slow_after.clear()
    second.resume(added.id)
    finished = await until(second, added.id, lambda status: status.state is DownloadState.DONE)
    assert (finished.done_bytes, finished.path, finished.error) == (sum_of(hub), done[0], None)
    assert hub.ranges(f"tiny::{WEIGHTS}") == [None, "bytes=60000-"]
    (entry,) = Inventory(tmp_path, cache=tmp_path / "hub").entries()
    assert (entry.name, entry.path) == ("org/tiny", done[0])
    with pytest.raises(Conflict, match="is complete"):
        await second.cancel(added.id)
    second.forget(added.id)
    assert second.statuses() == []
    await second.close()


async def test_what_a_stopped_server_was_downloading_goes_on_by_itself(hub: HubServer, tmp_path: Path) -> None:
    access, file = hub.access(tmp_path / "hub"), tmp_path / "downloads.json"
    hub.faults.slow_after[WEIGHTS] = 60_000
    first = Downloads(access, state_file=file)
    await first.start()
    id_ = first.add(TINY).id
    await until(first, id_, has_some)
    await first.close()
    assert fetchers() == []
    hub.faults.slow_after.clear()
    second = Downloads(access, state_file=file)
    await second.start()
    await until(second, id_, lambda status: status.state is DownloadState.DONE)
    assert hub.ranges(f"tiny::{WEIGHTS}") == [None, "bytes=60000-"]
    await second.close()


async def test_a_cancel_leaves_nothing_and_lets_the_next_begin(hub: HubServer, tmp_path: Path) -> None:
    hub.repositories["org/next"] = hub.repositories["org/tiny"]
    hub.faults.slow_after[WEIGHTS] = 60_000
    downloads = Downloads(hub.access(tmp_path / "hub"), state_file=None, max_at_once=1)
    await downloads.start()
    first = downloads.add(TINY).id
    second = downloads.add(DownloadRequest(model="org/next")).id
    assert downloads.status(second).state is DownloadState.QUEUED
    await until(downloads, first, has_some)
    hub.faults.slow_after.clear()
    cancelled = await downloads.cancel(first)
    assert (cancelled.state, cancelled.done_bytes) == (DownloadState.CANCELLED, 0)
    assert not (tmp_path / "hub" / "models--org--tiny").exists()
    await until(downloads, second, lambda status: status.state is DownloadState.DONE)
    assert [status.id for status in downloads.statuses()] == [second, first]
    await downloads.close()


async def test_a_failure_says_why_and_can_be_resumed(hub: HubServer, tmp_path: Path) -> None:
    hub.repositories["org/tiny"].is_gated = True
    downloads = Downloads(hub.access(tmp_path / "hub"), state_file=None)
    await downloads.start()
    id_ = downloads.add(TINY).id
    await downloads.wait(id_)
    failed = downloads.status(id_)
    assert failed.state is DownloadState.FAILED
    assert failed.error is not None
    assert failed.error.code == "hub_access_denied"
    assert f"accept its terms on {hub.url}/org/tiny" in failed.error.message
    hub.repositories["org/tiny"].is_gated = False
    assert downloads.add(TINY).id == id_
    await until(downloads, id_, lambda status: status.state is DownloadState.DONE)
    await downloads.close()


async def test_a_downloading_process_that_is_killed_fails_its_download(hub: HubServer, tmp_path: Path) -> None:
    hub.faults.slow_after[WEIGHTS] = 60_000
    downloads = Downloads(hub.access(tmp_path / "hub"), state_file=None)
    await downloads.start()
    id_ = downloads.add(TINY).id
    await until(downloads, id_, has_some)
    (pid,) = fetchers()
    psutil.Process(pid).kill()
    failed = await until(downloads, id_, lambda status: status.state is DownloadState.FAILED)
    assert failed.error is not None
    assert "died" in failed.error.message
    await downloads.close()


async def test_what_is_unknown_or_misnamed_is_refused(tmp_path: Path) -> None:
    downloads = Downloads(HubAccess(endpoint="http://127.0.0.1:9", cache=str(tmp_path)), state_file=None)
    for name in ("", "a/b/c", "/etc", "../up", "org/"):
        with pytest.raises(InvalidRequest, match="form org/name") as refused:
            downloads.add(DownloadRequest(model=name))
        assert refused.value.param == "model"
    with pytest.raises(ModelNotFound, match="no download 'none'"):
        downloads.resume("none")


async def test_a_list_that_cannot_be_read_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "downloads.json").write_text("[{")
    downloads = Downloads(
        HubAccess(endpoint="http://127.0.0.1:9", cache=str(tmp_path)), state_file=tmp_path / "downloads.json"
    )
    await downloads.start()
    assert downloads.statuses() == []
    await downloads.close()


def sum_of(hub: HubServer) -> int:
    files = hub.repositories["org/tiny"].files
    return sum(len(files[name]) for name in ("README.md", "config.json", "tokenizer.json", WEIGHTS))
