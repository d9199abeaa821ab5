"""The accounts of the last hour's requests, in memory, for whoever looks at the console."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mlx_manager.ir import RequestRecord

RECENT_WINDOW_S = 3600.0
_MOST = 20_000


@dataclass(frozen=True)
class Seen:
    """One request and when it ended."""

    unix_s: float
    record: RequestRecord


@dataclass(frozen=True)
class Minute:
    """What ended within one minute."""

    num_requests: int
    num_failed: int
    ttft_s: float | None
    """The median; None where nothing was generated."""


class RecentRequests:
    """Remembers up to 20,000 accounts and forgets what is older than an hour."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._seen: deque[Seen] = deque(maxlen=_MOST)

    def add(self, record: RequestRecord) -> None:
        """Remember one."""
        self._seen.append(Seen(self._clock(), record))

    def remember(self, records: Iterable[RequestRecord]) -> None:
        """Take in what was accounted for before this server started, the oldest first."""
        self._seen.extend(Seen(record.arrived_unix_s + (record.duration_s or 0), record) for record in records)

    def last(self, most: int) -> list[Seen]:
        """The latest, the last first."""
        self._forget()
        return [seen for seen, _ in zip(reversed(self._seen), range(most), strict=False)]

    def minutes(self, num: int = 60) -> list[Minute]:
        """The last `num` minutes, the oldest first; the last one is the one that is running."""
        self._forget()
        now_s = self._clock()
        by_minute: list[list[RequestRecord]] = [[] for _ in range(num)]
        for seen in self._seen:
            age = int((now_s - seen.unix_s) // 60)
            if 0 <= age < num:
                by_minute[num - 1 - age].append(seen.record)
        return [_minute(records) for records in by_minute]

    def _forget(self) -> None:
        oldest_s = self._clock() - RECENT_WINDOW_S
        while self._seen and self._seen[0].unix_s < oldest_s:
            self._seen.popleft()


def _minute(records: list[RequestRecord]) -> Minute:
    waits = sorted(record.ttft_s for record in records if record.ttft_s is not None)
    return Minute(
        num_requests=len(records),
        num_failed=sum(record.status >= 400 and record.status != 499 for record in records),
        ttft_s=waits[len(waits) // 2] if waits else None,
    )
