"""The schema: from every revision to the newest, with rows in it, and then exactly what the tables say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import SQLModel

from mlx_manager.ir import RequestRecord
from mlx_manager.storage import migrations, tables
from mlx_manager.storage.audit import AuditLog, AuditQuery
from mlx_manager.storage.database import Database, parse_database_url
from mlx_manager.storage.store import Store
from tests.storage.test_database import reset

FOLDER = Path(migrations.__file__).parent

_FIRST = (
    "INSERT INTO users (name, password_hash, role, state, created_unix_s) VALUES ('ada', 'h', 'admin', 'active', 1)",
    "INSERT INTO sessions (id, user_id, created_unix_s, expires_unix_s) SELECT 's', id, 1, 2 FROM users",
    "INSERT INTO api_keys (user_id, name, digest, hint, scopes, limits, created_unix_s) "
    """SELECT id, 'ci', 'd', 'abcd', '["inference"]', '{"tokens_per_day": 5}', 1 FROM users""",
    "INSERT INTO providers (name, kind, base_url, is_on, options) "
    "VALUES ('cloud', 'openai', 'https://api.example/v1', true, '{}')",
    "INSERT INTO routes (name, position, pattern_kind, pattern, is_on, options) "
    """VALUES ('r', 1, 'exact', 'm', true, '{"targets": [{"provider": "cloud"}]}')""",
    "INSERT INTO changes (at_unix_s, actor, action, subject, detail) VALUES (1, 'cli', 'user.create', 'ada', '{}')",
    "INSERT INTO usage_days (day, key_id, target, num_requests, num_prompt_tokens, num_completion_tokens, "
    "cost_micro_usd) VALUES ('2026-01-01', 1, 'local', 1, 2, 3, 4)",
)
_BEFORE_CONVERSATIONS = (
    *_FIRST,
    "INSERT INTO requests (arrived_unix_s, request_id, status, path, key_id, target, cost_usd, fallback_reason, "
    "num_prompt_tokens, record) VALUES (1.5, 'r', 200, '/v1/messages', 1, 'cloud', 0.25, 'worker_died', 7, "
    """'{"num_agreed_tokens": 3}')""",
    "INSERT INTO requests (arrived_unix_s, request_id, status, record) VALUES (1.0, 'refused', 401, '{}')",
)
_CONVERSATION = (
    "INSERT INTO conversations (id, user_id, title, words, options, created_unix_s, changed_unix_s) "
    "SELECT 'c', id, 'T', 't', '{}', 1, 2 FROM users",
    "INSERT INTO turns (conversation_id, number, chosen, words, body) VALUES ('c', 0, 0, '', '{}')",
    "INSERT INTO attachments (conversation_id, digest, content) VALUES ('c', 'd', 'x')",
)
_TOOL_SERVER = "INSERT INTO tool_servers (name, kind, is_on, options) VALUES ('shop', 'http', true, '{}')"
_RESPONSE = (
    "INSERT INTO responses (id, owner, created_unix_s, num_bytes, body, input_items) "
    "SELECT 'resp_1', id, 1, 4, '{}', '[]' FROM users",
    "INSERT INTO response_items (item_id, response_id) VALUES ('msg_1', 'resp_1')",
)
_SESSION = (
    "INSERT INTO sessions (id, user_id, created_unix_s, expires_unix_s, address, client) "
    "SELECT 'fox', id, 1, 2, '127.0.0.1', 'Firefox' FROM users"
)
# what a server of that revision may have left behind
ROWS: dict[str, tuple[str, ...]] = {
    "0001": _FIRST,
    "0002": (
        *_FIRST,
        """INSERT INTO requests (arrived_unix_s, request_id, status, target, record) VALUES (1.5, 'r', 200, 'cloud', '{
        "request_id": "r", "status": 200, "path": "/v1/messages", "key_id": 1, "target": "cloud", "cost_usd": 0.25,
        "user_agent": null, "fallback_reason": "worker_died", "num_prompt_tokens": 7, "num_agreed_tokens": 3}')""",
        "INSERT INTO requests (arrived_unix_s, request_id, status, record) VALUES (1.0, 'refused', 401, '{}')",
    ),
    "0003": _BEFORE_CONVERSATIONS,
    "0004": (*_BEFORE_CONVERSATIONS, *_CONVERSATION),
    "0005": (*_BEFORE_CONVERSATIONS, *_CONVERSATION, _TOOL_SERVER),
    "0006": (*_BEFORE_CONVERSATIONS, *_CONVERSATION, _TOOL_SERVER, *_RESPONSE),
    "0007": (*_BEFORE_CONVERSATIONS, *_CONVERSATION, _TOOL_SERVER, *_RESPONSE, _SESSION),
    "0008": (
        """INSERT INTO users (name, password_hash, role, state, created_unix_s, limits)
        VALUES ('ada', 'h', 'admin', 'active', 1, '{"tokens_per_day": 9}')""",
        *_BEFORE_CONVERSATIONS[1:6],
        "INSERT INTO usage_days (day, key_id, user_id, target, num_requests, num_prompt_tokens, num_completion_tokens, "
        "cost_micro_usd) VALUES ('2026-01-01', 1, 1, 'local', 1, 2, 3, 4)",
        *_BEFORE_CONVERSATIONS[7:],
        *_CONVERSATION,
        _TOOL_SERVER,
        *_RESPONSE,
        _SESSION,
    ),
}


COSTLY = RequestRecord(
    request_id="r",
    arrived_unix_s=1.5,
    status=200,
    path="/v1/messages",
    key_id=1,
    target="cloud",
    cost_usd=0.25,
    fallback_reason="worker_died",
    num_prompt_tokens=7,
    num_agreed_tokens=3,
)


async def on_connection(url: str | None, home: Path, work: Callable[[Connection], object]) -> object:
    engine = create_async_engine(parse_database_url(url, home))
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(work)
    finally:
        await engine.dispose()


def upgrade_to(revision: str) -> Callable[[Connection], None]:
    def work(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(FOLDER))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        for statement in ROWS[revision]:
            connection.execute(text(statement))

    return work


@pytest.mark.parametrize("revision", sorted(ROWS))
async def test_rows_of_every_revision_are_read_by_the_newest(
    revision: str, database_url: str | None, tmp_path: Path
) -> None:
    await reset(database_url)
    await on_connection(database_url, tmp_path, upgrade_to(revision))
    store = await Store.open(database_url, tmp_path)
    changes = await store.changes()
    async with store.database.reading() as session:
        used = (await (await session.connection()).exec_driver_sql("SELECT key_id, user_id FROM usage_days")).all()
    audit = AuditLog(store.database, max_rows=100, max_age_s=100.0)
    costly = await audit.find(AuditQuery(key_id=1, is_fallback=True), limit=9)
    assert len(await audit.find(AuditQuery(), limit=9)) == (2 if revision > "0001" else 0)
    await store.close()
    current = store.current
    assert [user.name for user in current.users] == ["ada"]
    assert [tuple(row) for row in used] == [(1, current.users[0].id)]
    assert current.users[0].limits.tokens_per_day == (9 if revision >= "0008" else None)
    assert [(key.name, key.limits.tokens_per_day) for key in current.keys] == [("ci", 5)]
    assert [provider.base_url for provider in current.providers] == ["https://api.example/v1"]
    assert current.routes[0].targets[0].provider == "cloud"
    assert [row.subject for row in changes] == ["ada"]
    if revision > "0001":
        assert [row.record for row in costly] == [COSTLY]


def test_every_revision_has_rows_to_be_read() -> None:
    assert sorted(ROWS) == sorted(path.name[1:5] for path in (FOLDER / "versions").glob("r*.py"))


async def test_the_migrated_schema_is_that_of_the_tables(database_url: str | None, tmp_path: Path) -> None:
    assert tables.UserRow.metadata is SQLModel.metadata
    await reset(database_url)
    await (await Database.open(database_url, tmp_path)).close()

    def differences(connection: Connection) -> object:
        return compare_metadata(MigrationContext.configure(connection), SQLModel.metadata)

    assert await on_connection(database_url, tmp_path, differences) == []


async def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    # a table of ours that is in the way: the revision stops half way
    def block(connection: Connection) -> None:
        connection.execute(text("CREATE TABLE routes (id INTEGER)"))

    await on_connection(None, tmp_path, block)
    with pytest.raises(Exception, match="routes"):
        await Database.open(None, tmp_path)

    def names(connection: Connection) -> list[str]:
        found = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'"))
        return sorted(row[0] for row in found)

    assert await on_connection(None, tmp_path, names) == ["routes"]
