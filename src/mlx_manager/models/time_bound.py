"""Bounds the time of what a model brings along and the worker's main thread runs: its chat template."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_AGAIN_S = 0.5
"""An alarm that rings where exceptions are swallowed rings again."""


@contextmanager
def time_bound(timeout_s: float, error: Exception) -> Iterator[None]:
    """Raise `error` inside the context once it has taken `timeout_s`.

    It is a signal that interrupts Python code, so it works in the main thread only, where a worker does everything
    that takes long; elsewhere the context has no bound.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_over = False

    def ring(number: int, frame: FrameType | None) -> None:
        if not is_over:
            raise error

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, timeout_s, _AGAIN_S)
    try:
        yield
    finally:
        is_over = True
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
