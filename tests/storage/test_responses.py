"""Stored responses in the database: found again, kept apart by account, and gone when they are old or too many."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from mlx_manager.errors import StorageUnavailable
from mlx_manager.gateway import KeptResponses, MemoryResponses
from mlx_manager.protocols.openai.responses import StoredResponse
from mlx_manager.storage import users
from mlx_manager.storage.database import Database
from mlx_manager.storage.responses import DatabaseResponses
from mlx_manager.storage.store import Store
from tests.storage.test_database import change, fill, reset

DAY_S = 24 * 3600
NOW_UNIX_S = int(time.time())


def response(number: int, *, status: str = "completed", num_bytes: int = 0, age_s: float = 0) -> StoredResponse:
    output = [{"id": f"msg_{number}", "type": "message"}]
    body = json.dumps({"status": status, "output": output}).encode()
    return StoredResponse(
        id=f"resp_{number}",
        created_unix_s=int(NOW_UNIX_S - age_s),
        previous_response_id=f"resp_{number - 1}" if number else None,
        body=body + b" " * (num_bytes - len(body)),
        input_items=b'[{"id": "said", "type": "message"}]',
    )


@pytest.fixture
async def store(database_url: str | None, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty database."""
    await reset(database_url)
    opened = await Store.open(database_url, tmp_path)
    yield opened
    await opened.close()


def kept_in(database: Database, *, max_bytes: int = 10_000) -> DatabaseResponses:
    return DatabaseResponses(database, max_age_s=DAY_S, max_bytes=max_bytes, trim_period_s=0)


async def test_a_response_is_there_again_after_a_restart(database_url: str | None, tmp_path: Path) -> None:
    await reset(database_url)
    database = await Database.open(database_url, tmp_path)
    kept = kept_in(database)
    await kept.put(response(1, status="in_progress"))
    await kept.put(response(1))
    await database.close()
    database = await Database.open(database_url, tmp_path)
    kept = kept_in(database)
    assert await kept.get("resp_1") == response(1)
    assert await kept.find_by_item("msg_1", None) == response(1)
    assert [await kept.delete("resp_1"), await kept.delete("resp_1")] == [True, False]
    assert (await kept.get("resp_1"), await kept.find_by_item("msg_1", None)) == (None, None)
    await database.close()


async def test_accounts_do_not_find_each_other_s_items_and_take_theirs_with_them(store: Store) -> None:
    kept = kept_in(store.database)
    ada = (await fill(store)).users[0]
    await kept.put(replace(response(1), owner=ada.id))
    await kept.put(response(2))
    for owner, number in ((ada.id, 1), (None, 2)):
        found = await kept.find_by_item("said", owner)
        assert found is not None
        assert (found.id, found.owner) == (f"resp_{number}", owner)
    assert await kept.find_by_item("msg_1", None) is None
    async with store.changing(change()) as session:
        await users.remove(session, ada.id)
    assert await kept.get("resp_1") is None
    assert await kept.get("resp_2") is not None


async def test_the_old_and_the_too_many_go(store: Store) -> None:
    kept = kept_in(store.database, max_bytes=1000)
    await kept.put(response(0, age_s=DAY_S + 60))
    assert await kept.get("resp_0") is None
    for number in (1, 2, 3):
        await kept.put(response(number, num_bytes=400, age_s=60 - number))
    assert [await kept.get(f"resp_{number}") is not None for number in range(4)] == [False, False, True, True]
    await kept.put(response(3, num_bytes=1001))
    assert await kept.get("resp_3") is None, "it has no room at all"
    assert await kept.get("resp_2") is not None, "and makes no other go"


async def test_what_is_not_complete_or_cannot_be_written_is_in_memory(tmp_path: Path) -> None:
    database = await Database.open(None, tmp_path)
    passing = MemoryResponses()
    lasting = kept_in(database)
    kept = KeptResponses(lasting, passing)
    await kept.put(response(1, status="queued"))
    assert (await lasting.get("resp_1"), await kept.get("resp_1")) == (None, response(1, status="queued"))
    await kept.put(response(1))
    assert (await passing.get("resp_1"), await lasting.get("resp_1")) == (None, response(1))
    await database.close()
    (tmp_path / "mlx-manager.db").unlink()
    (tmp_path / "mlx-manager.db").mkdir()
    await kept.put(response(2))
    assert await kept.get("resp_2") == response(2)
    assert await kept.find_by_item("msg_2", None) == response(2)
    with pytest.raises(StorageUnavailable):
        await kept.get("resp_1")
    await database.close()
