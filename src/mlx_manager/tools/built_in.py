"""The MCP servers that ship. They answer inside this process, through the same client as all others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from mcp.server import Server
from mcp.types import CallToolRequestParams, CallToolResult, ListToolsResult, TextContent, Tool

from mlx_manager.tools.calculator import calculate
from mlx_manager.tools.weather import get_weather

_TOOLS: Mapping[str, tuple[str, Callable[..., str], Tool]] = MappingProxyType(
    {
        "calculator": (
            "calculate",
            calculate,
            Tool(
                name="calculate",
                description="Calculate an arithmetic expression, for example (2 + 3) * sqrt(16).",
                input_schema={
                    "type": "object",
                    "properties": {"expression": {"type": "string"}},
                    "required": ["expression"],
                },
            ),
        ),
        "weather": (
            "get_weather",
            get_weather,
            Tool(
                name="get_weather",
                description="Get the weather of a city: its average temperature in a month, by default in this one.",
                input_schema={
                    "type": "object",
                    "properties": {
                        "city": {"type": "string"},
                        "month": {"type": "string", "description": "Its English name."},
                    },
                    "required": ["city"],
                },
            ),
        ),
    }
)


def build_server(name: str) -> Server[Any]:
    """The server `name`, which is one of `catalog.BUILT_IN_TOOL_SERVERS`."""
    tool_name, function, tool = _TOOLS[name]
    taken = tool.input_schema["properties"]

    async def list_tools(*_: object) -> ListToolsResult:
        return ListToolsResult(tools=[tool])

    async def call_tool(_: object, asked: CallToolRequestParams) -> CallToolResult:
        arguments = asked.arguments or {}
        is_known = asked.name == tool_name and set(tool.input_schema["required"]) <= set(arguments) <= set(taken)
        if not is_known or not all(isinstance(value, str) for value in arguments.values()):
            return _reply(f"{tool_name} takes the texts {', '.join(taken)}.", is_error=True)
        try:
            return _reply(function(**arguments))
        except ValueError as error:
            return _reply(str(error), is_error=True)

    return Server(name, on_list_tools=list_tools, on_call_tool=call_tool)


def _reply(text: str, *, is_error: bool = False) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=text)], is_error=is_error)
