"""JSON schemas that allow nothing because a reference of theirs leads only back to itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_NOT_SCHEMAS = ("const", "enum", "default", "examples")
_MOST_DEPTH = 64
_MOST_LOOKED_AT = 20_000
"""Beyond these a schema is taken for one without loops, so that looking for them stays cheap."""


def find_loop(schema: Any) -> str | None:
    """A reference in `schema` that nothing can match, such as `{"$defs": {"N": {"$ref": "#/$defs/N"}}}` has."""
    search = _Search(schema)
    for part in _parts(schema):
        if "$ref" in part and search.is_endless(part):
            return str(part["$ref"])
    return None


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema inside `schema`, itself among them."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting.extend(value for key, value in part.items() if key not in _NOT_SCHEMAS)
        elif isinstance(part, list):
            waiting.extend(part)


class _Search:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._finite: set[str] = set()
        """References that lead to something that can be matched."""
        self._num_left = _MOST_LOOKED_AT

    def is_endless(self, part: Any, passed: tuple[str, ...] = (), depth: int = 0) -> bool:
        """Whether `part`, reached by the references `passed`, matches nothing unless one of them does."""
        self._num_left -= 1
        if not isinstance(part, dict) or depth > _MOST_DEPTH or self._num_left < 0:
            return False
        if isinstance(part.get("$ref"), str) and self._is_endless_reference(part["$ref"], passed, depth):
            return True
        if any(self.is_endless(each, passed, depth + 1) for each in _listed(part, "allOf")):
            return True
        alternatives = [each for key in ("anyOf", "oneOf") if (each := _listed(part, key))]
        return any(all(self.is_endless(each, passed, depth + 1) for each in some) for some in alternatives)

    def _is_endless_reference(self, reference: str, passed: tuple[str, ...], depth: int) -> bool:
        if reference in self._finite:
            return False
        if reference in passed:
            return True
        if self.is_endless(_target(reference, self._root), (*passed, reference), depth + 1):
            return True
        # what can be matched with `passed` taken for endless can be matched in any case
        self._finite.add(reference)
        return False


def _listed(part: dict[str, Any], key: str) -> list[Any]:
    found = part.get(key)
    return found if isinstance(found, list) else []


def _target(reference: str, root: Any) -> Any:
    """What a reference into the same schema points to; None for any other."""
    if not reference.startswith("#"):
        return None
    target = root
    for step in reference[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        target = target.get(name) if isinstance(target, dict) else None
    return target
