"""Small charts as SVG, drawn by the server."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

from nicegui import ui

from mlx_manager.ui.elements import box, set_words, text

_WIDTH, _HEIGHT = 600, 84


def bar_chart(
    title: str, hint: str, render_top: Callable[[float], str]
) -> Callable[[Sequence[float], Sequence[float], str], None]:
    """A bar per minute of the last hour, under its scale: `render_top` says how high the highest bar is.

    Returns what draws it: heights, how much of each is bad, a summary.
    """
    with box("stack"):
        with box("row-line"):
            text(title, tag="h3")
            summary = text("", "soft small end num")
        top = text("", "chart-top num")
        drawing = ui.html("", sanitize=False)
        with box("chart-foot"):
            text("an hour ago")
            text(hint, "hide-narrow")
            text("now")

    def draw(heights: Sequence[float], bad: Sequence[float], words: str) -> None:
        set_words(summary, words)
        highest = max(heights, default=0.0)
        set_words(top, render_top(highest) if highest else "\N{NO-BREAK SPACE}")
        drawing.set_content(_svg(heights, bad, f"{title}: {words}"))

    return draw


def _svg(heights: Sequence[float], bad: Sequence[float], label: str) -> str:
    top = max((*heights, 1e-9))
    step = _WIDTH / max(len(heights), 1)
    bars = []
    for index, height in enumerate(heights):
        scaled = height / top * (_HEIGHT - 4)
        if scaled:
            bars.append(_rect(index * step, scaled, step))
        if bad and bad[index]:
            bars.append(_rect(index * step, bad[index] / top * (_HEIGHT - 4), step, ' class="bad"'))
    return (
        f'<svg class="chart" role="img" aria-label="{html.escape(label)}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'preserveAspectRatio="none"><line x1="0" x2="{_WIDTH}" y1="{_HEIGHT - 1}" y2="{_HEIGHT - 1}"/>'
        f"{''.join(bars)}</svg>"
    )


def _rect(left: float, height: float, step: float, more: str = "") -> str:
    top = _HEIGHT - 1 - height
    place = f'x="{left + 1:.1f}" y="{top:.1f}" width="{step - 2:.1f}" height="{height:.1f}"'
    return f'<rect {place} rx="1"{more}/>'
