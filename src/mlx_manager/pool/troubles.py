"""What went wrong with one model: why it failed or was refused, how its workers ended, when it is tried again."""

from __future__ import annotations

import logging
from collections import Counter

from mlx_manager.errors import ErrorInfo
from mlx_manager.pool.load_errors import Backoff, is_fault_of_model
from mlx_manager.pool.status import WorkerFault

logger = logging.getLogger(__name__)


class Troubles:
    """The record of one slot. `name` is the model's, `backoff` its pause after failures."""

    def __init__(self, name: str, backoff: Backoff) -> None:
        self.error: ErrorInfo | None = None
        """Why it does not run, where that is its own fault. This and the next are written here only."""
        self.refusal: ErrorInfo | None = None
        """Why there was no room for it when it was to be loaded, or given its caches again, last."""
        self.num_failed_loads = 0
        self._name = name
        self._backoff = backoff
        self._faults: Counter[WorkerFault] = Counter()

    @property
    def num_by_fault(self) -> dict[WorkerFault, int]:
        """Workers that ended unasked, by what they did."""
        return dict(self._faults)

    @property
    def num_failures_in_row(self) -> int:
        """Failed loads and ends of workers without a good one between them."""
        return self._backoff.num_in_row

    @property
    def is_given_up(self) -> bool:
        """Whether there were too many of them."""
        return self._backoff.is_given_up

    @property
    def wait_s(self) -> float:
        """Seconds until the next try."""
        return self._backoff.wait_s

    def check(self) -> None:
        """Raise the error, because of which there is a pause, while there is one."""
        self._backoff.check(self.error)

    def begin_load(self) -> None:
        """What was is told no longer; it is still counted."""
        self.error = self.refusal = None

    def forgive(self) -> None:
        """The next failure is the first again."""
        self._backoff.forget()

    def blame(self, reason: ErrorInfo) -> ErrorInfo | None:
        """The end of the worker before this load: what refuses the load, where there is a pause."""
        refusal = self._backoff.refusal(reason)
        if refusal is not None:
            self.error = reason
        return refusal

    def fail_load(self, error: ErrorInfo) -> ErrorInfo:
        """A load failed; the error as it is told to those who wait for it."""
        logger.warning("%s", error.message)
        if not is_fault_of_model(error):
            self.refusal = error
            return error
        self.error = error
        self.num_failed_loads += 1
        return self._backoff.fail(error)

    def begin_regain(self) -> None:
        """An earlier want of room is told no longer."""
        self.refusal = None

    def fail_regain(self, error: ErrorInfo) -> ErrorInfo:
        """There was no room for its caches."""
        logger.warning("%s", error.message)
        self.refusal = error
        return error

    def count_end(self, fault: WorkerFault, reason: ErrorInfo) -> None:
        """A worker ended unasked."""
        self._faults[fault] += 1
        logger.error("%s", reason.message)

    def fail_serving(self, reason: ErrorInfo, served_s: float) -> None:
        """It was one that had loaded the model, `served_s` ago: a pause begins."""
        self._backoff.fail_serving(reason, served_s)
        if self.is_given_up:
            logger.error("'%s' failed %d times in a row and is left alone", self._name, self.num_failures_in_row)

    def stand_still(self, reason: ErrorInfo) -> None:
        """Nothing runs or is loaded in the place of what ended."""
        self.error = reason
