"""Figures as people read them."""

from __future__ import annotations

from mlx_manager.catalog import render_size

__all__ = ["render_age", "render_count", "render_duration", "render_rate", "render_size"]


def render_duration(seconds: float) -> str:
    """12 s, 3 min, 2 h 5 min, 4 d."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d"


def render_age(seconds: float) -> str:
    """How long ago."""
    return "just now" if seconds < 2 else f"{render_duration(seconds)} ago"


def render_count(number: int) -> str:
    """135M, 7.2B, 4.1k; exact below a thousand."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            scaled = number / size
            return f"{scaled:.0f}{unit}" if scaled >= 100 else f"{scaled:.1f}{unit}".replace(".0", "")
    return str(number)


def render_rate(per_s: float) -> str:
    """Tokens per second."""
    return f"{per_s:.0f}" if per_s >= 100 or per_s == 0 else f"{per_s:.1f}"
