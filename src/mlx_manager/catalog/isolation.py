"""Who shares the prefix cache with whom."""

from __future__ import annotations

from enum import StrEnum


class PrefixIsolation(StrEnum):
    """Whose prompts a prompt may find the beginning of in the cache."""

    NONE = "none"
    """Everybody's."""
    USER = "user"
    """Those of the same account; all who need none are one."""
    KEY = "key"
    """Those of the same API key; a session counts as one of its account."""
