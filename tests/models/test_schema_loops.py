"""References that lead only back to themselves are found, and no others."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_manager.models.schema_loops import find_loop

ENDLESS: dict[str, Any] = {
    "itself": {"$ref": "#/$defs/N", "$defs": {"N": {"$ref": "#/$defs/N"}}},
    "the root": {"$ref": "#"},
    "by way of another": {
        "properties": {"x": {"$ref": "#/$defs/A"}},
        "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"allOf": [{"type": "object"}, {"$ref": "#/$defs/A"}]}},
    },
    "every alternative": {"$ref": "#/$defs/N", "$defs": {"N": {"anyOf": [{"$ref": "#/$defs/N"}, {"$ref": "#"}]}}},
}
FINITE: dict[str, Any] = {
    "a list": {"$ref": "#/$defs/N", "$defs": {"N": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/N"}]}}},
    "a tree": {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}},
    "another's name": {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer"}}},
    "elsewhere": {"$ref": "https://example.com/x"},
    "no schema": {"const": {"$ref": "#"}},
    "one that asks twice": {
        "allOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/A"}],
        "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {}},
    },
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_loop_is_found(name: str) -> None:
    assert find_loop(ENDLESS[name]) is not None


@pytest.mark.parametrize("name", FINITE)
def test_what_can_be_matched_is_no_loop(name: str) -> None:
    assert find_loop(FINITE[name]) is None


def test_looking_for_them_is_bounded() -> None:
    """Each of these leads twice to the next: two to the power of their number of ways."""
    ways = {f"N{index}": {"anyOf": [{"$ref": f"#/$defs/N{index + 1}"}] * 2} for index in range(60)}
    loop = {"N60": {"$ref": "#/$defs/N60"}}
    assert find_loop({"$ref": "#/$defs/N0", "$defs": ways | loop}) in (
        None,
        *(f"#/$defs/N{index}" for index in range(61)),
    )
