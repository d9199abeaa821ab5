"""The batch of one model: each sequence as a bar of what was cached, computed and generated, and what waits."""

from __future__ import annotations

import html
from collections.abc import Sequence

from nicegui import ui

from mlx_manager.ipc import BatchRow
from mlx_manager.ui.elements import box, text

_MOST_SHOWN = 48
_LEGEND = (
    '<ul class="legend"><li><span class="swatch s2"></span>prompt from the cache</li>'
    '<li><span class="swatch s1"></span>prompt computed</li><li><span class="swatch hatch"></span>prompt to come</li>'
    '<li><span class="swatch s4"></span>generated</li></ul>'
)


class BatchView:
    """Made inside the element that is to hold it; hidden while nothing runs or waits."""

    def __init__(self) -> None:
        with box("stack") as self._place:
            text("In the batch", "soft small")
            self._bars = ui.html("", sanitize=False)
            ui.html(_LEGEND, sanitize=False)
        self._place.set_visibility(False)

    def update(self, rows: Sequence[BatchRow]) -> None:
        """Show these."""
        self._place.set_visibility(bool(rows))
        if rows:
            longest = max(row.num_prompt_tokens + row.num_generated_tokens for row in rows)
            lines = "".join(_line(row, max(longest, 1)) for row in rows[:_MOST_SHOWN])
            more = f"<li>{len(rows) - _MOST_SHOWN} more</li>" if len(rows) > _MOST_SHOWN else ""
            self._bars.set_content(f'<ol class="batch">{lines}{more}</ol>')


def _line(row: BatchRow, longest: int) -> str:
    computed = max(row.num_computed_tokens - row.num_cached_tokens, 0)
    to_come = max(row.num_prompt_tokens - row.num_cached_tokens - computed, 0)
    pieces = (("s2", row.num_cached_tokens), ("s1", computed), ("hatch", to_come), ("s4", row.num_generated_tokens))
    bars = "".join(f'<i class="{colour}" style="width:{size / longest:.2%}"></i>' for colour, size in pieces if size)
    state = "" if row.is_running else "waits · "
    cached = f", {row.num_cached_tokens:,} cached" if row.num_cached_tokens else ""
    said = (
        f"{state}prompt {row.num_computed_tokens:,} of {row.num_prompt_tokens:,}{cached} · "
        f"{row.num_generated_tokens:,} of {row.num_most_tokens:,} generated"
    )
    name = html.escape(row.request_id + (f" #{row.choice}" if row.choice else ""))
    return (
        f'<li><span class="mono wrap-anywhere">{name}</span><div class="bar thin" aria-hidden="true">{bars}</div>'
        f'<span class="soft small num">{said}</span></li>'
    )
