"""The memory budget as a bar, one piece per model in memory."""

from __future__ import annotations

import html

from nicegui import ui

from mlx_manager.ui.elements import set_words, text
from mlx_manager.ui.pulse import Beat
from mlx_manager.ui.words import render_size

_NUM_COLOURS = 6


class MemoryBar:
    """Drawn where it is made; `update` shows how things stand."""

    def __init__(self) -> None:
        self._bar = ui.html("", sanitize=False)
        self._legend = ui.html("", sanitize=False)
        self._words = text("", "soft small", "p")

    def update(self, beat: Beat) -> None:
        """Show the budget of this look."""
        stats = beat.stats
        if stats is None:
            set_words(self._words, "This server keeps no models of its own.")
            return
        held = [status for status in beat.in_memory if status.planned_bytes]
        whole = stats.budget_bytes or stats.planned_bytes or 1
        pieces = [(status.entry.name, status.planned_bytes, index) for index, status in enumerate(held)]
        bars = "".join(
            f'<i class="s{index % _NUM_COLOURS + 1}" style="width:{min(size / whole, 1):.2%}"></i>'
            for _, size, index in pieces
        )
        said = f"{render_size(stats.planned_bytes)} of {render_size(whole)} planned"
        self._bar.set_content(f'<div class="bar" role="img" aria-label="Memory: {said}">{bars}</div>')
        rows = "".join(
            f'<li><span class="swatch s{index % _NUM_COLOURS + 1}"></span>{html.escape(name)} {render_size(size)}</li>'
            for name, size, index in pieces
        )
        free = max(whole - stats.planned_bytes, 0)
        self._legend.set_content(
            f'<ul class="legend num">{rows}<li><span class="swatch" style="border:1px solid '
            f'var(--line-strong)"></span>free {render_size(free)}</li></ul>'
        )
        budget = "" if stats.budget_bytes else " The budget is known once a first worker has started."
        set_words(
            self._words,
            f"{render_size(stats.measured_bytes)} measured; the system has {render_size(stats.system_available_bytes)} "
            f"available, and idle models go below {render_size(stats.memory_floor_bytes)}.{budget}",
        )
