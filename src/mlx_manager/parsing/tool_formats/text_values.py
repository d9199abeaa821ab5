"""Arguments written as plain text between markers: the tool's JSON schema says what each of them means."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

from mlx_manager.ir import Tool

_TYPES_BY_VALUE: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    type(None): "null",
}
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None, "none": None}


def properties_of(tools: tuple[Tool, ...], name: str) -> Mapping[str, Any]:
    """The schemas of the arguments of the tool `name`, by argument; {} for a tool that is not known."""
    for tool in tools:
        if tool.name == name:
            schema = json.loads(tool.parameters)
            properties = schema.get("properties", {}) if isinstance(schema, dict) else {}
            return properties if isinstance(properties, dict) else {}
    return {}


def is_text(schema: object) -> bool:
    """Whether a value can be nothing but a string, so that its text goes on while it is being written."""
    return types_of(schema) == {"string"}


def choices_of(schema: object) -> list[Any]:
    """The only values that a schema allows, where it lists them."""
    if not isinstance(schema, dict):
        return []
    return [*schema.get("enum", []), *([schema["const"]] if "const" in schema else [])]


def types_of(schema: object) -> set[str]:
    """The JSON types that a schema names, itself or in its alternatives; empty when it leaves them open."""
    if not isinstance(schema, dict):
        return set()
    named = schema.get("type", [])
    found = {named} if isinstance(named, str) else {each for each in named if isinstance(each, str)}
    if not found:
        found = {_TYPES_BY_VALUE[type(value)] for value in choices_of(schema)}
    for key in ("anyOf", "oneOf"):
        for alternative in schema.get(key, []):
            found |= types_of(alternative)
    return found


def value_of(text: str, schema: object) -> str:
    """The JSON text of the value that `text` spells. What is none of the types it should be stays a string."""
    types = types_of(schema)
    value = _spelled(text.strip(), is_python_possible=bool(types & {"array", "object"}))
    kind = "" if value is _NOTHING else _TYPES_BY_VALUE[type(value)]
    if isinstance(value, float) and value.is_integer() and "number" not in types and "integer" in types:
        return str(int(value))
    if kind in ("", "string") or (types and kind not in types and not (kind == "integer" and "number" in types)):
        return json.dumps(text, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False)


_NOTHING = object()


def _spelled(text: str, *, is_python_possible: bool) -> object:
    """The JSON value that a text spells, or one of Python's words and containers; `_NOTHING` where it spells none."""
    try:
        return json.loads(text, strict=False, parse_constant=_refuse)
    except (ValueError, RecursionError):
        pass
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if is_python_possible and text[:1] in ("[", "{"):
        try:
            return json.loads(json.dumps(ast.literal_eval(text), allow_nan=False))
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            pass
    return _NOTHING


def _refuse(constant: str) -> None:
    raise ValueError(constant)
