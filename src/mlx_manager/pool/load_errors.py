"""What a failed load or worker means: the error that everyone gets, and when the next request may try again."""

from __future__ import annotations

import textwrap
import time

import msgspec

from mlx_manager.errors import ErrorInfo, InsufficientMemory, MlxManagerError, ModelLoadFailed, ShuttingDown

_MAX_MESSAGE_CHARS = 600
_MAX_BACKOFF_S = 60.0
_BACKOFF_GROWTH = 2.0
_STEADY_S = 600.0
"""A worker that served for so long before it failed is not one that fails again and again."""
MAX_FAILURES_IN_ROW = 3


class Backoff:
    """The pause after a failure: `first_s`, longer with each one in a row, and `cooldown_s` when there were too many.

    The first failure of a worker that had loaded its model makes no pause.
    """

    def __init__(self, first_s: float, cooldown_s: float) -> None:
        self.num_in_row = 0
        """Written here only."""
        self._first_s = first_s
        self._cooldown_s = cooldown_s
        self._retry_at_s = 0.0

    @property
    def wait_s(self) -> float:
        """Seconds until the next try."""
        return max(0.0, self._retry_at_s - time.monotonic())

    @property
    def is_given_up(self) -> bool:
        """Whether there were too many failures in a row."""
        return self.num_in_row >= MAX_FAILURES_IN_ROW

    def fail(self, error: ErrorInfo) -> ErrorInfo:
        """Begin a pause after a failed load; `error` with when it ends."""
        return self._pause(error, self.num_in_row)

    def fail_serving(self, error: ErrorInfo, served_s: float) -> ErrorInfo:
        """The same after the end of a worker that had loaded its model, `served_s` ago."""
        if served_s >= _STEADY_S:
            self.forget()
        return self._pause(error, self.num_in_row - 1)

    def check(self, error: ErrorInfo | None) -> None:
        """Raise `error`, because of which there is a pause, while there is one."""
        refusal = None if error is None else self.refusal(error)
        if refusal is not None:
            raise MlxManagerError.from_info(refusal)

    def refusal(self, error: ErrorInfo) -> ErrorInfo | None:
        """`error`, because of which there is a pause, with when it ends; None where there is none."""
        return self._with_retry(error, self.wait_s) if self.wait_s > 0 else None

    def forget(self) -> None:
        """The next failure is the first again."""
        self.num_in_row = 0
        self._retry_at_s = 0.0

    def _pause(self, error: ErrorInfo, num_doublings: int) -> ErrorInfo:
        self.num_in_row += 1
        wait_s = 0.0 if num_doublings < 0 else min(self._first_s * _BACKOFF_GROWTH**num_doublings, _MAX_BACKOFF_S)
        if self.is_given_up:
            wait_s = max(wait_s, self._cooldown_s)
        self._retry_at_s = time.monotonic() + wait_s
        return self._with_retry(error, wait_s)

    def _with_retry(self, error: ErrorInfo, wait_s: float) -> ErrorInfo:
        """`error`, saying when the next request will try again."""
        if not wait_s:
            return error
        sentence = error.message.rstrip()
        end = "" if sentence.endswith((".", "!", "?")) else "."
        given_up = f" It failed {self.num_in_row} times in a row: load it to try at once." if self.is_given_up else ""
        return ErrorInfo(
            code=error.code,
            message=f"{sentence}{end}{given_up} A request will try again in {wait_s:.1f} s.",
            param=error.param,
            retry_after_s=wait_s,
        )


def as_load_error(name: str, error: MlxManagerError | OSError) -> ErrorInfo:
    """`error` as it is told to those who wait for the model `name`: in one line, which libraries fill with the names of
    hundreds of weights, cut. The worker's log has all of it."""
    if isinstance(error, ModelLoadFailed | InsufficientMemory | ShuttingDown):
        told = error.as_info()
    elif isinstance(error, MlxManagerError):
        told = ModelLoadFailed(f"The model '{name}' could not be loaded: {error.message}").as_info()
    else:
        told = ModelLoadFailed(f"No worker could be started for the model '{name}': {error}").as_info()
    return msgspec.structs.replace(told, message=textwrap.shorten(told.message, _MAX_MESSAGE_CHARS, placeholder=" …"))


def is_fault_of_model(error: ErrorInfo) -> bool:
    """Whether it says something against the model: want of room, and the server's end, do not."""
    return error.code not in (InsufficientMemory.code, ShuttingDown.code)
