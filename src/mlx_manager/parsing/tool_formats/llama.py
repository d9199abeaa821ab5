"""Llama 3: one JSON object, bare or after `<|python_tag|>`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mlx_manager.ir import Tool
from mlx_manager.parsing.cursor import Cursor, Reading
from mlx_manager.parsing.emitter import Emitter
from mlx_manager.parsing.grammar import GrammarWriter
from mlx_manager.parsing.json_text import skip_space
from mlx_manager.parsing.style import Call, ToolFormat
from mlx_manager.parsing.tool_formats.json_calls import JsonCallKeys, any_name, read_call_json

_PYTHON_TAG = "<|python_tag|>"


@dataclass(frozen=True)
class LlamaCalls(ToolFormat):
    """`{"name": …, "parameters": {…}}`. Bare objects are calls only of tools that exist: any other is the answer."""

    name: ClassVar[str] = "llama3"
    begins: tuple[str, ...] = (_PYTHON_TAG,)
    begins_bare: ClassVar[str] = "{"

    def read_calls(self, begin: str, cursor: Cursor, out: Emitter, tools: tuple[Tool, ...]) -> Reading[None]:
        """See `ToolFormat`."""
        names = frozenset(tool.name for tool in tools)
        while True:
            yield from skip_space(cursor)
            yield from read_call_json(cursor, out, JsonCallKeys(), any_name if begin else names.__contains__)
            yield from cursor.skip_whitespace()
            if not (yield from cursor.literal(";")):
                return
            yield from cursor.skip_whitespace()
            if (yield from cursor.peek()) != "{":
                return

    def spell(self, calls: Sequence[Call]) -> str:
        """See `ToolFormat`."""
        spelled = [{"name": name, "parameters": arguments} for name, arguments in calls]
        return "; ".join(json.dumps(call, ensure_ascii=False) for call in spelled)

    def write_calls(self, writer: GrammarWriter, tools: tuple[Tool, ...], *, parallel: bool, required: bool) -> str:
        """See `ToolFormat`. The bare form, which the templates ask for."""
        call = writer.call_object(tools, "name", "parameters")
        calls = writer.several(call, '";" " "?', parallel=parallel)
        if required:
            return calls
        writer.rule("TEXT", r"/([^{ \n\t](?s:.*))?/")
        return f"TEXT | {calls}"


LLAMA3 = LlamaCalls()
