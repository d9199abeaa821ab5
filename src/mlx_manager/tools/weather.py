"""What the weather is like in some cities: long-term averages by month, rounded, which ship with this server.

No network is asked. It is there to try tools with; it is no forecast.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType

MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_CELSIUS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "Amsterdam": (4, 4, 6, 9, 13, 16, 18, 18, 15, 11, 7, 5),
        "Athens": (10, 11, 13, 17, 21, 26, 29, 29, 25, 20, 15, 12),
        "Beijing": (-3, 0, 7, 15, 21, 25, 27, 26, 21, 13, 5, -1),
        "Berlin": (1, 2, 5, 10, 15, 18, 20, 20, 15, 10, 5, 2),
        "Cairo": (14, 15, 18, 22, 26, 28, 29, 29, 27, 24, 19, 15),
        "Cape Town": (21, 21, 20, 18, 15, 13, 12, 13, 14, 16, 18, 20),
        "Chicago": (-4, -2, 4, 10, 16, 21, 24, 23, 19, 12, 5, -1),
        "Delhi": (14, 17, 23, 29, 33, 33, 31, 30, 29, 26, 20, 15),
        "Istanbul": (6, 6, 8, 12, 17, 22, 24, 25, 21, 16, 12, 8),
        "Lisbon": (12, 13, 15, 16, 19, 21, 23, 24, 22, 19, 15, 12),
        "London": (5, 6, 8, 11, 14, 17, 19, 19, 16, 12, 8, 6),
        "Madrid": (6, 8, 11, 13, 17, 23, 26, 26, 21, 15, 10, 7),
        "Mexico City": (14, 16, 18, 19, 20, 19, 18, 18, 18, 17, 15, 14),
        "Moscow": (-6, -6, 0, 7, 13, 17, 19, 17, 12, 6, 0, -4),
        "Mumbai": (24, 25, 27, 29, 30, 29, 28, 28, 28, 29, 28, 26),
        "New York": (1, 2, 6, 12, 17, 22, 25, 25, 21, 15, 9, 4),
        "Oslo": (-3, -3, 1, 6, 12, 16, 18, 17, 12, 6, 2, -2),
        "Paris": (5, 6, 9, 12, 15, 19, 21, 21, 17, 13, 8, 5),
        "Rome": (8, 8, 11, 14, 18, 22, 25, 25, 21, 17, 12, 9),
        "San Francisco": (11, 12, 13, 13, 14, 15, 16, 16, 17, 16, 14, 11),
        "Singapore": (27, 27, 28, 28, 29, 29, 28, 28, 28, 28, 27, 27),
        "Stockholm": (-1, -1, 2, 6, 12, 16, 19, 18, 13, 8, 4, 1),
        "Sydney": (23, 23, 22, 19, 16, 14, 13, 14, 17, 19, 20, 22),
        "Tokyo": (5, 6, 9, 14, 19, 22, 26, 27, 24, 18, 13, 8),
        "Vienna": (1, 3, 7, 12, 16, 20, 22, 21, 16, 11, 6, 2),
    }
)


class NoWeather(ValueError):
    """What is wrong with a question, in words for whoever asked it."""


def get_weather(city: str, month: str = "") -> str:
    """The weather of `city` in `month`, by its English name; without one, in this month. Raises `NoWeather`."""
    found = next((name for name in _CELSIUS if name.casefold() == city.strip().casefold()), None)
    if found is None:
        raise NoWeather(f"Nothing is recorded for {city[:80]!r}. There is: {', '.join(_CELSIUS)}.")
    wanted = month.strip().casefold() or MONTHS[time.localtime().tm_mon - 1].casefold()
    number = next(
        (index for index, name in enumerate(MONTHS) if len(wanted) > 2 and name.casefold().startswith(wanted)), None
    )
    if number is None:
        raise NoWeather(f"{month[:80]!r} is no month: write for example {MONTHS[0]}.")
    return f"{found} in {MONTHS[number]}: {_CELSIUS[found][number]} °C on average. A long-term average, not a forecast."
