"""What was used, by day, key, account and who answered: counted in memory, written every few seconds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import UpdateBase
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import col, select

from mlx_manager.errors import StorageUnavailable
from mlx_manager.ir import place_of_key, place_of_user
from mlx_manager.storage import keys
from mlx_manager.storage.store import Store
from mlx_manager.storage.tables import UsageRow

_logger = logging.getLogger("mlx_manager.storage")
_FLUSH_PERIOD_S = 5.0
NOBODY = 0


@dataclass(frozen=True)
class Used:
    """A sum."""

    num_requests: int = 0
    num_prompt_tokens: int = 0
    num_completion_tokens: int = 0
    cost_micro_usd: int = 0

    def __add__(self, other: Used) -> Used:
        return Used(
            self.num_requests + other.num_requests,
            self.num_prompt_tokens + other.num_prompt_tokens,
            self.num_completion_tokens + other.num_completion_tokens,
            self.cost_micro_usd + other.cost_micro_usd,
        )

    @property
    def num_tokens(self) -> int:
        """Prompt and completion together."""
        return self.num_prompt_tokens + self.num_completion_tokens


_Row = tuple[str, int, int, str]
"""Day, key, account, target."""


class Ledger:
    """The sums of this month; those of other servers on the same database are some seconds old."""

    def __init__(
        self, store: Store, *, clock: Callable[[], float] = time.time, period_s: float = _FLUSH_PERIOD_S
    ) -> None:
        self._store = store
        self._clock = clock
        self._period_s = period_s
        self._days: defaultdict[tuple[str, str], Used] = defaultdict(Used)
        self._months: defaultdict[tuple[str, str | None], Used] = defaultdict(Used)
        self._unwritten: defaultdict[_Row, Used] = defaultdict(Used)
        self._last_used: dict[int, int] = {}
        self._is_closing = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Read the month so far, and begin to write."""
        await self._read()
        self._writer = asyncio.create_task(self._write_now_and_then())

    async def close(self) -> None:
        """Write what is left, as far as it can be."""
        self._is_closing.set()
        if not await self._store.database.patience.for_the_last_of(self._end()):
            _logger.error("The usage of the last seconds is lost: the database did not answer.")

    def add(self, key_id: int | None, user_id: int | None, target: str, used: Used) -> None:
        """Count one request."""
        row = (self._day(), key_id or NOBODY, user_id or NOBODY, target)
        self._sum(row, used)
        self._unwritten[row] += used

    def note_use(self, key_id: int) -> None:
        """A key was used just now."""
        self._last_used[key_id] = int(self._clock())

    def last_used_unix_s(self, key_id: int) -> int | None:
        """When a key was used last, as far as it has not been written yet."""
        return self._last_used.get(key_id)

    def today(self, place: str) -> Used:
        """What a key or an account, by its place, used on this day of UTC."""
        return self._days.get((self._day(), place), Used())

    def this_month(self, place: str | None = None) -> Used:
        """What a key or an account, by its place, or everybody together, used in this month of UTC."""
        return self._months.get((self._day()[:7], place), Used())

    def _sum(self, row: _Row, used: Used) -> None:
        day, key_id, user_id, _ = row
        for place in (place_of_key(key_id), place_of_user(user_id)):
            self._days[day, place] += used
            self._months[day[:7], place] += used
        self._months[day[:7], None] += used

    async def _end(self) -> None:
        if self._writer is not None:
            await self._writer
        await self._flush()

    async def _read(self) -> None:
        """What is written, and on top of it what is not yet."""
        wanted = select(UsageRow).where(col(UsageRow.day) >= self._day()[:7] + "-01")
        async with self._store.database.reading() as session:
            rows = (await session.exec(wanted)).all()
        self._days.clear()
        self._months.clear()
        for row in rows:
            used = Used(row.num_requests, row.num_prompt_tokens, row.num_completion_tokens, row.cost_micro_usd)
            self._sum((row.day, row.key_id, row.user_id, row.target), used)
        for unwritten, used in self._unwritten.items():
            self._sum(unwritten, used)

    async def _write_now_and_then(self) -> None:
        while not self._is_closing.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_closing.wait(), self._period_s)
            await self._flush()
            if self._store.database.is_shared:
                with suppress(StorageUnavailable):
                    # then the sums stay as they were
                    await self._read()

    async def _flush(self) -> None:
        if not self._unwritten and not self._last_used:
            return
        unwritten, self._unwritten = self._unwritten, defaultdict(Used)
        last_used, self._last_used = self._last_used, {}
        try:
            async with self._store.database.writing() as session:
                upsert = _UPSERTS[session.get_bind().dialect.name]
                for row, used in unwritten.items():
                    await session.exec(upsert(row, used))
                for key_id, at_unix_s in last_used.items():
                    await keys.note_use(session, key_id, at_unix_s)
        except StorageUnavailable as error:
            _logger.warning("The usage of the last seconds is written later: %s", error.message)
            for row, used in unwritten.items():
                self._unwritten[row] += used
            self._last_used = last_used | self._last_used
            return
        if last_used:
            await self._refresh()

    async def _refresh(self) -> None:
        try:
            await self._store.refresh()
        except StorageUnavailable as error:
            _logger.warning("When keys were used last is read later: %s", error.message)

    def _day(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%d")


def _upsert_with(insert: Callable[..., postgresql.Insert] | Callable[..., sqlite.Insert]) -> Callable[..., UpdateBase]:
    def upsert(row: _Row, used: Used) -> UpdateBase:
        day, key_id, user_id, target = row
        statement = insert(UsageRow).values(day=day, key_id=key_id, user_id=user_id, target=target, **used.__dict__)
        return statement.on_conflict_do_update(
            index_elements=["day", "key_id", "user_id", "target"],
            set_={name: getattr(UsageRow, name) + value for name, value in used.__dict__.items()},
        )

    return upsert


_UPSERTS = {"sqlite": _upsert_with(sqlite.insert), "postgresql": _upsert_with(postgresql.insert)}
