"""Takes what is known of finished requests and makes spans of it, in a thread of its own, off the requests' path."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from mlx_manager.ir import RequestRecord
from mlx_manager.observability.export import SpanExporter, open_exporter
from mlx_manager.observability.span_store import SpanWriter
from mlx_manager.observability.spans import HttpTrace, RequestTrace, Span, http_span, request_spans

_logger = logging.getLogger("mlx_manager.observability")
_MAX_WAITING = 20_000
_BATCH_PERIOD_S = 0.5
_MAX_BATCH = 2_000
_RETRY_S = 1.0


class Tracer:
    """Keeps the traces of requests: in the span store in `folder`, and with whoever the environment names.

    `put` is quick and never blocks: when nothing can be written for very long, the oldest traces go and are counted.
    `close` returns once everything that was put is written, as far as it can be.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        max_age_s: float,
        with_content: bool,
        make_exporter: Callable[[], SpanExporter | None] = open_exporter,
    ) -> None:
        self.with_content = with_content
        """Whether prompts and answers are kept, too."""
        self.num_dropped = 0
        """Written by whoever puts."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._make_exporter = make_exporter
        self._waiting: deque[RequestTrace | HttpTrace] = deque()
        self._wake = threading.Event()
        self._is_closing = False
        self._store: SpanWriter | None = None
        """Of the thread alone."""
        self._thread = threading.Thread(target=self._run, name="tracer", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def follow(self, *, max_bytes: int, max_age_s: float, with_content: bool) -> None:
        """Keep so much, of this, from now on."""
        self._max_bytes, self._max_age_s, self.with_content = max_bytes, max_age_s, with_content

    def put(self, trace: RequestTrace | HttpTrace) -> None:
        """Keep this one. Called from the event loop."""
        if len(self._waiting) >= _MAX_WAITING:
            self._waiting.popleft()
            self.num_dropped += 1
        self._waiting.append(trace)

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what waits and end. To be called from another thread than the event loop's."""
        self._is_closing = True
        self._wake.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            _logger.error("%d traces were not written: the disk or the collector does not answer", len(self._waiting))

    def _run(self) -> None:
        exporter = self._make_exporter()
        while True:
            is_last = self._is_closing
            batch = self._take()
            if batch:
                spans, records = self._spans(batch)
                if exporter is not None:
                    exporter.export(spans)
                self._write(spans, records)
            elif is_last:
                break
            else:
                self._wake.wait(_BATCH_PERIOD_S)
        if self._store is not None:
            self._store.close()
        if exporter is not None:
            exporter.close()

    def _write(self, spans: Sequence[Span], records: Sequence[RequestRecord]) -> None:
        """Write them, again and again while it fails; once the server stops, a last time."""
        has_failed = False
        while True:
            is_last = self._is_closing
            try:
                if self._store is None:
                    self._store = SpanWriter(self._folder, max_bytes=self._max_bytes, max_age_s=self._max_age_s)
                self._store.bound(max_bytes=self._max_bytes, max_age_s=self._max_age_s)
                self._store.write(spans, records)
                return
            except (sqlite3.Error, OSError) as error:
                if not has_failed:
                    _logger.error("Traces cannot be written to %s for now: %s", self._folder, error)
                has_failed = True
            if is_last:
                self.num_dropped += len(records)
                return
            self._wake.wait(_RETRY_S)

    def _take(self) -> list[RequestTrace | HttpTrace]:
        batch: list[RequestTrace | HttpTrace] = []
        while self._waiting and len(batch) < _MAX_BATCH:
            batch.append(self._waiting.popleft())
        return batch

    def _spans(self, batch: Sequence[RequestTrace | HttpTrace]) -> tuple[list[Span], list[RequestRecord]]:
        spans: list[Span] = []
        records = []
        for trace in batch:
            if isinstance(trace, HttpTrace):
                spans.append(http_span(trace))
            else:
                spans += request_spans(trace, with_content=self.with_content)
                records.append(trace.record)
        return spans, records
