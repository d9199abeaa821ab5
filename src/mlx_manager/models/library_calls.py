"""Calls read by mlx-lm's own parser of a model's format: each call as a whole, once its end marker has come."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlx_manager.ir import Tool
from mlx_manager.parsing import Call, ToolFormat
from mlx_manager.parsing.cursor import Cursor, Malformed, Reading
from mlx_manager.parsing.emitter import Emitter
from mlx_manager.parsing.grammar import GrammarWriter
from mlx_manager.parsing.tool_formats import HERMES

_PARSER_ERRORS = (ValueError, TypeError, KeyError, IndexError, AttributeError, SyntaxError)


@dataclass(frozen=True)
class LibraryCalls(ToolFormat):
    """What stands between `begins` and `end` is for the library. No grammar: such calls cannot be enforced."""

    is_enforceable: ClassVar[bool] = False
    name: str  # type: ignore[misc]
    begins: tuple[str, ...]
    end: str
    parse: Callable[[str, Any], Any]
    """mlx-lm's `parse_tool_call`: the text between the markers and the tools, to a call or a list of calls."""

    @property
    def markers(self) -> tuple[str, ...]:
        """See `ToolFormat`."""
        return (*self.begins, self.end)

    def read_calls(self, begin: str, cursor: Cursor, out: Emitter, tools: tuple[Tool, ...]) -> Reading[None]:
        """See `ToolFormat`."""
        text, _ = yield from cursor.collect_until((self.end,))
        described = [
            {"type": "function", "function": {"name": tool.name, "parameters": json.loads(tool.parameters)}}
            for tool in tools
        ]
        try:
            parsed = self.parse(text, described)
            calls = [_call_of(each) for each in (parsed if isinstance(parsed, list) else [parsed])]
        except _PARSER_ERRORS:
            raise Malformed from None
        for name, arguments in calls:
            out.start_call(name)
            out.arguments(json.dumps(arguments, ensure_ascii=False))
            out.end_call()

    def spell(self, calls: Sequence[Call]) -> str:
        """See `ToolFormat`. The library does not write; the form of Hermes is the best known."""
        return HERMES.spell(calls)

    def write_calls(self, writer: GrammarWriter, tools: tuple[Tool, ...], *, parallel: bool, required: bool) -> str:
        """See `ToolFormat`."""
        raise ValueError(f"the calls of this model are read by mlx-lm ({self.name}), which cannot constrain them")


def _call_of(parsed: Any) -> Call:
    name, arguments = parsed["name"], parsed["arguments"]
    arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        raise ValueError(name)
    return name, arguments
