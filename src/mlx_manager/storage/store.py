"""What is configured, kept: a value in memory that requests are answered by, and the database behind it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from mlx_manager.errors import StorageUnavailable
from mlx_manager.storage.configuration import Configuration, read_change_id, read_configuration
from mlx_manager.storage.database import Database
from mlx_manager.storage.named_rows import PROVIDERS, TOOL_SERVERS
from mlx_manager.storage.patience import Patience
from mlx_manager.storage.secrets import Secrets
from mlx_manager.storage.tables import ChangeRow, OverrideRow

_logger = logging.getLogger("mlx_manager.storage")
_NEWS_PERIOD_S = 1.0


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what to whom. Never holds a secret."""

    actor: str
    action: str
    """A noun and a verb: user.create."""
    subject: str
    detail: dict[str, Any] = {}


class RecordedChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change, as the audit has it."""

    id: int
    at_unix_s: int
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]


class Store:
    """One process's view of the database. `current` follows what other processes change within about a second."""

    def __init__(self, database: Database, secrets: Secrets, current: Configuration) -> None:
        self.database = database
        self.secrets = secrets
        self.current = current
        self._listeners: list[Callable[[Configuration], None]] = []
        self._watch: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, url: str | None, home: Path, patience: Patience = Patience()) -> Store:  # noqa: B008
        """Open, migrate and read. Raises `StorageUnavailable`, `Conflict` and `InvalidRequest`."""
        secrets = Secrets.open(home)
        database = await Database.open(url, home, patience)
        try:
            async with database.reading() as session:
                current = await read_configuration(session)
        except BaseException:
            await database.close()
            raise
        return cls(database, secrets, current)

    async def close(self) -> None:
        """Stop to watch, and close the database."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self.database.close()

    def begin_watch(self) -> None:
        """Follow what other processes change."""
        self._watch = asyncio.create_task(self._follow())

    def subscribe(self, listener: Callable[[Configuration], None]) -> None:
        """Call `listener` with every new configuration."""
        self._listeners.append(listener)

    @asynccontextmanager
    async def changing(self, change: Change) -> AsyncIterator[AsyncSession]:
        """A transaction that makes `change` and records it; once it is committed, `current` has it."""
        async with self.database.writing() as session:
            yield session
            session.add(ChangeRow(at_unix_s=int(time.time()), **msgspec.structs.asdict(change)))
        await self.refresh()

    async def note(self, change: Change) -> None:
        """Record what was done and is not configured in the database; where it cannot be, the log has it."""
        try:
            async with self.changing(change):
                pass
        except StorageUnavailable as error:
            _logger.warning("Not recorded, %s by %s of %r: %s", change.action, change.actor, change.subject, error)

    async def refresh(self) -> None:
        """Read everything anew."""
        async with self.database.reading() as session:
            current = await read_configuration(session)
        if current.change_id >= self.current.change_id:
            self.current = current
            for listener in self._listeners:
                listener(current)

    async def changes(self, *, limit: int = 100, before: int | None = None) -> Sequence[RecordedChange]:
        """The audit, the last change first."""
        wanted = select(ChangeRow).order_by(col(ChangeRow.id).desc()).limit(limit)
        if before is not None:
            wanted = wanted.where(col(ChangeRow.id) < before)
        async with self.database.reading() as session:
            rows = (await session.exec(wanted)).all()
        return [msgspec.convert(row.model_dump(), RecordedChange) for row in rows]

    async def override(self, values: Mapping[str, Any], *, actor: str, told: Mapping[str, Any] | None = None) -> None:
        """Keep changed settings, all or none; None forgets one. The audit has `told`, where not all is to be told."""
        detail = dict(values if told is None else told)
        change = Change(actor=actor, action="setting.change", subject=", ".join(values), detail=detail)
        async with self.changing(change) as session:
            for name, value in values.items():
                row = await session.get(OverrideRow, name)
                if value is None:
                    if row is not None:
                        await session.delete(row)
                elif row is None:
                    session.add(OverrideRow(name=name, value=value))
                else:
                    row.value = value

    async def rotate_secrets(self, *, actor: str) -> int:
        """Encrypt everything anew with a new key and forget the old one; how much there was. Sessions end.

        Both keys are kept until all of it is written: whatever happens in between, everything can be read.
        """
        self.secrets.begin_rotation()
        async with self.changing(Change(actor=actor, action="secrets.rotate", subject="secrets")) as session:
            configured = await read_configuration(session)
            sealed = self._reseal(configured.sealed)
            sealed_of_tools = self._reseal(configured.sealed_of_tools)
            await PROVIDERS.reseal(session, sealed)
            await TOOL_SERVERS.reseal(session, sealed_of_tools)
        self.secrets.end_rotation()
        return len(sealed) + len(sealed_of_tools)

    def _reseal(self, sealed: Mapping[str, str | None]) -> dict[str, str]:
        return {
            name: self.secrets.seal(self.secrets.unseal(secret))
            for name, secret in sealed.items()
            if secret is not None
        }

    async def move_secrets(self, *, to_keychain: bool, actor: str) -> None:
        """Keep the server's own keys in the system's keychain, or in the file again. Raises `StorageUnavailable`."""
        place = "keychain" if to_keychain else "file"
        change = Change(actor=actor, action="secrets.move", subject="secrets", detail={"place": place})
        async with self.changing(change):
            if to_keychain:
                self.secrets.move_to_keychain()
            else:
                self.secrets.move_to_file()

    async def _follow(self) -> None:
        is_lost = False
        while True:
            await asyncio.sleep(_NEWS_PERIOD_S)
            try:
                async with self.database.reading() as session:
                    change_id = await read_change_id(session)
                if change_id != self.current.change_id:
                    await self.refresh()
            except StorageUnavailable as error:
                if not is_lost:
                    _logger.warning("What is configured stays as it was read last: %s", error.message)
                is_lost = True
            else:
                is_lost = False
