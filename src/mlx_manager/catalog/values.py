"""How the value of a setting is read, from text or from a TOML value. A `ValueError` says what would be right."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")
_SIZE = re.compile(r"\s*(\d{1,18}(?:\.\d{1,6})?)\s*([KMGT]i?B)\s*|\s*(\d{1,18})\s*B?\s*", re.IGNORECASE | re.ASCII)


def text(value: object) -> str:
    """A line of text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("it takes a text that is not empty.")
    return value.strip()


def path(value: object) -> Path:
    """A path, made absolute; `~` is the user's home."""
    if isinstance(value, Path):
        value = str(value)
    return Path(text(value)).expanduser().absolute()


def words(value: object) -> tuple[str, ...]:
    """Several texts: a TOML list, or one text with commas between."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not parts or not all(isinstance(part, str) and part.strip() for part in parts):
        raise ValueError("it takes one text or several, with commas between.")
    return tuple(part.strip() for part in parts)


def optional_words(value: object) -> tuple[str, ...]:
    """As `words`, or an empty list."""
    return () if isinstance(value, list | tuple) and not value else words(value)


def web_address(value: object) -> str:
    """An http or https URL with a host."""
    if not isinstance(value, str) or not _is_web_address(value):
        raise ValueError("it takes an address such as https://example.org/hook.")
    return value


def _is_web_address(value: str) -> bool:
    if not value.isprintable() or any(char.isspace() for char in value):
        return False
    try:
        parts = urlsplit(value)
        # reading the port checks it
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def flag(value: object) -> bool:
    """Yes or no."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word not in _TRUE + _FALSE:
        raise ValueError("it takes true or false.")
    return word in _TRUE


def choice(*allowed: str) -> Callable[[object], str]:
    """One of the words `allowed`, in any case."""

    def parse(value: object) -> str:
        if not isinstance(value, str) or value.strip().lower() not in allowed:
            raise ValueError(f"it takes one of {', '.join(allowed)}.")
        return value.strip().lower()

    return parse


def whole(least: int, most: int | None = None) -> Callable[[object], int]:
    """A whole number between `least` and `most`, both included."""
    bounds = f"from {least} to {most}" if most is not None else f"of {least} or more"

    def parse(value: object) -> int:
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if not is_number and not (isinstance(value, str) and re.fullmatch(r"\s*-?\d{1,18}\s*", value, re.ASCII)):
            raise ValueError(f"it takes a whole number {bounds}.")
        parsed = int(value)  # type: ignore[call-overload]
        if parsed < least or (most is not None and parsed > most):
            raise ValueError(f"it takes a whole number {bounds}.")
        return int(parsed)

    return parse


def whole_of(*allowed: int) -> Callable[[object], int]:
    """One of the whole numbers `allowed`."""

    def parse(value: object) -> int:
        is_number = isinstance(value, int | str) and not isinstance(value, bool)
        if not is_number or str(value).strip() not in map(str, allowed):
            raise ValueError(f"it takes one of {', '.join(map(str, allowed))}.")
        return int(value)  # type: ignore[call-overload, no-any-return]

    return parse


def number(least: float, most: float | None = None) -> Callable[[object], float]:
    """A finite number between `least` and `most`, both included."""
    expected = (
        f"it takes a number from {least} to {most}." if most is not None else f"it takes a number of {least} or more."
    )

    def parse(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError(expected)
        try:
            parsed = float(value)
        except ValueError:
            raise ValueError(expected) from None
        if not math.isfinite(parsed) or parsed < least or (most is not None and parsed > most):
            raise ValueError(expected)
        return parsed

    return parse


def size_bytes(least: int) -> Callable[[object], int]:
    """A number of bytes, at least `least`: 2147483648, "2GiB" (binary) or "2GB" (decimal)."""

    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError('it takes a size such as "2GiB" or "512MiB".')
        matched = _SIZE.fullmatch(str(value))
        if matched is None:
            raise ValueError('it takes a size such as "2GiB" or "512MiB".')
        parsed = int(matched[3]) if matched[3] else int(float(matched[1]) * _unit_bytes(matched[2]))
        if parsed < least:
            raise ValueError(f"it takes at least {render_size(least)}.")
        return parsed

    return parse


def render_size(num_bytes: float) -> str:
    """A size for people, in binary units: 2.0 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"


def _unit_bytes(unit: str) -> int:
    power = "KMGT".index(unit[0].upper()) + 1
    return int((1024 if "i" in unit.lower() else 1000) ** power)
