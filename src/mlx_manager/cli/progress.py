"""Progress in the terminal: a moving bar where someone watches, plain lines where the output goes to a file."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class ProgressLines:
    """Reports stages on standard error. Use it as a context and call it with the stage and a fraction, 0 to 1."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._stage = ""
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=1.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, stage: str, fraction: float) -> None:
        """Show that `stage` is being done."""
        if self._bar is not None:
            self._bar.update(self._task, description=f"{self._title}: {stage}", completed=fraction)
        elif stage != self._stage:
            print(f"{self._title}: {stage}", file=sys.stderr, flush=True)
        self._stage = stage
