"""JSON calls between markers: Hermes and Qwen, and the formats that differ from them in their markers alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_manager.ir import Tool
from mlx_manager.parsing.cursor import Cursor, Reading
from mlx_manager.parsing.emitter import Emitter
from mlx_manager.parsing.grammar import GrammarWriter, json_value, parameters_of
from mlx_manager.parsing.json_text import skip_space
from mlx_manager.parsing.style import ToolFormat
from mlx_manager.parsing.tool_formats.json_calls import JsonCallKeys, read_calls_json


@dataclass(frozen=True)
class TaggedJson(ToolFormat):
    """`begin {"name": …, "arguments": {…}} end`, one pair of markers per call; a list of calls is understood too."""

    name: str  # type: ignore[misc]
    begins: tuple[str, ...]
    end: str
    name_key: str = "name"
    arguments_key: str = "arguments"
    space: str = "\n"
    """Between the markers and the JSON, and between calls, as the model writes it."""

    @property
    def markers(self) -> tuple[str, ...]:
        """See `ToolFormat`."""
        return (*self.begins, self.end)

    def read_calls(self, begin: str, cursor: Cursor, out: Emitter, tools: tuple[Tool, ...]) -> Reading[None]:
        """See `ToolFormat`."""
        keys = JsonCallKeys(frozenset({self.name_key}), frozenset({self.arguments_key, "arguments", "parameters"}))
        while True:
            yield from skip_space(cursor)
            yield from read_calls_json(cursor, out, keys)
            while (yield from cursor.peek()) in (" ", "\n", "}"):  # a brace too many is forgiven
                yield from cursor.take()
            if (yield from cursor.end_marker(self.end)) or (yield from cursor.peek()) != "{":
                return

    def lark(
        self,
        tools: tuple[Tool, ...],
        *,
        parallel: bool,
        required: bool,
        special_ids: Mapping[str, int] = {},
    ) -> str:
        """See `ToolFormat`."""
        writer = GrammarWriter(special_ids)
        space = writer.optional(self.space)
        any_call = json_value({"anyOf": [self._schema(tool) for tool in tools]})
        body = writer.rule("call_body", f"{space} {any_call} {space} {writer.marker(self.end)}")
        return writer.calls(self.begins[0], body, space, parallel=parallel, required=required)

    def _schema(self, tool: Tool) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {self.name_key: {"const": tool.name}, self.arguments_key: parameters_of(tool)},
            "required": [self.name_key, self.arguments_key],
            "additionalProperties": False,
        }


HERMES = TaggedJson("hermes", ("<tool_call>",), "</tool_call>")
