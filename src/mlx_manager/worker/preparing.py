"""Requests whose long texts are encoded in a thread of their own, so that no answer waits for them meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mlx_manager.errors import GenerationFailed, MlxManagerError
from mlx_manager.ipc import RequestFailed

_NUM_MOST_CHARACTERS_AT_ONCE = 16_384
"""Encoding as many takes a few milliseconds."""
_log = logging.getLogger("mlx_manager.worker")

_Made = TypeVar("_Made")


def is_long(text: str) -> bool:
    """Whether encoding `text` takes so long that running answers would notice."""
    return len(text) > _NUM_MOST_CHARACTERS_AT_ONCE


@dataclass(frozen=True)
class _Job(Generic[_Made]):
    future: Future[_Made]
    is_dropped: threading.Event


class Preparing(Generic[_Made]):
    """Work on requests in one thread, one after the other, in the order in which they came.

    Everything but the work itself is called from the worker's main thread.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prompts")
        self._jobs: dict[str, _Job[_Made]] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._jobs

    @property
    def futures(self) -> list[Future[_Made]]:
        """To be waited for."""
        return [job.future for job in self._jobs.values()]

    def add(self, request_id: str, work: Callable[[Callable[[], bool]], _Made]) -> None:
        """Begin with `work`, which is told how to find out whether its result is still wanted."""
        is_dropped = threading.Event()
        future = self._thread.submit(work, lambda: not is_dropped.is_set())
        self._jobs[request_id] = _Job(future, is_dropped)

    def drop(self, request_id: str) -> None:
        """Forget a request."""
        job = self._jobs.pop(request_id, None)
        if job is not None:
            job.is_dropped.set()
            job.future.cancel()

    def take(self) -> list[tuple[str, _Made | RequestFailed]]:
        """What is ready, in the order in which it came, each once."""
        ready = [(request_id, job.future) for request_id, job in self._jobs.items() if job.future.done()]
        for request_id, _ in ready:
            del self._jobs[request_id]
        return [(request_id, _outcome(request_id, future)) for request_id, future in ready]


def unprepared(request_id: str, error: BaseException) -> RequestFailed:
    """The request's edge: a tokenizer or template may raise anything, and only this request may suffer."""
    if isinstance(error, MlxManagerError):
        return RequestFailed(request_id, error.as_info())
    _log.error("request %s failed before it began", request_id, exc_info=error)
    reason = GenerationFailed(f"the prompt could not be prepared: {type(error).__name__}")
    return RequestFailed(request_id, reason.as_info())


def _outcome(request_id: str, future: Future[Any]) -> Any:
    error = future.exception()
    return future.result() if error is None else unprepared(request_id, error)
