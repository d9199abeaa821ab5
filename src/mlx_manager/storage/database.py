"""The database: a SQLite file in WAL mode, or PostgreSQL by URL. Opened, migrated, asked and closed here."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import aiosqlite
from sqlalchemy import URL, Connection, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from mlx_manager.errors import Conflict, InvalidRequest, StorageUnavailable, ValueNotStorable
from mlx_manager.storage.migrations import NEWEST
from mlx_manager.storage.patience import Patience

SQLITE_FILE = "mlx-manager.db"
_MIGRATIONS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 10242
"""Held by whoever changes something in PostgreSQL, so that what was checked still holds when it is written."""
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}


class Database:
    """An open database. Every error of the driver becomes a `StorageUnavailable` that says what is wrong."""

    def __init__(self, url: URL, patience: Patience = Patience()) -> None:  # noqa: B008
        self._url = url
        self.patience = patience
        self._threads = _DriverThreads()
        self._engine = _make_engine(url, self._threads, patience)
        self._writer = self._engine.execution_options(is_writer=True)

    @classmethod
    async def open(cls, url: str | None, home: Path, patience: Patience = Patience()) -> Database:  # noqa: B008
        """Open and migrate: the database at `url`, or the file in `home`.

        Raises `StorageUnavailable`, and `InvalidRequest` for a URL that is none.
        """
        parsed = parse_database_url(url, home)
        _make_private(parsed)
        try:
            database = cls(parsed, patience)
        except ModuleNotFoundError as error:
            raise InvalidRequest(
                f"PostgreSQL needs the package {error.name}: pip install 'mlx-manager[postgresql]'.", param="database"
            ) from None
        try:
            await database._migrate()
        except BaseException:
            await database.close()
            raise
        return database

    @property
    def name(self) -> str:
        """Where it is, for people: without a password."""
        return self._url.render_as_string(hide_password=True)

    @property
    def is_shared(self) -> bool:
        """Whether servers on other machines may use it, too."""
        return self._url.get_backend_name() == "postgresql"

    async def close(self) -> None:
        """Close all connections, and wait for their threads: one that is left answers to an event loop that ended."""
        with suppress(TimeoutError):
            # PostgreSQL is told, and may have stopped to listen
            async with asyncio.timeout(self.patience.end_s):
                await self._engine.dispose()
        await self._threads.end(self.patience.end_s)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """A session for reading: everything in it is of one moment."""
        async with self._session(self._engine) as session:
            yield session

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncSession]:
        """A session for changes, which nobody else makes meanwhile; committed at the end, or undone by an error."""
        async with self._session(self._writer) as session:
            if self.is_shared:
                await session.connection()
                await session.exec(  # type: ignore[call-overload]
                    text("SELECT pg_advisory_xact_lock(:lock)"), params={"lock": _ADVISORY_LOCK}
                )
            yield session
            await session.commit()

    @asynccontextmanager
    async def _session(self, engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
        try:
            async with AsyncSession(engine, expire_on_commit=False) as session:
                yield session
        except (OverflowError, UnicodeEncodeError) as error:
            # SQLite's driver says so of numbers and texts in its own words
            raise ValueNotStorable(f"The database {self.name} cannot hold a value: {error}") from error
        except (DBAPIError, OSError, SQLAlchemyError) as error:
            raise self._explain(error) from error

    async def _migrate(self) -> None:
        try:
            async with self._engine.connect() as connection:
                found = await connection.run_sync(_read_revision)
            if found == NEWEST:
                return
            await self._upgrade()
        except (DBAPIError, OSError, SQLAlchemyError) as error:
            raise self._explain(error) from error

    async def _upgrade(self) -> None:
        if not self.is_shared:
            async with self._writer.begin() as connection:
                await connection.run_sync(_upgrade)
            return
        # others may be at it, and tables may be large: without the bounds of every day
        patient = create_async_engine(self._url)
        try:
            async with patient.begin() as connection:
                await connection.run_sync(_upgrade)
        finally:
            await patient.dispose()

    def _explain(self, error: Exception) -> StorageUnavailable:
        cause = error.orig if isinstance(error, DBAPIError) else error
        name = getattr(cause, "sqlite_errorname", "") or getattr(cause, "sqlstate", "") or type(cause).__name__
        for prefix, words in _CAUSES.items():
            if name.startswith(prefix):
                said = words.format(lock_s=self.patience.lock_s, answer_s=self.patience.answer_s)
                return StorageUnavailable(f"The database {self.name} {said}", retry_after_s=5)
        said = " ".join(str(cause).split())[:200]
        if isinstance(error, DataError) or _is_about_values(cause):
            return ValueNotStorable(f"The database {self.name} cannot hold a value: {said}")
        return StorageUnavailable(f"The database {self.name} cannot be used: {said}", retry_after_s=5)


def _is_about_values(cause: BaseException | None) -> bool:
    """Whether PostgreSQL (its class 22), or its driver before asking it, found fault with a value."""
    is_refused_by_driver = cause is not None and isinstance(cause.__cause__, ValueError)
    return is_refused_by_driver or str(getattr(cause, "sqlstate", None) or "").startswith("22")


class _DriverThreads:
    """The threads of the SQLite driver, one for each connection, those of connections that never opened included.

    The driver lets go of a thread without waiting where opening a connection fails or is cancelled.
    """

    def __init__(self) -> None:
        self._started: list[Thread] = []

    def connect(self, *args: Any, **options: Any) -> aiosqlite.Connection:
        """A connection as SQLAlchemy makes it, still to be awaited."""
        connection = aiosqlite.connect(*args, **options)
        thread = connection._thread  # SQLAlchemy sets the same attribute
        thread.daemon = True
        self._started = [each for each in self._started if each.is_alive()] + [thread]
        return connection

    async def end(self, within_s: float) -> None:
        """Wait until all have ended, at most `within_s` seconds together."""
        deadline = time.monotonic() + within_s
        for thread in [each for each in self._started if each.is_alive()]:
            await asyncio.to_thread(thread.join, max(0.0, deadline - time.monotonic()))


def parse_database_url(url: str | None, home: Path) -> URL:
    """`url` with the driver we use; None is the file in `home`. Raises `InvalidRequest`."""
    if url is None:
        return URL.create(_DRIVERS["sqlite"], database=str(home / SQLITE_FILE))
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InvalidRequest(_WRONG_URL, param="database") from None
    backend = parsed.get_backend_name()
    if backend not in _DRIVERS or (backend == "sqlite" and not parsed.database):
        raise InvalidRequest(_WRONG_URL, param="database")
    return parsed.set(drivername=_DRIVERS[backend])


_WRONG_URL = (
    "The setting database is not an address of a database: it looks like postgresql://user:password@host/name or "
    "sqlite:////folder/file.db."
)
_LOCKED = "is locked by another process, and was not free within {lock_s:g} s. Try again."
_SILENT = "did not answer within {answer_s:g} s. Try again."
_CAUSES = {
    "SQLITE_BUSY": _LOCKED,
    "SQLITE_LOCKED": "is locked. Try again.",
    "SQLITE_FULL": "is on a disk that is full. Make room, and try again.",
    "SQLITE_READONLY": "cannot be written to: it, or its disk, is read-only.",
    "SQLITE_IOERR": "could not be read or written: the disk failed, or is full.",
    "SQLITE_CANTOPEN": "cannot be opened: its folder does not exist, or may not be used.",
    "SQLITE_CORRUPT": "is damaged. Put a copy of it back, or move it away to begin anew.",
    "SQLITE_NOTADB": "is no SQLite file, or is damaged. Put a copy of it back, or move it away to begin anew.",
    # PostgreSQL's own codes
    "55P03": _LOCKED,
    "57014": _SILENT,
    "53100": "is on a disk that is full. Make room, and try again.",
    "25006": "cannot be written to: it is read-only.",
    "TimeoutError": _SILENT,
}


def _make_engine(url: URL, threads: _DriverThreads, patience: Patience) -> AsyncEngine:
    if url.get_backend_name() != "sqlite":
        bounds = {
            "lock_timeout": f"{patience.lock_s * 1000:.0f}ms",
            "statement_timeout": f"{patience.answer_s * 1000:.0f}ms",
        }
        connect_args = {"server_settings": bounds, "timeout": patience.answer_s, "command_timeout": patience.answer_s}
        return create_async_engine(url, pool_pre_ping=True, connect_args=connect_args)
    engine = create_async_engine(url, connect_args={"timeout": patience.lock_s, "async_creator_fn": threads.connect})
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _make_private(url: URL) -> None:
    """A new file is for this user alone; what SQLite puts beside it takes after it.

    Raises `StorageUnavailable` where its folder is not there: the driver would leave a thread behind that fails later.
    """
    if url.get_backend_name() == "sqlite" and url.database and not url.database.startswith("file:"):
        try:
            os.close(os.open(url.database, os.O_RDWR | os.O_CREAT, 0o600))
        except FileNotFoundError:
            name = url.render_as_string(hide_password=True)
            raise StorageUnavailable(f"The database {name} {_CAUSES['SQLITE_CANTOPEN']}", retry_after_s=5) from None
        except OSError:
            # any other error is SQLite's to tell, when it opens the file
            return


def _prepare_sqlite(connection: Any, _: object) -> None:
    """WAL, so that readers never wait; every commit is on the disk before it is answered."""
    # transactions are begun below, and so hold for the whole of what is read and for changes of the schema
    connection.isolation_level = None
    cursor = connection.cursor()
    try:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            try:
                cursor.execute(f"PRAGMA {pragma}")
            except sqlite3.OperationalError as error:
                # another process opens it, or the disk is read-only: it stays in the mode it has
                if pragma != "journal_mode=WAL" or error.sqlite_errorname == "SQLITE_CANTOPEN":
                    raise
        cursor.close()
    except BaseException:
        # an error, or its request was cancelled: nobody else closes what was never handed out
        connection.close()
        raise


def _begin_sqlite(connection: Connection) -> None:
    """Changes take their turn at the beginning: what they check still holds when they write."""
    is_writer = connection.get_execution_options().get("is_writer", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writer else "BEGIN")


def _read_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def _upgrade(connection: Connection) -> None:
    """To the newest revision, all or nothing. Raises `Conflict` for a database of a later version of ours."""
    # half a second to import, and needed once per version
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise Conflict(
            f"The database was written by a later version of MLX Manager than this one ({error}). Install that version."
        ) from None
