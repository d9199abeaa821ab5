"""How the time of one request was spent, as bars one under the other."""

from __future__ import annotations

import html
from collections.abc import Sequence

from nicegui import ui

from mlx_manager.ir import RequestRecord
from mlx_manager.observability.spans import Span

_MOST_SHOWN = 60
_COLOURS = {"queue": "s3", "prefill": "s1", "decode": "s2", "parse": "s6", "prefix lookup": "s4"}
_ASIDES = (
    ("mlx_manager.num_tokens", "{:,} tokens"),
    ("mlx_manager.num_cached_tokens", "{:,} tokens found"),
    ("mlx_manager.prefix_reason", "{}"),
    ("mlx_manager.busy_s", "{:.3f} s of it busy"),
)


def span_waterfall(spans: Sequence[Span]) -> None:
    """The spans of one request, in the order of their starts."""
    start = min(span.start_unix_ns for span in spans)
    whole = max(max(span.end_unix_ns for span in spans) - start, 1)
    depths: dict[str, int] = {}
    rows = []
    for span in spans[:_MOST_SHOWN]:
        depth = depths[span.span_id] = depths.get(span.parent_id or "", -1) + 1
        rows.append(
            _row(span, depth, (span.start_unix_ns - start) / whole, (span.end_unix_ns - span.start_unix_ns) / whole)
        )
    ui.html(f'<ol class="waterfall num">{"".join(rows)}</ol>', sanitize=False)
    if len(spans) > _MOST_SHOWN:
        ui.html(f'<p class="soft small">{len(spans) - _MOST_SHOWN} more spans are not shown.</p>', sanitize=False)


def record_waterfall(record: RequestRecord) -> None:
    """What the audit knows of it: in the queue, until the first text, and until the end."""
    whole = record.duration_s or 0.0
    if not whole:
        return
    queue = record.queue_s or 0.0
    first = max((record.ttft_s or whole) - queue, 0.0)
    parts = (
        ("queue", 0.0, queue, "s3"),
        ("prompt, until the first text", queue, first, "s1"),
        ("decode", queue + first, max(whole - queue - first, 0.0), "s2"),
    )
    rows = "".join(
        _bar(title, _render_time(seconds), colour, left=begun / whole, width=seconds / whole)
        for title, begun, seconds, colour in parts
    )
    ui.html(f'<ol class="waterfall num">{rows}</ol>', sanitize=False)


def _row(span: Span, depth: int, left: float, width: float) -> str:
    asides = [words.format(span.attributes[name]) for name, words in _ASIDES if name in span.attributes]
    if span.error:
        asides.insert(0, span.error)
    seconds = (span.end_unix_ns - span.start_unix_ns) / 1e9
    words = ", ".join([_render_time(seconds), *asides])
    colour = "bad" if span.error else _COLOURS.get(span.name, "s6")
    return _bar(span.name, words, colour, left=left, width=width, depth=depth)


def _render_time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _bar(title: str, words: str, colour: str, *, left: float, width: float, depth: int = 0) -> str:
    """One line; names and words may be anything at all."""
    place = f"left:{min(max(left, 0.0), 1.0):.2%};width:{min(max(width, 0.0), 1.0):.2%}"
    return (
        f'<li><span class="wf-name" style="--depth:{min(depth, 6)}">{html.escape(title)}</span>'
        f'<span class="wf-track" aria-hidden="true"><i class="{colour}" style="{place}"></i></span>'
        f'<span class="wf-words soft small">{html.escape(words)}</span></li>'
    )
