"""Spans in a SQLite file of their own, bounded in size and age: for the console, without any other program.

One thread writes (the tracer's); anybody may read.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from mlx_manager.errors import Unavailable
from mlx_manager.ir import RequestRecord
from mlx_manager.observability.spans import Span

_logger = logging.getLogger("mlx_manager.observability")
SPANS_FILE = "spans.db"
_VERSION = 1
"""Of the tables below; 0 was the same. One that changes them has to bring older files with it."""
_SCHEMA = f"""
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
PRAGMA user_version = {_VERSION};
CREATE TABLE IF NOT EXISTS spans (
    trace_id TEXT NOT NULL, span_id TEXT NOT NULL, parent_id TEXT, name TEXT NOT NULL,
    start_unix_ns INTEGER NOT NULL, end_unix_ns INTEGER NOT NULL, error TEXT, attributes BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS spans_by_trace ON spans (trace_id);
CREATE INDEX IF NOT EXISTS spans_by_start ON spans (start_unix_ns);
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY AUTOINCREMENT, trace_id TEXT NOT NULL, request_id TEXT NOT NULL, model TEXT,
    start_unix_ns INTEGER NOT NULL, duration_s REAL, status INTEGER NOT NULL, error TEXT
);
CREATE INDEX IF NOT EXISTS requests_by_start ON requests (start_unix_ns);
CREATE INDEX IF NOT EXISTS requests_by_request ON requests (request_id);
"""
_BUSY_S = 5.0
_KEPT_SHARE = 0.9
"""Of the bound: so much is left when it was passed, so that not every batch has to delete."""
_DELETE_CHUNK = 20_000


class TracedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request whose trace is kept."""

    id: int
    trace_id: str
    request_id: str
    model: str | None
    start_unix_ns: int
    duration_s: float | None
    status: int
    error: str | None


class SpanWriter:
    """The writing side. All of it belongs to one thread, which also has to make it. Raises `sqlite3.Error`.

    A file that is no database, or a later version's, is set aside: traces are not worth a server that keeps none.
    """

    def __init__(self, folder: Path, *, max_bytes: int, max_age_s: float) -> None:
        self._file = folder / SPANS_FILE
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        try:
            self._connection = self._open()
        except sqlite3.OperationalError:
            raise  # locked, or the disk is full: it may be good later
        except sqlite3.DatabaseError as error:
            broken = self._file.with_suffix(".broken")
            _logger.warning("The traces in %s cannot be read (%s); it is now %s", self._file, error, broken.name)
            self._file.replace(broken)
            self._connection = self._open()

    def bound(self, *, max_bytes: int, max_age_s: float) -> None:
        """Keep so much from now on."""
        self._max_bytes, self._max_age_s = max_bytes, max_age_s

    def write(self, spans: Sequence[Span], records: Sequence[RequestRecord]) -> None:
        """Add them, in one transaction, and delete what is too old or too much."""
        with self._connection as transaction:
            transaction.executemany(
                "INSERT INTO spans VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        span.trace_id,
                        span.span_id,
                        span.parent_id,
                        span.name,
                        span.start_unix_ns,
                        span.end_unix_ns,
                        span.error,
                        msgspec.json.encode(span.attributes),
                    )
                    for span in spans
                ],
            )
            transaction.executemany(
                "INSERT INTO requests (trace_id, request_id, model, start_unix_ns, duration_s, status, error) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        record.trace_id,
                        record.request_id,
                        record.model,
                        int(record.arrived_unix_s * 1e9),
                        record.duration_s,
                        record.status,
                        record.error_code,
                    )
                    for record in records
                ],
            )
        self._bound()

    def close(self) -> None:
        """Close the file; what was written stays."""
        self._connection.close()

    def _open(self) -> sqlite3.Connection:
        # for nobody else's eyes, whatever the umask says
        os.close(os.open(self._file, os.O_CREAT | os.O_RDWR, 0o600))
        connection = sqlite3.connect(self._file, timeout=_BUSY_S)
        try:
            if connection.execute("PRAGMA user_version").fetchone()[0] > _VERSION:
                raise sqlite3.DatabaseError("written by a later version")
            connection.executescript(_SCHEMA)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _bound(self) -> None:
        self._delete_before(int((time.time() - self._max_age_s) * 1e9))
        if self._used_bytes() <= self._max_bytes:
            return
        while self._used_bytes() > self._max_bytes * _KEPT_SHARE:
            row = self._connection.execute(
                "SELECT start_unix_ns FROM spans ORDER BY start_unix_ns LIMIT 1 OFFSET ?", (_DELETE_CHUNK,)
            ).fetchone()
            newest = self._connection.execute("SELECT max(start_unix_ns) FROM spans").fetchone()[0]
            if newest is None:
                break
            # where there are few spans, half of the time they cover goes
            oldest = self._connection.execute("SELECT min(start_unix_ns) FROM spans").fetchone()[0]
            self._delete_before(row[0] if row else (oldest + newest) // 2 + 1)
        self._connection.executescript("PRAGMA incremental_vacuum")

    def _delete_before(self, unix_ns: int) -> None:
        with self._connection as transaction:
            transaction.execute("DELETE FROM spans WHERE start_unix_ns < ?", (unix_ns,))
            transaction.execute("DELETE FROM requests WHERE start_unix_ns < ?", (unix_ns,))

    def _used_bytes(self) -> int:
        pages, free, size = (
            int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size


class SpanReader:
    """The reading side; every call opens the file anew, so that it can be made anywhere and shared by threads."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / SPANS_FILE

    def requests(
        self,
        *,
        limit: int,
        before_id: int | None = None,
        model: str | None = None,
        is_failed: bool | None = None,
        min_duration_s: float | None = None,
    ) -> list[TracedRequest]:
        """The last requests that match, the last first; `before_id` goes on where an earlier list ended."""
        conditions = {
            "id < ?": before_id,
            "model = ?": model,
            "duration_s >= ?": min_duration_s,
        }
        asked = {condition: value for condition, value in conditions.items() if value is not None}
        if is_failed is not None:
            asked["(error IS NOT NULL) = ?"] = int(is_failed)
        where = f"WHERE {' AND '.join(asked)}" if asked else ""
        names = TracedRequest.__struct_fields__
        rows = self._rows(
            f"SELECT {', '.join(names)} FROM requests {where} ORDER BY id DESC LIMIT ?", (*asked.values(), limit)
        )
        return [TracedRequest(**dict(zip(names, row, strict=True))) for row in rows]

    def trace(self, id_: str) -> list[Span]:
        """The spans of the trace, or of the HTTP request, with this id, in the order of their starts."""
        rows = self._rows(
            "SELECT trace_id, span_id, parent_id, name, start_unix_ns, end_unix_ns, error, attributes FROM spans "
            "WHERE trace_id = ? OR trace_id IN (SELECT trace_id FROM requests WHERE request_id = ?) "
            "ORDER BY start_unix_ns, rowid",
            (id_, id_),
        )
        return [
            Span(
                trace_id=row[0],
                span_id=row[1],
                parent_id=row[2],
                name=row[3],
                start_unix_ns=row[4],
                end_unix_ns=row[5],
                error=row[6],
                attributes=msgspec.json.decode(row[7]),
            )
            for row in rows
        ]

    def _rows(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        if not self._file.exists():
            return []
        try:
            with closing(sqlite3.connect(f"file:{self._file}?mode=ro", uri=True, timeout=_BUSY_S)) as connection:
                if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'requests'").fetchone():
                    return []  # it is just being made
                return connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise Unavailable(f"The traces cannot be read now: {error}.") from None
