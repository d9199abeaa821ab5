"""What a failed load means: the error that everyone who waited gets, and when the next request may try again."""

from __future__ import annotations

import time

from mlx_manager.errors import ErrorInfo, InsufficientMemory, MlxManagerError, ModelLoadFailed, ShuttingDown

_MAX_BACKOFF_S = 60.0
_BACKOFF_GROWTH = 2.0


class Backoff:
    """The pause after a failed load: `first_s`, and longer with each failure in a row."""

    def __init__(self, first_s: float) -> None:
        self._first_s = first_s
        self._num_failures_in_row = 0
        self._retry_at_s = 0.0

    @property
    def wait_s(self) -> float:
        """Seconds until the next try."""
        return max(0.0, self._retry_at_s - time.monotonic())

    def fail(self, error: ErrorInfo) -> ErrorInfo:
        """Begin a pause; `error` with when it ends."""
        wait_s = min(self._first_s * _BACKOFF_GROWTH**self._num_failures_in_row, _MAX_BACKOFF_S)
        self._num_failures_in_row += 1
        self._retry_at_s = time.monotonic() + wait_s
        return _with_retry(error, wait_s)

    def check(self, error: ErrorInfo | None) -> None:
        """Raise `error`, because of which there is a pause, while there is one."""
        if error is not None and self.wait_s > 0:
            raise MlxManagerError.from_info(_with_retry(error, self.wait_s))

    def succeed(self) -> None:
        """The next failure is the first again."""
        self._num_failures_in_row = 0


def as_load_error(name: str, error: MlxManagerError | OSError) -> ErrorInfo:
    """`error` as it is told to those who wait for the model `name`."""
    if isinstance(error, ModelLoadFailed | InsufficientMemory | ShuttingDown):
        return error.as_info()
    if isinstance(error, MlxManagerError):
        return ModelLoadFailed(f"The model '{name}' could not be loaded: {error.message}").as_info()
    return ModelLoadFailed(f"No worker could be started for the model '{name}': {error}").as_info()


def is_fault_of_model(error: ErrorInfo) -> bool:
    """Whether it says something against the model: want of room, and the server's end, do not."""
    return error.code not in (InsufficientMemory.code, ShuttingDown.code)


def _with_retry(error: ErrorInfo, wait_s: float) -> ErrorInfo:
    """`error`, saying when the next request will try again."""
    sentence = error.message.rstrip()
    end = "" if sentence.endswith((".", "!", "?")) else "."
    return ErrorInfo(
        code=error.code,
        message=f"{sentence}{end} A request will try again in {wait_s:.1f} s.",
        param=error.param,
        retry_after_s=wait_s,
    )
