"""The audit of requests: one row each, found, exported and followed over HTTP, bounded, and never lost."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlx_manager.backends.scripted import script_of
from mlx_manager.errors import StorageUnavailable
from mlx_manager.ir import RequestRecord
from mlx_manager.storage.audit import AuditLog, AuditQuery
from mlx_manager.storage.database import SQLITE_FILE, Database
from tests.http.scripted_server import HELLO, Serve
from tests.http.test_errors import CHAT, complete_body
from tests.http.test_streams import DEAD, ENDLESS, post
from tests.storage.conftest import database_url, postgres_url  # noqa: F401 - fixtures
from tests.storage.test_database import reset

EVERYTHING = AuditQuery()


def rows(client: httpx.Client, count: int, **query: Any) -> list[dict[str, Any]]:
    """The records that match, once there are so many; they are written a moment after their requests."""
    deadline_s = time.monotonic() + 10
    while True:
        found = client.get("/admin/requests", params=query).json()["requests"]
        if len(found) >= count or time.monotonic() > deadline_s:
            assert len(found) == count
            return [row["record"] for row in found]
        time.sleep(0.05)


def test_every_request_has_one_row_whatever_became_of_it(serve: Serve) -> None:
    served = serve({"m": script_of(HELLO), "dies": (*ENDLESS[:3], DEAD), "endless": ENDLESS})
    with served.http() as client:
        client.post(CHAT, json=complete_body(CHAT), headers={"x-request-id": "good"})
        client.post(CHAT, json=complete_body(CHAT) | {"model": "dies", "stream": True})
        client.post(CHAT, json={"model": "m"})
        client.post(CHAT, json=complete_body(CHAT), headers={"host": "evil.example"})
        client.post("/v1/nothing", json={})
        leaving = post(served, CHAT, complete_body(CHAT) | {"model": "endless", "stream": True})
        leaving.close()
        found = rows(client, 6)
        by_status = sorted((row["status"], row["error_code"]) for row in found)
        assert by_status == [
            (200, None),
            (400, "invalid_request"),
            (403, "host_not_allowed"),
            (404, "not_found"),
            (499, "client_closed"),
            (503, "worker_died"),
        ]
        (good,) = rows(client, 1, request_id="good")
        assert (good["model"], good["target"], good["num_completion_tokens"]) == ("m", "recorder", 4)
        assert len(rows(client, 5, failed=True)) == 5
        assert [row["model"] for row in rows(client, 1, model="dies", status=503)] == ["dies"]
        assert rows(client, 0, since=time.time() + 100) == []
        assert client.get("/admin/requests", params={"status": "x"}).json()["error"]["param"] == "status"


def test_pages_and_exports_hold_every_row_once(serve: Serve) -> None:
    with serve({"m": script_of(HELLO)}).http() as client:
        agent = b'=cmd("calc"),\n'
        for index in range(5):
            headers = [(b"user-agent", agent.replace(b"\n", b";")), (b"x-request-id", f"r{index}".encode())]
            client.post(CHAT, json=complete_body(CHAT), headers=headers)
        rows(client, 5)
        seen: list[str] = []
        before = None
        while True:
            query = {"limit": 2} | ({"before": before} if before else {})
            page = client.get("/admin/requests", params=query).json()
            seen += [row["record"]["request_id"] for row in page["requests"]]
            before = page["next_before"]
            if before is None:
                break
        assert seen == ["r4", "r3", "r2", "r1", "r0"]
        lines = client.get("/admin/requests/export").text.splitlines()
        assert [json.loads(line)["request_id"] for line in lines] == seen
        table = list(csv.DictReader(io.StringIO(client.get("/admin/requests/export?format=csv").text)))
    assert [row["request_id"] for row in table] == seen
    assert table[0]["status"] == "200"
    assert table[0]["user_agent"].startswith("'=cmd"), "a spreadsheet would run it"


def test_numbers_that_no_database_takes_are_refused(serve: Serve) -> None:
    with serve({"m": script_of(HELLO)}).http() as client:
        for path in ("changes?before", "requests?before", "requests?key_id", "requests?status", "traces?before"):
            refused = client.get(f"/admin/{path}=99999999999999999999")
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, path.partition("?")[2])


def test_the_live_view_shows_requests_as_they_end(serve: Serve) -> None:
    with serve({"m": script_of(HELLO)}).http() as client, client.stream("GET", "/admin/requests/live") as live:
        lines = live.iter_lines()
        assert next(lines) == ": following"
        with httpx.Client(base_url=client.base_url) as other:
            other.post(CHAT, json=complete_body(CHAT), headers={"x-request-id": "seen"})
        data = next(line for line in lines if line.startswith("data: "))
    assert json.loads(data.removeprefix("data: "))["request_id"] == "seen"


def record(index: int, *, age_s: float = 0.0) -> RequestRecord:
    return RequestRecord(request_id=f"r{index}", arrived_unix_s=time.time() - age_s, status=200)


async def written(audit: AuditLog, count: int) -> list[str]:
    """The request ids, once there are so many."""
    deadline_s = time.monotonic() + 10
    while True:
        found = await audit.find(EVERYTHING, limit=1000)
        if len(found) == count or time.monotonic() > deadline_s:
            assert len(found) == count
            return [row.record.request_id for row in found]
        await asyncio.sleep(0.05)


async def num_written(audit: AuditLog, least: int) -> None:
    """Wait until so many rows were written in all."""
    deadline_s = time.monotonic() + 20
    while True:
        if audit.num_written >= least:
            return
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.02)


async def test_old_rows_and_too_many_go(tmp_path: Path) -> None:
    database = await Database.open(None, tmp_path)
    audit = AuditLog(database, max_rows=10, max_age_s=3600)
    for index in range(30):
        audit.put(record(index, age_s=4000 if index >= 25 else 0))
    audit.open()
    assert sorted(await written(audit, 5)) == ["r20", "r21", "r22", "r23", "r24"]
    await audit.close()
    await database.close()


async def test_rows_without_end_go_piece_by_piece(tmp_path: Path) -> None:
    database = await Database.open(None, tmp_path)
    audit = AuditLog(database, max_rows=100_000, max_age_s=3600)
    audit.open()
    for index in range(10_010):
        audit.put(record(index))
    await num_written(audit, 10_010)
    audit.follow(max_rows=5, max_age_s=3600)
    for index in (20_001, 20_002):
        audit.put(record(index))
        await num_written(audit, index - 9_990)
    assert await written(audit, 5) == ["r20002", "r20001", "r10009", "r10008", "r10007"]
    await audit.close()
    await database.close()


async def test_a_locked_database_loses_nothing_and_holds_new_requests_back(tmp_path: Path) -> None:
    database = await Database.open(None, tmp_path)
    audit = AuditLog(database, max_rows=100_000, max_age_s=3600)
    other = sqlite3.connect(tmp_path / SQLITE_FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    audit.open()
    for index in range(5_000):
        audit.put(record(index))
    waiting = asyncio.create_task(audit.wait_for_room())
    await asyncio.sleep(0.3)
    assert not waiting.done()
    other.execute("COMMIT")
    other.close()
    await asyncio.wait_for(waiting, 20)
    await audit.close()
    async with database.reading() as session:
        counted = await (await session.connection()).exec_driver_sql("SELECT count(DISTINCT request_id) FROM requests")
        assert counted.scalar() == 5_000
    await database.close()


async def test_who_waits_too_long_for_room_is_refused(tmp_path: Path) -> None:
    database = await Database.open(None, tmp_path)
    audit = AuditLog(database, max_rows=10, max_age_s=3600, max_wait_s=0.1)
    for index in range(5_000):
        audit.put(record(index))
    with pytest.raises(StorageUnavailable, match="audit cannot be written"):
        await audit.wait_for_room()
    await database.close()


@pytest.mark.parametrize("wrong", [{"model": "a\x00b"}, {"num_prompt_tokens": 2**70}])
async def test_a_row_that_cannot_be_written_keeps_back_no_other(
    database_url: str | None,  # noqa: F811
    tmp_path: Path,
    wrong: dict[str, Any],
) -> None:
    await reset(database_url)
    database = await Database.open(database_url, tmp_path)
    audit = AuditLog(database, max_rows=100, max_age_s=3600)
    for each in (record(1), RequestRecord(request_id="wrong", status=404, **wrong), record(2)):
        audit.put(each)
    audit.open()
    await asyncio.wait_for(audit.close(), 5)
    kept = [row.record.request_id for row in await audit.find(EVERYTHING, limit=10)]
    await database.close()
    # SQLite takes any text
    assert [name for name in kept if name != "wrong"] == ["r2", "r1"]


def test_names_of_models_are_kept_as_one_printable_line(serve: Serve) -> None:
    with serve({"m": script_of(HELLO)}).http() as client:
        for path, body in ((CHAT, complete_body(CHAT)), ("/tokenize", {"prompt": "hi"})):
            client.post(path, json=body | {"model": "a\x00b\nc"})
        assert [row["model"] for row in rows(client, 2)] == ["a?b?c", "a?b?c"]
