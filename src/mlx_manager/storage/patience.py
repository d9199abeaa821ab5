"""How long the database is waited for: a request has to be told in time that it is locked, or silent."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """Longest waits, in seconds."""

    lock_s: float = 2.0
    """For somebody else's change."""
    answer_s: float = 10.0
    """For one answer of PostgreSQL, or for a connection to it."""
    end_s: float = 6.0
    """For connections, threads and the last writes when a database is closed."""

    async def for_the_last_of(self, work: Coroutine[None, None, None]) -> bool:
        """Whether `work` came to its end in time; else it is cancelled, and nobody waits for that."""
        task = asyncio.create_task(work)
        done, _ = await asyncio.wait({task}, timeout=self.end_s)
        if done:
            task.result()
        else:
            task.cancel()
        return bool(done)
