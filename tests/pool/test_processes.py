"""Worker processes: what happens when one dies, when the pool closes, when the gateway is killed, and the spare."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest

from mlx_manager.backends.local import LocalBackend
from mlx_manager.errors import ModelLoadFailed, WorkerDied
from mlx_manager.ir import PartDelta
from mlx_manager.pool import ModelState
from mlx_manager.pool.socket_folder import SocketFolder
from tests.pool.counting_pool import (
    answer,
    counting_pool,
    num_loads,
    request,
    set_mode,
    status_of,
    wait_for,
    workers_of,
)

MYSELF = psutil.Process()


async def test_a_killed_worker_ends_its_streams_only_and_the_next_lease_starts_another(tmp_path: Path) -> None:
    async with counting_pool(tmp_path) as pool:
        other = asyncio.create_task(answer(pool, "other", "100 0.01", model="other"))
        async with aclosing(LocalBackend(pool).generate(request("a", "1000000 0.01"))) as events:
            received = [await anext(events) for _ in range(5)]
            assert isinstance(received[-1], PartDelta)
            victim = status_of(pool).worker_pid
            assert victim is not None
            os.kill(victim, signal.SIGKILL)
            with pytest.raises(WorkerDied, match="'counter' was ended by SIGKILL"):
                async for _ in events:
                    pass
        status = status_of(pool)
        assert (status.state, status.num_worker_deaths, status.worker_pid) == (ModelState.FAILED, 1, None)
        assert await answer(pool, "b", "1 0") == "b-0 "
        assert status_of(pool).state is ModelState.READY
        assert status_of(pool).worker_pid != victim
        assert len((await other).split()) == 100


async def test_a_worker_that_dies_of_a_load_fails_the_lease_once(tmp_path: Path) -> None:
    async with counting_pool(tmp_path) as pool:
        set_mode(tmp_path, "dies")
        with pytest.raises(ModelLoadFailed, match="'counter' could not be loaded: its worker was ended by SIGKILL"):
            await answer(pool, "a", "1 0")
        assert num_loads(tmp_path) == 1
        assert status_of(pool).num_worker_deaths == 1
        assert status_of(pool).state is ModelState.FAILED


async def test_a_load_takes_the_spare_and_another_is_started(tmp_path: Path) -> None:
    async with counting_pool(tmp_path, use_spare=True) as pool:
        await wait_for(lambda: len(workers_of(MYSELF)) == 1)
        spare_pid = workers_of(MYSELF)[0].pid
        await answer(pool, "a", "1 0")
        assert status_of(pool).worker_pid == spare_pid
        await wait_for(lambda: len(workers_of(MYSELF)) == 2)
        (next_spare_pid,) = {worker.pid for worker in workers_of(MYSELF)} - {spare_pid}
        await answer(pool, "b", "1 0", model="other")
        assert status_of(pool, "other").worker_pid == next_spare_pid


async def test_a_dead_spare_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with counting_pool(tmp_path, use_spare=True) as pool:
        await wait_for(lambda: len(workers_of(MYSELF)) == 1)
        spare_pid = workers_of(MYSELF)[0].pid
        os.kill(spare_pid, signal.SIGKILL)
        await wait_for(lambda: any("idle worker was ended by SIGKILL" in message for message in caplog.messages))
        assert await answer(pool, "a", "1 0") == "a-0 "
        assert status_of(pool).worker_pid != spare_pid
        assert status_of(pool).num_worker_deaths == 0


async def test_close_leaves_no_process_and_no_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="mlx_manager.pool")
    async with counting_pool(tmp_path, use_spare=True) as pool:
        await answer(pool, "a", "1 0")
        await wait_for(lambda: len(workers_of(MYSELF)) == 2)
        (folder,) = {path.parent for path in _sockets_of(MYSELF.pid)}
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not workers_of(MYSELF)
    assert not folder.exists()
    assert "[counter] stopping as asked" in caplog.messages


async def test_a_worker_that_does_not_react_is_killed(tmp_path: Path) -> None:
    async with counting_pool(tmp_path) as pool, pool.lease("counter") as worker:
        os.kill(worker.pid, signal.SIGSTOP)
        await worker.stop(grace_s=0.1)
        assert not workers_of(MYSELF)
        assert status_of(pool).num_worker_deaths == 0


async def test_a_killed_gateway_leaves_no_worker(tmp_path: Path) -> None:
    gateway = _start_gateway(tmp_path)
    try:
        assert gateway.stdout is not None
        line = await asyncio.to_thread(gateway.stdout.readline)
        pids: list[int] = json.loads(line)
        assert len(pids) == 2
        assert all(psutil.pid_exists(pid) for pid in pids)
    finally:
        gateway.kill()
        gateway.communicate()
    await wait_for(lambda: not any(_runs(pid) for pid in pids))


async def test_the_socket_folder_of_a_killed_gateway_is_removed_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = _start_gateway(tmp_path)
    try:
        assert gateway.stdout is not None
        await asyncio.to_thread(gateway.stdout.readline)
        (folder,) = _socket_folders(tmp_path)
        unknown = tmp_path / "mlxm-unknown"
        unknown.mkdir(mode=0o700)
        # Where this process makes its own folders; tempfile keeps it in a variable of the module.
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        SocketFolder().remove()
        assert folder.is_dir()
    finally:
        gateway.kill()
        gateway.communicate()
    SocketFolder().remove()
    assert _socket_folders(tmp_path) == [unknown]


_GATEWAY = """
import asyncio, json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import psutil, uvloop
from tests.pool.counting_pool import answer, counting_pool, wait_for, workers_of

async def main():
    async with counting_pool(Path(sys.argv[2]), use_spare=True) as pool:
        await answer(pool, "a", "1 0")
        await wait_for(lambda: len(workers_of(psutil.Process())) == 2)
        asyncio.create_task(answer(pool, "b", "1000000 0.01"))
        print(json.dumps([worker.pid for worker in workers_of(psutil.Process())]), flush=True)
        await asyncio.sleep(600)

uvloop.run(main())
"""


def _start_gateway(folder: Path) -> subprocess.Popen[bytes]:
    repository = Path(__file__).parents[2]
    # A gateway that is killed leaves its folder of sockets behind.
    environment = os.environ | {"TMPDIR": str(folder)}
    command = [sys.executable, "-c", _GATEWAY, str(repository), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)


def _socket_folders(parent: Path) -> list[Path]:
    return list(parent.glob("mlxm-*"))


def _runs(pid: int) -> bool:
    return bool(psutil.pid_exists(pid)) and bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)


def _sockets_of(pid: int) -> list[Path]:
    addresses = [connection.laddr for connection in psutil.Process(pid).net_connections(kind="unix")]
    return [Path(address) for address in addresses if isinstance(address, str) and "/mlxm-" in address]
