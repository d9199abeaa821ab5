"""More than a hundred JSON Schemas, each of a different make, and sized so that a small model comes to an end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Schema = dict[str, Any]

WORD: Schema = {"type": "string", "maxLength": 12}
SMALL: Schema = {"type": "integer", "minimum": 0, "maximum": 99}
FLAG: Schema = {"type": "boolean"}
NOTHING: Schema = {"type": "null"}


def record(properties: Mapping[str, Schema], *, optional: Sequence[str] = (), **more: Any) -> Schema:
    """An object of just these properties."""
    required = [name for name in properties if name not in optional]
    return {
        "type": "object",
        "properties": dict(properties),
        "required": required,
        "additionalProperties": False,
    } | more


def items(schema: Schema, least: int = 0, most: int = 3, **more: Any) -> Schema:
    """An array of bounded length."""
    return {"type": "array", "items": schema, "minItems": least, "maxItems": most} | more


def any_of(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def one_of(*schemas: Schema) -> Schema:
    return {"oneOf": list(schemas)}


def text(**more: Any) -> Schema:
    return {"type": "string"} | more


def whole(least: int, most: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most}


def defined(reference: str, definitions: Mapping[str, Schema], place: str = "$defs") -> Schema:
    """A schema that is one of its own definitions."""
    return {"$ref": f"#/{place}/{reference}", place: dict(definitions)}


def nested(depth: int) -> Schema:
    return record({"inside": nested(depth - 1)}) if depth else record({"value": SMALL})


_PERSON = record({"name": WORD, "age": SMALL})
_POINT = record({"x": whole(-9, 9), "y": whole(-9, 9)})
_DATE = text(format="date")

VALUES: dict[str, Schema] = {
    "string": text(maxLength=20),
    "empty string": text(maxLength=0),
    "string of a length": text(minLength=4, maxLength=4),
    "long string": text(minLength=30, maxLength=60),
    "integer": whole(-1000, 1000),
    "positive integer": {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10},
    "one integer": whole(7, 7),
    "large integers": whole(10**12, 10**15),
    "even integer": {"type": "integer", "minimum": 0, "maximum": 100, "multipleOf": 2},
    "multiple of five": {"type": "integer", "minimum": 5, "maximum": 500, "multipleOf": 5},
    "integer enum": {"enum": [1, 10, 100, 1000]},
    "boolean": FLAG,
    "null": NOTHING,
    "string enum": {"enum": ["red", "green", "blue"]},
    "mixed enum": {"enum": ["none", 0, None, True, {"a": 1}, [1, 2]]},
    "typed enum": {"type": "string", "enum": ["north", "south"]},
    "const string": {"const": "exactly this"},
    "const number": {"const": 42},
    "const object": {"const": {"a": [1, {"b": None}]}},
    "const with quotes": {"const": 'say "hi"\\ and\n go'},
    "unicode const": {"const": "naïve café ☕ 日本語 😀"},
    "unicode enum": {"enum": ["grün", "été", "мир"]},
    "type list": {"type": ["integer", "null"], "minimum": 0, "maximum": 9},
    "string or null": {"type": ["string", "null"], "maxLength": 8},
}

FORMATS: dict[str, Schema] = {
    name: text(format=name) for name in ("date", "time", "date-time", "duration", "uuid", "ipv4")
} | {
    "email": record({"email": text(format="email", maxLength=40)}),
    "hostname": record({"host": text(format="hostname", maxLength=20)}),
    "ipv6": record({"address": text(format="ipv6")}),
    "dates in a record": record({"born": _DATE, "seen": text(format="date-time"), "id": text(format="uuid")}),
    "array of dates": items(_DATE, 1, 2),
}

PATTERNS: dict[str, Schema] = {
    "licence plate": text(pattern="^[A-Z]{2}-[0-9]{3}$"),
    "phone number": text(pattern=r"^\+[0-9]{1,3} [0-9]{6,9}$"),
    "hexadecimal colour": text(pattern="^#[0-9a-f]{6}$"),
    "alternatives": text(pattern="^(cat|dog|bird)s?$"),
    "semantic version": text(pattern=r"^(0|[1-9][0-9]?)\.(0|[1-9][0-9]?)\.(0|[1-9][0-9]?)$"),
    "words": text(pattern=r"^[a-z]{2,8}( [a-z]{2,8}){1,3}$"),
    "base64": text(pattern="^[A-Za-z0-9+/]{8}={0,2}$"),
    "digits class": text(pattern=r"^\d{4}-\d{2}$"),
    "word class": text(pattern=r"^\w{3,10}$"),
    "pattern inside a record": record({"code": text(pattern="^[A-Z]{3}$"), "zip": text(pattern="^[0-9]{5}$")}),
}

OBJECTS: dict[str, Schema] = {
    "person": _PERSON,
    "point": _POINT,
    "empty object": record({}),
    "one flag": record({"ok": FLAG}),
    "one optional": record({"name": WORD, "nickname": WORD}, optional=["nickname"]),
    "all optional": record({"a": SMALL, "b": SMALL, "c": SMALL}, optional=["a", "b", "c"]),
    "optional in the middle": record({"a": SMALL, "b": WORD, "c": FLAG}, optional=["b"]),
    "ten properties": record({f"field_{index}": SMALL for index in range(10)}),
    "nullable property": record({"name": WORD, "email": any_of(WORD, NOTHING)}),
    "property with odd names": record({"a b": SMALL, 'q"q': SMALL, "ü": SMALL, "$x": SMALL, "": SMALL}),
    "additional integers": {"type": "object", "additionalProperties": SMALL, "maxProperties": 2},
    "additional beside named": record({"id": SMALL}) | {"additionalProperties": FLAG, "maxProperties": 2},
    "pattern properties": {
        "type": "object",
        "patternProperties": {"^n_[a-z]{1,4}$": SMALL},
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 2,
    },
    "at least two": {"type": "object", "additionalProperties": FLAG, "minProperties": 2, "maxProperties": 3},
    "required without a schema": {"type": "object", "required": ["a"], "properties": {"a": SMALL}, "maxProperties": 1},
    "with titles and defaults": record(
        {"size": {"type": "integer", "minimum": 1, "maximum": 9, "title": "Size", "default": 3, "examples": [4]}},
        title="A thing",
        description="What it is",
    ),
    "draft 7": {"$schema": "http://json-schema.org/draft-07/schema#"} | _PERSON,
    "draft 2020-12": {"$schema": "https://json-schema.org/draft/2020-12/schema"} | _POINT,
    "a dialect of its own": {"$schema": "https://spec.openapis.org/oas/3.1/dialect/base"} | _POINT,
}

NESTED: dict[str, Schema] = {
    "two deep": nested(1),
    "five deep": nested(5),
    "ten deep": nested(10),
    "order": record({"customer": _PERSON, "lines": items(record({"item": WORD, "count": SMALL}), 1, 2)}),
    "address book": record({"people": items(_PERSON, 1, 2), "owner": _PERSON}),
    "line": record({"from": _POINT, "to": _POINT}),
    "polygon": record({"points": items(_POINT, 3, 4)}),
    "object of objects": {"type": "object", "additionalProperties": _POINT, "minProperties": 1, "maxProperties": 2},
    "settings": record(
        {
            "theme": {"enum": ["light", "dark"]},
            "font": record({"family": WORD, "size": whole(6, 30)}),
            "panels": items({"enum": ["left", "right"]}),
        }
    ),
    "weather": record({"city": WORD, "days": items(record({"day": _DATE, "low": whole(-30, 40), "sun": FLAG}), 1, 2)}),
}

ARRAYS: dict[str, Schema] = {
    "integers": items(SMALL, 1, 4),
    "empty array": items(SMALL, 0, 0),
    "exactly three": items(whole(1, 6), 3, 3),
    "array of words": items(WORD, 2, 3),
    "array of flags": items(FLAG, 5, 5),
    "array of nulls": items(NOTHING, 2, 2),
    "matrix": items(items(whole(0, 9), 3, 3), 3, 3),
    "pair": {"type": "array", "prefixItems": [WORD, SMALL], "items": False, "minItems": 2, "maxItems": 2},
    "head and tail": {"type": "array", "prefixItems": [WORD], "items": SMALL, "minItems": 2, "maxItems": 4},
    "array of enums": items({"enum": ["a", "b"]}, 1, 5),
    "array of records": items(_PERSON, 1, 2),
    "mixed array": items(any_of(SMALL, FLAG, NOTHING), 2, 4),
    "three deep array": items(items(items(SMALL, 1, 2), 1, 2), 1, 2),
}

UNIONS: dict[str, Schema] = {
    "integer or word": any_of(SMALL, WORD),
    "record or null": any_of(_PERSON, NOTHING),
    "two records": any_of(record({"cat": WORD}), record({"dog": WORD})),
    "tagged": any_of(
        record({"kind": {"const": "circle"}, "radius": SMALL}),
        record({"kind": {"const": "square"}, "side": SMALL}),
    ),
    "tagged in an array": items(
        any_of(record({"op": {"const": "add"}, "value": SMALL}), record({"op": {"const": "clear"}})), 1, 3
    ),
    "one of types": one_of(SMALL, FLAG, NOTHING),
    "one of tagged": one_of(
        record({"type": {"const": "a"}, "a": SMALL}),
        record({"type": {"const": "b"}, "b": FLAG}),
    ),
    "union inside a record": record({"id": any_of(SMALL, text(format="uuid")), "ok": FLAG}),
    "nested unions": any_of(any_of(whole(0, 4), whole(50, 54)), any_of(FLAG, NOTHING)),
    "all of": {
        "allOf": [
            {"type": "object", "properties": {"a": SMALL}, "required": ["a"]},
            {"type": "object", "properties": {"b": FLAG}, "required": ["b"]},
        ],
        "maxProperties": 2,
    },
    "all of bounds": {"type": "integer", "allOf": [{"minimum": 5}, {"maximum": 8}]},
    "union of arrays": any_of(items(SMALL, 1, 2), items(WORD, 1, 2)),
}

_TREE = {"tree": record({"value": SMALL, "children": items({"$ref": "#/$defs/tree"}, 0, 2)})}
_LIST = {"node": record({"value": SMALL, "next": any_of({"$ref": "#/$defs/node"}, NOTHING)})}
_SUM = {
    "term": any_of(whole(0, 9), record({"left": {"$ref": "#/definitions/term"}, "right": whole(0, 9)})),
}

RECURSIVE: dict[str, Schema] = {
    "linked list": defined("node", _LIST),
    "tree": defined("tree", _TREE),
    "expression": defined("term", _SUM, "definitions"),
    "reference to the root": record(
        {"name": WORD, "child": any_of({"$ref": "#"}, NOTHING)},
    ),
    "mutual": defined(
        "file",
        {
            "file": record({"name": WORD, "folder": any_of({"$ref": "#/$defs/folder"}, NOTHING)}),
            "folder": record({"title": WORD, "first": any_of({"$ref": "#/$defs/file"}, NOTHING)}),
        },
    ),
    "shared definition": record({"home": {"$ref": "#/$defs/place"}, "work": {"$ref": "#/$defs/place"}})
    | {"$defs": {"place": _POINT}},
    "definition of an enum": record({"first": {"$ref": "#/$defs/day"}, "last": {"$ref": "#/$defs/day"}})
    | {"$defs": {"day": {"enum": ["mon", "tue", "wed"]}}},
    "reference into properties": record({"a": whole(1, 3), "b": {"$ref": "#/properties/a"}}),
}

SCHEMAS: dict[str, Schema] = {
    f"{family}: {name}": schema
    for family, table in {
        "value": VALUES,
        "format": FORMATS,
        "pattern": PATTERNS,
        "object": OBJECTS,
        "nested": NESTED,
        "array": ARRAYS,
        "union": UNIONS,
        "recursive": RECURSIVE,
    }.items()
    for name, schema in table.items()
}
