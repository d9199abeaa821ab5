"""Which names a route is for. Regular expressions are RE2's: matching takes time linear in the name."""

from __future__ import annotations

from collections.abc import Callable

import re2

from mlx_manager.catalog import PatternKind
from mlx_manager.errors import InvalidRequest

MAX_PATTERN = 500
_MAX_MEMORY_BYTES = 1 << 20
REST = "*"
"""In the model of a target: what follows the prefix."""


def compile_pattern(kind: PatternKind, pattern: str) -> Callable[[str], str | None]:
    """From a model's name to what `*` stands for in it, "" for nothing; None where the name does not match.

    Raises `InvalidRequest` for a pattern that cannot be used.
    """
    if not 1 <= len(pattern) <= MAX_PATTERN:
        raise InvalidRequest(f"A pattern has 1 to {MAX_PATTERN} characters.", param="pattern")
    match kind:
        case PatternKind.EXACT:
            return lambda name: "" if name == pattern else None
        case PatternKind.PREFIX:
            return lambda name: name[len(pattern) :] if name.startswith(pattern) else None
        case PatternKind.REGEX:
            return _compile_regex(pattern)


def _compile_regex(pattern: str) -> Callable[[str], str | None]:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MAX_MEMORY_BYTES
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0].decode("utf-8", "replace") if error.args and isinstance(error.args[0], bytes) else error
        raise InvalidRequest(
            f"The regular expression cannot be used: {said}. Patterns are RE2's: no backreferences, no look-around.",
            param="pattern",
        ) from None
    return lambda name: "" if compiled.fullmatch(name) else None
