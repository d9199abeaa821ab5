"""What is asked: every schema greedily and with a draw, some cut short, and others without any grammar among them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from mlx_manager.ir import GenerationRequest, Grammar, GrammarKind
from tests.structured.asking import of_lark, of_regex, of_schema, question
from tests.structured.schemas import NESTED, SCHEMAS, record

NUM_CUT_TOKENS = 6
DRAWN = tuple(SCHEMAS)[::5]
"""Schemas also asked with a draw."""
CUT = {f"cut: {name}": schema for name, schema in NESTED.items() if name != "two deep"}
_TEXTS = (
    "What is the capital of France?",
    "Name three fruits.",
    "Write one sentence about the sea.",
)
BYSTANDERS: dict[str, GenerationRequest] = {
    **{f"bystander {i}": question(f"bystander-{i}", text, max_tokens=16) for i, text in enumerate(_TEXTS)},
    **{
        f"drawn bystander {i}": question(f"drawn-bystander-{i}", text, max_tokens=16, temperature=0.9, seed=i)
        for i, text in enumerate(_TEXTS)
    },
}


GRAMMARS: dict[str, Grammar] = {
    "regex: yes or no": of_regex("yes|no"),
    "regex: a date": of_regex(r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"),
    "regex: three words": of_regex("[A-Z][a-z]{1,9}( [a-z]{1,9}){2}[.]"),
    "regex: beyond ASCII": of_regex("(é|ü|日本|😀){3}"),
    "lark: a sum": of_lark('start: NUMBER ("+" NUMBER){1,3} "=" NUMBER\nNUMBER: /[0-9]{1,2}/\n'),
    "lark: parentheses": of_lark('start: "(" inner ")"\ninner: "x" | "(" inner ")"\n'),
    "lark: a command": of_lark('start: verb " " noun\nverb: "open" | "close"\nnoun: "door" | "window"\n'),
}
REFUSED: dict[str, tuple[Grammar, str]] = {
    "unique items": (of_schema({"type": "array", "uniqueItems": True}), "uniqueItems"),
    "not": (of_schema({"not": {"type": "string"}}), "not"),
    "if": (of_schema(record({"a": {"if": {"type": "string"}, "then": {"maxLength": 3}}})), "if"),
    "dependent": (of_schema({"type": "object", "dependentRequired": {"a": ["b"]}}), "dependentRequired"),
    "contains": (of_schema(record({"a": {"type": "array", "contains": {"type": "null"}}})), "contains"),
    "property names": (of_schema({"propertyNames": {"maxLength": 2}}), "propertyNames"),
    "overlapping one of": (of_schema({"oneOf": [{"type": "string"}, {"type": "string", "minLength": 1}]}), "oneOf"),
    "unknown format": (of_schema({"type": "string", "format": "iban"}), "iban"),
    "unknown type": (of_schema({"type": "strin"}), "strin"),
    "unknown definition": (of_schema({"$ref": "#/$defs/nowhere"}), "nowhere"),
    "loop": (of_schema({"$ref": "#/$defs/N", "$defs": {"N": {"$ref": "#/$defs/N"}}}), "#/$defs/N"),
    "elsewhere": (of_schema({"$ref": "https://schemas.example/thing"}), "schemas.example"),
    "impossible": (of_schema({"type": "integer", "minimum": 5, "maximum": 3}), "minimum"),
    "look-ahead": (of_schema({"type": "string", "pattern": "(?=a)b"}), "look-ahead"),
    "no schema": (Grammar(kind=GrammarKind.JSON_SCHEMA, param="guided_json", text="{"), "JSON"),
    "open class": (of_regex("[a-z"), "unclosed character class"),
    "back reference": (of_regex(r"(a)\1"), "backreferences"),
    "unknown rule": (of_lark('start: "a" nowhere\n'), "nowhere"),
    "no Lark": (of_lark('start: "a'), "lexer error"),
}
FORKED = question(
    "forked", "Invent a person.", of_schema(SCHEMAS["object: person"]), num_choices=3, temperature=1.0, seed=1
)
STOPPED = question("stopped", "Invent a person.", of_schema(SCHEMAS["object: person"]), stop=('"age"',))
ANY_OBJECT = question(
    "any object", "Say hello in JSON.", Grammar(kind=GrammarKind.JSON_OBJECT, param="response_format"), max_tokens=24
)


def _greedy(name: str) -> GenerationRequest:
    return question(f"greedy {name}", f"{name}? One line of JSON.", of_schema(SCHEMAS[name]), **_ending(name))


def _drawn(index: int, name: str) -> GenerationRequest:
    drawing: dict[str, Any] = {"temperature": 0.8, "top_p": 0.9, "seed": index} | _ending(name)
    return question(f"drawn {name}", f"{name}? JSON.", of_schema(SCHEMAS[name]), **drawing)


def _ending(name: str) -> dict[str, Any]:
    """A schema that contains itself never ends of its own accord, and a small model repeats itself: dear repetitions
    make it come back up."""
    return {"frequency_penalty": 2.0, "presence_penalty": 2.0} if name.startswith("recursive") else {}


def _others() -> Iterator[tuple[str, GenerationRequest]]:
    yield from BYSTANDERS.items()
    for name, schema in CUT.items():
        yield name, question(name, f"{name}?", of_schema(schema), max_tokens=NUM_CUT_TOKENS)
    for name, grammar in GRAMMARS.items():
        yield name, question(name, f"Give me {name}.", grammar)
        yield f"drawn {name}", question(f"drawn {name}", f"Give me {name}.", grammar, temperature=1.0, seed=5)
    for name, (grammar, _) in REFUSED.items():
        yield f"refused {name}", question(f"refused {name}", "Hello", grammar)
    yield from {"forked": FORKED, "stopped": STOPPED, "any object": ANY_OBJECT}.items()


def _interleaved() -> Iterator[tuple[str, GenerationRequest]]:
    """Everything else spread among the schemas, so that it shares steps with them."""
    others = _others()
    for index, name in enumerate(SCHEMAS):
        yield f"greedy {name}", _greedy(name)
        if name in DRAWN:
            yield f"drawn {name}", _drawn(index, name)
        yield from itertools.islice(others, 1)
    yield from others


QUESTIONS = dict(_interleaved())
