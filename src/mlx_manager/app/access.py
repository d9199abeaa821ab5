"""The database, and who may: opened from the settings and closed again."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mlx_manager.api import Access
from mlx_manager.auth import Door, KeyMeter, Keys, People
from mlx_manager.catalog.settings import Settings
from mlx_manager.gateway import KeptResponses, MemoryResponses, ResponseStore
from mlx_manager.ir import RequestRecord
from mlx_manager.storage.audit import AuditLog
from mlx_manager.storage.database import Database
from mlx_manager.storage.ledger import Ledger, Used
from mlx_manager.storage.private_files import ensure_local_token
from mlx_manager.storage.responses import DatabaseResponses
from mlx_manager.storage.store import Store

_logger = logging.getLogger("mlx_manager.app")


@dataclass(frozen=True)
class Opened:
    """What the routes need, and the books that requests are written into."""

    access: Access
    ledger: Ledger
    audit: AuditLog

    def count(self, record: RequestRecord) -> None:
        """Add an accounted request to the sums by key."""
        if record.target is not None:
            cost_micro_usd = round((record.cost_usd or 0.0) * 1_000_000)
            used = Used(1, record.num_prompt_tokens or 0, record.num_completion_tokens or 0, cost_micro_usd)
            users = self.access.store.current.users_by_name
            user = users.get(record.user) if record.user else None
            self.ledger.add(record.key_id, user.id if user else None, record.target, used)


@asynccontextmanager
async def open_access(settings: Settings) -> AsyncIterator[Opened]:
    """Open, migrate and follow the database. Raises `StorageUnavailable` where it cannot be used."""
    settings.home.mkdir(parents=True, exist_ok=True)
    store = await Store.open(settings.database, settings.home)
    ledger = Ledger(store)
    audit = AuditLog(store.database, max_rows=settings.audit_max_rows, max_age_s=settings.audit_max_age_h * 3600)
    try:
        await ledger.open()
        audit.open()
        store.begin_watch()
        keys = Keys(store)
        door = Door(
            store,
            keys,
            KeyMeter(ledger),
            local_token=ensure_local_token(settings.home),
            is_loopback=is_loopback(settings.host),
        )
        if not door.is_loopback and not keys.all():
            _logger.warning(
                "This server listens on %s and no API key has been minted: it answers nobody until there is one. "
                "mlx-manager user create NAME, then mlx-manager key create NAME",
                settings.host,
            )
        access = Access(store=store, door=door, people=People(store), keys=keys)
        yield Opened(access, ledger, audit)
    finally:
        await asyncio.gather(audit.close(), ledger.close())
        await store.close()


def open_responses(settings: Settings, database: Database) -> ResponseStore:
    """Where stored responses are kept, by the settings that hold at the start."""
    if not settings.responses_max_age_h:
        return MemoryResponses()
    max_age_s = settings.responses_max_age_h * 3600
    return KeptResponses(DatabaseResponses(database, max_age_s=max_age_s, max_bytes=settings.responses_max_bytes))


def check_database(settings: Settings) -> None:
    """Make, migrate and read the database, before a server is started on it. Raises `MlxManagerError`."""

    async def check() -> None:
        await (await Store.open(settings.database, settings.home)).close()

    asyncio.run(check())


def is_loopback(host: str) -> bool:
    """Whether a server on `host` can be reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        # a name, which may lead anywhere
        return False
