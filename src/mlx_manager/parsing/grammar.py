"""Writing grammars in llguidance's dialect of Lark."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlx_manager.ir import Tool

_WHITESPACE = r"[ \n]?"
"""Between the tokens of a JSON text. Without a bound, a small model with nothing to say goes on with white space."""


class GrammarWriter:
    """Rules of one grammar. Markers that are special tokens have to be written by their ids, all others as text."""

    def __init__(self, special_ids: Mapping[str, int]) -> None:
        self._special_ids = special_ids
        self._rules: list[str] = []

    def rule(self, name: str, body: str) -> str:
        """Add a rule; returns its name."""
        self._rules.append(f"{name}: {body}")
        return name.split("[", maxsplit=1)[0]

    def text(self) -> str:
        """The whole grammar. Its `start` rule must have been added."""
        return "%llguidance {}\n" + "\n".join(self._rules) + "\n"

    def marker(self, marker: str) -> str:
        """A marker, as the tokenizer has it."""
        token_id = self._special_ids.get(marker)
        return literal(marker) if token_id is None else f"<[{token_id}]>"

    def optional(self, text: str) -> str:
        """A text that may be absent; nothing for no text."""
        return f"{literal(text)}?" if text else ""

    def calls(self, begin: str, body: str, separator: str, *, parallel: bool, required: bool) -> str:
        """The whole grammar of calls that each begin with the marker `begin` and go on with the rule `body`.

        Text that is not a call cannot contain `begin`, so that whoever reads it finds what the grammar meant.
        """
        more = f" ({separator} {self.marker(begin)} {body})*" if parallel else ""
        if required:
            self.rule("start", f"{self.marker(begin)} {body}{more}")
        elif self.is_special(begin):
            self.rule("start", f"TEXT | TEXT {self.marker(begin)} {body}{more}")
            self.rule("TEXT", "/(?s:.*)/")
        else:
            pattern = regex(begin)
            self.rule("start", f"TEXT | lead {body}{more}")
            self.rule("TEXT", f"/(?s:.*)/ & ~/(?s:.*){pattern}(?s:.*)/")
            self.rule("lead[lazy]", f"/(?s:.*){pattern}/")
        return self.text()

    def is_special(self, marker: str) -> bool:
        """Whether a marker is one special token."""
        return marker in self._special_ids


def literal(text: str) -> str:
    """A text, quoted."""
    return json.dumps(text, ensure_ascii=False)


def regex(text: str) -> str:
    """A pattern that matches exactly `text`."""
    return "".join(
        character if character.isalnum() or character in "_ " else f"\\x{{{ord(character):x}}}" for character in text
    )


def json_value(schema: Mapping[str, Any]) -> str:
    """Any JSON value that the schema allows."""
    return "%json " + json.dumps({"x-guidance": {"whitespace_pattern": _WHITESPACE}, **schema}, ensure_ascii=False)


def parameters_of(tool: Tool) -> dict[str, Any]:
    """The JSON schema of the arguments object of `tool`. Raises `ValueError` when it is none."""
    schema = json.loads(tool.parameters)
    if not isinstance(schema, dict):
        raise ValueError(f"the parameters of {tool.name} are not a JSON schema object")
    return {"type": "object", **schema}
