"""What is configured survives: restarts, crashes, other processes, and disks that do not take more."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import psutil
import pytest
from sqlalchemy import text

from mlx_manager.catalog import (
    KeyLimits,
    Provider,
    ProviderKind,
    Route,
    RouteTarget,
    Scope,
    ToolServer,
    ToolServerKind,
    User,
    UserRole,
    UserState,
)
from mlx_manager.catalog.people import ApiKey
from mlx_manager.catalog.route import PatternKind
from mlx_manager.errors import Conflict, InvalidRequest, StorageUnavailable
from mlx_manager.ir import RequestRecord, place_of_key, place_of_user
from mlx_manager.storage import keys, users
from mlx_manager.storage.audit import AuditLog
from mlx_manager.storage.configuration import Configuration
from mlx_manager.storage.database import SQLITE_FILE, Database, parse_database_url
from mlx_manager.storage.ledger import Ledger, Used
from mlx_manager.storage.migrations import NEWEST
from mlx_manager.storage.named_rows import PROVIDERS, ROUTES, TOOL_SERVERS
from mlx_manager.storage.patience import Patience
from mlx_manager.storage.secrets import KEY_FILE, BrokenSecret
from mlx_manager.storage.store import Change, Store

ADA = User(id=0, name="ada", role=UserRole.ADMIN, state=UserState.ACTIVE, created_unix_s=1_700_000_000)
PROVIDER = Provider(id=0, name="cloud", kind=ProviderKind.OPENAI, base_url="https://api.example/v1", models=("a", "b"))
SHOP = ToolServer(id=0, name="shop", kind=ToolServerKind.STDIO, command=("shop", "--open"))
ROUTE = Route(
    id=0,
    name="big",
    position=1,
    pattern_kind=PatternKind.PREFIX,
    pattern="gpt-",
    targets=(RouteTarget(model="local"), RouteTarget(provider="cloud")),
)


def change(action: str = "test.change") -> Change:
    return Change(actor="test", action=action, subject="it")


async def fill(store: Store) -> Configuration:
    """One of everything."""
    async with store.changing(change()) as session:
        ada = await users.insert(session, ADA, "hash")
        key = ApiKey(
            id=0,
            user_id=ada.id,
            name="ci",
            hint="abcd",
            scopes=(Scope.INFERENCE,),
            limits=KeyLimits(models=("m",), tokens_per_day=10),
            created_unix_s=1_700_000_001,
        )
        await keys.insert(session, key, "digest")
        await PROVIDERS.insert(session, PROVIDER, secret=store.secrets.seal(b"sk-1"))
        await ROUTES.insert(session, ROUTE)
        await TOOL_SERVERS.insert(session, SHOP, secret=store.secrets.seal(b"open sesame"))
    return store.current


async def reset(url: str | None) -> None:
    """Empty a database that several tests share."""
    if url is not None:
        import asyncpg  # noqa: PLC0415 — the driver is an extra

        connection = await asyncpg.connect(url)
        await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        await connection.close()


async def test_everything_is_there_again_after_a_restart(database_url: str | None, tmp_path: Path) -> None:
    await reset(database_url)
    store = await Store.open(database_url, tmp_path)
    before = await fill(store)
    await store.override({"use_cloud": False}, actor="test")
    await store.close()
    again = await Store.open(database_url, tmp_path)
    current = again.current
    await again.close()
    assert (current.users, current.keys) == (before.users, before.keys)
    assert (current.providers, current.routes) == (before.providers, before.routes)
    assert current.providers[0].models == ("a", "b")
    assert current.tool_servers == before.tool_servers
    assert current.tool_servers[0].command == ("shop", "--open")
    assert current.routes[0].targets == ROUTE.targets
    assert current.overrides == {"use_cloud": False}
    sealed = current.sealed["cloud"]
    assert sealed is not None
    assert b"sk-1" not in sealed.encode()
    assert again.secrets.unseal(sealed) == b"sk-1"


async def test_what_fails_half_way_is_undone(database_url: str | None, tmp_path: Path) -> None:
    await reset(database_url)
    store = await Store.open(database_url, tmp_path)
    await fill(store)

    async def rename_and_collide() -> None:
        async with store.changing(change("user.rename")) as session:
            await users.update(session, store.current.users[0].id, {"name": "eve"})
            await PROVIDERS.insert(session, PROVIDER)

    with pytest.raises(Conflict):
        await rename_and_collide()
    await store.refresh()
    changes = await store.changes()
    await store.close()
    assert store.current.users[0].name == "ada"
    assert [row.action for row in changes] == ["test.change"]


async def test_another_process_s_change_is_followed(database_url: str | None, tmp_path: Path) -> None:
    await reset(database_url)
    watching, writing = await Store.open(database_url, tmp_path), await Store.open(database_url, tmp_path)
    watching.begin_watch()
    heard = asyncio.Event()
    watching.subscribe(lambda _: heard.set())
    await fill(writing)
    await asyncio.wait_for(heard.wait(), 5)
    assert [user.name for user in watching.current.users] == ["ada"]
    await watching.close()
    await writing.close()


async def test_two_changes_at_once_take_turns(database_url: str | None, tmp_path: Path) -> None:
    await reset(database_url)
    store = await Store.open(database_url, tmp_path)

    async def add_if_first(name: str) -> bool:
        async with store.changing(change()) as session:
            is_first = await users.count(session) == 0
            await asyncio.sleep(0.02)
            if is_first:
                await users.insert(session, msgspec.structs.replace(ADA, name=name), "hash")
            return is_first

    assert sum(await asyncio.gather(*(add_if_first(f"u{index}") for index in range(4)))) == 1
    await store.close()


async def test_usage_is_summed_and_kept(database_url: str | None, tmp_path: Path) -> None:
    await reset(database_url)
    store = await Store.open(database_url, tmp_path)
    key_id = (await fill(store)).keys[0].id
    for _ in range(2):
        ledger = Ledger(store)
        await ledger.open()
        ledger.add(key_id, 3, "cloud", Used(1, 10, 5, 700))
        ledger.add(None, 3, "local", Used(1, 3, 4, 0))
        ledger.note_use(key_id)
        await ledger.close()
    ledger = Ledger(store)
    await ledger.open()
    assert ledger.today(place_of_key(key_id)) == Used(2, 20, 10, 1400)
    assert ledger.today(place_of_user(3)) == ledger.this_month() == Used(4, 26, 18, 1400)
    await ledger.close()
    assert store.current.keys[0].last_used_unix_s is not None
    await store.close()


async def test_servers_on_one_database_see_what_the_others_use(postgres_url: str, tmp_path: Path) -> None:
    await reset(postgres_url)
    stores = [await Store.open(postgres_url, tmp_path) for _ in range(2)]
    here, there = (Ledger(store, period_s=0.1) for store in stores)
    await here.open()
    await there.open()
    for ledger in (here, there, here):
        ledger.add(1, None, "cloud", Used(1, 10, 5, 700))
    deadline_s = time.monotonic() + 5
    while here.this_month("key 1") != there.this_month("key 1") or here.this_month() != Used(3, 30, 15, 2100):
        assert time.monotonic() < deadline_s, (here.this_month("key 1"), there.this_month("key 1"))
        await asyncio.sleep(0.02)
    for ledger, store in zip((here, there), stores, strict=True):
        await ledger.close()
        await store.close()


def kill_a_writer(home: Path) -> int:
    """Kill a process amid its changes; the number of the last one that it saw committed."""
    script = """
import asyncio, pathlib, sys
from mlx_manager.storage.store import Change, Store
async def main():
    store = await Store.open(None, pathlib.Path(sys.argv[1]))
    for number in range(10_000):
        async with store.changing(Change(actor="a", action="b", subject=str(number))):
            pass
        print(number, flush=True)
asyncio.run(main())
"""
    writer = subprocess.Popen([sys.executable, "-c", script, str(home)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    last = 0
    while last < 20:
        last = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    rest = writer.stdout.read().split()
    writer.wait()
    writer.stdout.close()
    return max([last, *(int(line) for line in rest)])


async def test_a_killed_writer_loses_nothing_it_had_committed(tmp_path: Path) -> None:
    last = await asyncio.to_thread(kill_a_writer, tmp_path)
    store = await Store.open(None, tmp_path)
    kept = {row.subject for row in await store.changes(limit=1000)}
    await store.close()
    assert {str(number) for number in range(last + 1)} <= kept


async def test_a_locked_database_says_so_and_is_read_on(tmp_path: Path) -> None:
    store = await Store.open(None, tmp_path, Patience(lock_s=0.2))
    await fill(store)
    locking = sqlite3.connect(tmp_path / SQLITE_FILE, isolation_level=None)
    locking.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageUnavailable, match=r"locked by another process, and was not free within 0\.2 s"):
        async with store.changing(change()):
            pass
    await store.refresh()
    assert [user.name for user in store.current.users] == ["ada"]
    locking.close()
    async with store.changing(change()):
        pass
    await store.close()


async def test_a_postgresql_that_somebody_holds_locked_says_so(postgres_url: str, tmp_path: Path) -> None:
    import asyncpg  # noqa: PLC0415 — the driver is an extra

    await reset(postgres_url)
    store = await Store.open(postgres_url, tmp_path, Patience(lock_s=0.2))
    locking = await asyncpg.connect(postgres_url)
    transaction = locking.transaction()
    await transaction.start()
    await locking.execute("SELECT pg_advisory_xact_lock(10242)")
    with pytest.raises(StorageUnavailable, match=r"locked by another process, and was not free within 0\.2 s"):
        async with store.changing(change()):
            pass
    await store.refresh()
    await transaction.rollback()
    await locking.close()
    async with store.changing(change()):
        pass
    await store.close()


async def test_a_postgresql_that_hangs_is_named_and_not_waited_for(postgres_url: str, tmp_path: Path) -> None:
    await reset(postgres_url)
    store = await Store.open(postgres_url, tmp_path, Patience(answer_s=0.3, end_s=1.0))
    ledger, audit = Ledger(store), AuditLog(store.database, max_rows=10, max_age_s=60)
    await ledger.open()
    audit.open()
    async with store.database.reading() as session:
        backend = (await session.exec(text("SELECT pg_backend_pid()"))).scalar()  # type: ignore[call-overload]
    server = psutil.Process(backend).parent()
    assert server is not None
    processes = [server, *server.children()]
    for process in processes:
        process.suspend()
    try:
        with pytest.raises(StorageUnavailable, match=r"did not answer within 0\.3 s"):
            await store.refresh()
        ledger.add(1, None, "cloud", Used(1, 10, 5, 700))
        audit.put(RequestRecord(request_id="r", arrived_unix_s=time.time(), status=200, duration_s=0.1))
        began_s = time.monotonic()
        await asyncio.gather(ledger.close(), audit.close())
        await store.close()
        assert time.monotonic() - began_s < 5
    finally:
        for process in reversed(processes):
            process.resume()
    again = await Store.open(postgres_url, tmp_path)
    await again.close()


async def test_a_disk_that_takes_no_more_says_so(tmp_path: Path) -> None:
    store = await Store.open(None, tmp_path)
    await fill(store)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / f"{SQLITE_FILE}-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(StorageUnavailable, match=r"the disk failed, or is full|disk that is full"):
            async with store.changing(Change(actor="a", action="b", subject="c", detail={"text": "x" * 100_000})):
                pass
        await store.refresh()
        assert [user.name for user in store.current.users] == ["ada"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    async with store.changing(change("later.change")):
        pass
    assert (await store.changes())[0].action == "later.change"
    await store.close()


async def test_a_read_only_database_is_read_and_says_that_it_takes_nothing(tmp_path: Path) -> None:
    store = await Store.open(None, tmp_path)
    await fill(store)
    reader = await Store.open(f"sqlite:///file:{tmp_path}/{SQLITE_FILE}?mode=ro&uri=true", tmp_path)
    assert [user.name for user in reader.current.users] == ["ada"]
    with pytest.raises(StorageUnavailable, match="read-only"):
        await reader.override({"use_cloud": True}, actor="test")
    await reader.close()
    await store.close()


async def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    (tmp_path / SQLITE_FILE).write_bytes(b"this is no database" * 1000)
    with pytest.raises(StorageUnavailable, match="is no SQLite file, or is damaged"):
        await Database.open(None, tmp_path)


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match="cannot be opened"):
        await Database.open(f"sqlite:///{tmp_path}/nowhere/a.db", tmp_path)


async def test_a_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match=r"mlx:\*\*\*@127\.0\.0\.1"):
        await Database.open("postgresql://mlx:secret@127.0.0.1:9/x", tmp_path)


@pytest.mark.parametrize("url", ["mysql://a/b", "no url", "sqlite://"])
def test_an_address_of_something_else_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="postgresql://user:password@host/name"):
        parse_database_url(url, tmp_path)


async def test_a_database_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    await (await Database.open(None, tmp_path)).close()
    with sqlite3.connect(tmp_path / SQLITE_FILE) as raw:
        raw.execute("UPDATE alembic_version SET version_num = 'later'")
    raw.close()
    with pytest.raises(Conflict, match="later version of MLX Manager"):
        await Database.open(None, tmp_path)


async def test_files_are_for_their_user_alone(tmp_path: Path) -> None:
    await (await Store.open(None, tmp_path)).close()
    for file in (tmp_path / SQLITE_FILE, tmp_path / "secrets" / KEY_FILE):
        assert file.stat().st_mode & 0o077 == 0
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0


async def test_rotated_secrets_are_read_with_the_new_key_only(tmp_path: Path) -> None:
    store = await Store.open(None, tmp_path)
    old = (await fill(store)).sealed["cloud"]
    token = store.secrets.sign({"sub": "1", "exp": 4_000_000_000})
    assert await store.rotate_secrets(actor="test") == 2
    assert store.secrets.unseal(store.current.sealed_of_tools["shop"] or "") == b"open sesame"
    new = store.current.sealed["cloud"]
    assert old is not None
    assert new is not None
    assert store.secrets.unseal(new) == b"sk-1"
    assert store.secrets.verify(token) is None
    with pytest.raises(BrokenSecret):
        store.secrets.unseal(old)
    await store.close()


async def test_a_rotation_that_is_cut_off_loses_no_secret(tmp_path: Path) -> None:
    store = await Store.open(None, tmp_path)
    old = (await fill(store)).sealed["cloud"]
    assert old is not None
    store.secrets.begin_rotation()
    fresh = await Store.open(None, tmp_path)
    assert fresh.secrets.unseal(old) == b"sk-1"
    assert fresh.secrets.unseal(store.secrets.seal(b"sk-2")) == b"sk-2"
    await fresh.close()
    await store.close()


def test_the_newest_revision_is_the_one_named() -> None:
    folder = Path(sys.modules["mlx_manager.storage.migrations"].__file__ or "").parent / "versions"
    revisions = sorted(path.name[1:5] for path in folder.glob("r*.py"))
    assert revisions[-1] == NEWEST


def test_no_thread_of_the_driver_answers_to_an_event_loop_that_ended(tmp_path: Path) -> None:
    async def cancel_after(num_turns: int) -> None:
        database = await Database.open(None, tmp_path)

        async def read() -> None:
            async with database.reading() as session:
                await session.exec(text("SELECT 1"))  # type: ignore[call-overload]

        readers = [asyncio.create_task(read()) for _ in range(6)]
        for _ in range(num_turns):
            await asyncio.sleep(0)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        await database.close()

    before = set(threading.enumerate())
    for num_turns in range(12):
        # a connection is cancelled while it is opened in some of these turns
        asyncio.run(cancel_after(num_turns))
        assert set(threading.enumerate()) <= before
