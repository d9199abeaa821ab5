"""The span store's bounds, and what happens when it cannot be written."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from mlx_manager.errors import Unavailable
from mlx_manager.ir import Origin, RequestRecord
from mlx_manager.observability.span_store import SPANS_FILE, SpanReader, SpanWriter
from mlx_manager.observability.spans import HttpTrace, RequestTrace, Span
from mlx_manager.observability.tracer import Tracer


def span(index: int, *, age_s: float = 0.0) -> Span:
    start_unix_ns = int((time.time() - age_s) * 1e9) + index
    return Span(
        trace_id=f"{index:032x}",
        span_id=f"{index:016x}",
        parent_id=None,
        name="chat",
        start_unix_ns=start_unix_ns,
        end_unix_ns=start_unix_ns + 1000,
        attributes={"filling": "x" * 500},
    )


def record(index: int, *, age_s: float = 0.0) -> RequestRecord:
    arrived = time.time() - age_s + index / 1e9
    return RequestRecord(request_id=f"r{index}", trace_id=f"{index:032x}", arrived_unix_s=arrived, status=200)


def used_bytes(folder: Path) -> int:
    connection = sqlite3.connect(folder / SPANS_FILE)
    pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    connection.close()
    return int(pages * size)


def test_the_oldest_go_when_there_are_too_many(tmp_path: Path) -> None:
    max_bytes = 1024**2
    writer = SpanWriter(tmp_path, max_bytes=max_bytes, max_age_s=3600)
    for start in range(0, 10_000, 500):
        writer.write([span(i) for i in range(start, start + 500)], [record(i) for i in range(start, start + 500)])
    writer.close()
    reader = SpanReader(tmp_path)
    assert used_bytes(tmp_path) <= max_bytes * 1.5  # one batch comes before it is looked at
    assert reader.trace(f"{9_999:032x}")
    assert reader.trace(f"{0:032x}") == []
    assert 100 < len(reader.requests(limit=20_000)) < 5_000


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    writer = SpanWriter(tmp_path, max_bytes=1024**2, max_age_s=3600)
    writer.write([span(1, age_s=4000), span(2, age_s=3000)], [record(1, age_s=4000), record(2, age_s=3000)])
    writer.close()
    reader = SpanReader(tmp_path)
    assert reader.trace(f"{1:032x}") == []
    assert len(reader.trace(f"{2:032x}")) == 1
    assert [request.request_id for request in reader.requests(limit=10)] == ["r2"]


def trace_of(index: int) -> RequestTrace:
    return RequestTrace(record=record(index), origin=Origin(), request=None, arrived_s=0.0, ended_s=1.0, attempts=())


def test_a_locked_file_is_written_to_once_it_is_free(tmp_path: Path) -> None:
    SpanWriter(tmp_path, max_bytes=1024**2, max_age_s=3600).close()
    other = sqlite3.connect(tmp_path / SPANS_FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    tracer = Tracer(tmp_path, max_bytes=1024**2, max_age_s=3600, with_content=False, make_exporter=lambda: None)
    tracer.start()
    for index in range(50):
        tracer.put(trace_of(index))
    time.sleep(0.7)
    assert SpanReader(tmp_path).requests(limit=100) == []
    other.execute("COMMIT")
    other.close()
    tracer.close()
    assert len(SpanReader(tmp_path).requests(limit=100)) == 50
    assert tracer.num_dropped == 0


def test_a_folder_that_is_gone_costs_traces_and_nothing_else(tmp_path: Path) -> None:
    tracer = Tracer(
        tmp_path / "gone", max_bytes=1024**2, max_age_s=3600, with_content=False, make_exporter=lambda: None
    )
    tracer.start()
    tracer.put(trace_of(1))
    tracer.put(HttpTrace(Origin(), 200, 1.0))
    started_s = time.monotonic()
    tracer.close()
    assert time.monotonic() - started_s < 5
    assert tracer.num_dropped == 1


def test_a_broken_file_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / SPANS_FILE).write_bytes(b"this is no database at all" * 100)
    with pytest.raises(Unavailable, match="cannot be read"):
        SpanReader(tmp_path).requests(limit=1)
    writer = SpanWriter(tmp_path, max_bytes=1024**2, max_age_s=3600)
    writer.write([span(1)], [record(1)])
    writer.close()
    assert len(SpanReader(tmp_path).requests(limit=10)) == 1
    assert (tmp_path / "spans.broken").exists()
