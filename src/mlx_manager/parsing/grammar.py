"""Writing grammars in llguidance's dialect of Lark."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from mlx_manager.ir import Tool

_WHITESPACE = r"[ \n]?"
"""Between the tokens of a JSON text. Without a bound, a small model with nothing to say goes on with white space."""
_DIALECT = re.compile(r"https?://json-schema\.org/(draft-0[3467]|draft/2019-09|draft/2020-12)/schema#?")
_VALUES = ("const", "enum", "default", "examples")
"""Keywords whose values are no schemas."""


class GrammarWriter:
    """Rules of one grammar. Markers that are special tokens have to be written by their ids, all others as text."""

    def __init__(self, special_ids: Mapping[str, int]) -> None:
        self._special_ids = special_ids
        self._special = "(" + "|".join(re.escape(special) for special in special_ids) + ")"
        self._rules: dict[str, str] = {}

    def rule(self, name: str, body: str) -> str:
        """Add a rule; returns its name. Adding one again changes nothing."""
        self._rules[name] = body
        return name.split("[", maxsplit=1)[0]

    def text(self) -> str:
        """The whole grammar. Its `start` rule must have been added."""
        return "%llguidance {}\n" + "\n".join(f"{name}: {body}" for name, body in self._rules.items()) + "\n"

    def marker(self, marker: str) -> str:
        """A marker, as the tokenizer has it: what of it is a special token by its id, the rest as text."""
        if not marker:
            return '""'
        pieces = re.split(self._special, marker) if self._special_ids else [marker]
        return " ".join(
            f"<[{self._special_ids[piece]}]>" if piece in self._special_ids else literal(piece)
            for piece in pieces
            if piece
        )

    def optional(self, text: str) -> str:
        """A text that may be absent; nothing for no text."""
        return f"{literal(text)}?" if text else ""

    def calls(self, begin: str, body: str, separator: str, *, parallel: bool, required: bool) -> str:
        """What matches calls that each begin with the marker `begin` and go on with the rule `body`."""
        more = f" ({separator} {self.marker(begin)} {body})*" if parallel else ""
        return self.after_text(begin, f"{body}{more}", required=required)

    @staticmethod
    def several(call: str, separator: str, *, parallel: bool) -> str:
        """What matches one `call`, or with `parallel` any number of them."""
        return f"{call} ({separator} {call})*" if parallel else call

    def after_text(self, begin: str, rest: str, *, required: bool) -> str:
        """What matches the marker `begin` and then `rest`; without `required` also text instead of them, or before.

        Text cannot contain `begin`, so that whoever reads the answer finds what the grammar meant.
        """
        if required:
            return f"{self.marker(begin)} {rest}"
        self.rule("TEXT", f"/(?s:.*)/ & ~{_containing(begin)}")
        return f"TEXT | {self._text_and(begin, 'lead')} {rest}"

    def call_object(self, tools: tuple[Tool, ...], name_key: str, arguments_key: str) -> str:
        """Add what matches a call of any of `tools`, written as a JSON object of its name and its arguments.

        The arguments of each tool have a JSON schema of their own, because references in one count from its root.
        """
        calls = []
        for index, tool in enumerate(tools):
            begin = f"{{{json.dumps(name_key)}: {json.dumps(tool.name)}, {json.dumps(arguments_key)}: "
            body = f'{literal(begin)} {json_value(parameters_of(tool))} "}}"'
            calls.append(self.rule(f"call_{index}", body))
        return self.rule("call_object", " | ".join(calls))

    def until(self, name: str, end: str) -> str:
        """Add the rule `name`: any text and then the marker `end`, which the text cannot contain."""
        if self.is_special(end):
            return self.rule(name, self._text_and(end, f"{name}_text"))
        self._text_and(end, name)
        return name

    def _text_and(self, marker: str, name: str) -> str:
        """What matches any text and then `marker`, by a rule or a terminal called `name`."""
        if not self.is_special(marker):
            return self.rule(f"{name}[lazy]", f"/(?s:.*){regex(marker)}/")
        # What stands before the special token belongs to the text's lexeme, because that takes all text there is. A
        # marker that is one token can still be spelled by others.
        before, special, after = re.split(self._special, marker, maxsplit=1)
        terminal = self.rule(name.upper(), f"/(?s:.*){regex(before)}/ & ~{_containing(marker)}")
        return f"{terminal} {self.marker(special + after)}"

    def is_special(self, marker: str) -> bool:
        """Whether a special token is in a marker, so that no text can be mistaken for it."""
        return any(special in marker for special in self._special_ids)


def literal(text: str) -> str:
    """A text, quoted."""
    return json.dumps(text, ensure_ascii=False)


def regex(text: str) -> str:
    """A pattern that matches exactly `text`."""
    return "".join(
        character if character.isalnum() or character in "_ " else f"\\x{{{ord(character):x}}}" for character in text
    )


def _containing(text: str) -> str:
    return f"/(?s:.*){regex(text)}(?s:.*)/"


def json_value(schema: Mapping[str, Any]) -> str:
    """Any JSON value that the schema allows."""
    known = in_known_dialect(schema)
    return "%json " + json.dumps({"x-guidance": {"whitespace_pattern": _WHITESPACE}, **known}, ensure_ascii=False)


def in_known_dialect(schema: Any) -> Any:
    """A schema without the `$schema` of dialects that llguidance does not know: it would refuse the whole schema.

    What such a dialect adds to the latest draft is no constraint, or is refused by its keyword.
    """
    if isinstance(schema, list):
        return [in_known_dialect(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value if key in _VALUES else in_known_dialect(value) for key, value in schema.items()}
    dialect = kept.get("$schema")
    if isinstance(dialect, str):
        del kept["$schema"]
        if known := _DIALECT.fullmatch(dialect):
            scheme = "https" if "/" in known[1] else "http"
            kept["$schema"] = f"{scheme}://json-schema.org/{known[1]}/schema#"
    return kept


def with_definitions(schema: Any, root: Mapping[str, Any]) -> Any:
    """A schema out of the schema `root`, with the definitions that it may refer to."""
    if not isinstance(schema, dict):
        return schema
    return {**{key: root[key] for key in ("$defs", "definitions") if key in root}, **schema}


def parameters_of(tool: Tool) -> dict[str, Any]:
    """The JSON schema of the arguments object of `tool`. Raises `ValueError` when it is none."""
    schema = json.loads(tool.parameters)
    if not isinstance(schema, dict):
        raise ValueError(f"the parameters of {tool.name} are not a JSON schema object")
    if "properties" in schema:
        # What the schema leaves open would let a model invent arguments.
        return {"additionalProperties": False, **schema, "type": "object"}
    return {**schema, "type": "object"}
