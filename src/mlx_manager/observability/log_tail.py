"""The last lines of the log, in memory, for whoever looks at the console."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from mlx_manager.observability.scrub import scrub

_MOST = 2_000
_MOST_CHARS = 2_000
_LOGGERS = ("mlx_manager", "uvicorn.error")
_LEFT_OUT = "mlx_manager.requests"
"""Has a line for each request, which the audit has as well."""


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """One record."""

    unix_s: float
    level: int
    """As `logging` counts: 20 is info, 30 a warning, 40 an error."""
    logger: str
    words: str


class LogTail(logging.Handler):
    """Keeps what is logged while it listens. What looks like a secret is taken out."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[LogLine] = deque(maxlen=_MOST)
        """The oldest first. Written here only, from any thread."""
        self.num_seen = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Keep this one."""
        if record.name == _LEFT_OUT:
            return
        words = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            words = f"{words}: {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        line = LogLine(
            unix_s=record.created, level=record.levelno, logger=record.name, words=scrub(words[:_MOST_CHARS])
        )
        self.lines.append(line)
        self.num_seen += 1

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[LogTail]:
        """Listens to the server's own loggers while the context lasts."""
        loggers = [logging.getLogger(name) for name in _LOGGERS]
        for logger in loggers:
            logger.addHandler(self)
        try:
            yield self
        finally:
            for logger in loggers:
                logger.removeHandler(self)
