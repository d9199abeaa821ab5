"""The tools of a request: which the model knows from the start, which it is told of later, and whether to call them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mlx_manager.errors import InvalidRequest, UnsupportedParameter
from mlx_manager.ir import Tool, ToolChoice, ToolChoiceMode
from mlx_manager.protocols.anthropic.cache_marks import parse_ttl
from mlx_manager.protocols.anthropic.wire import PromptFields, SentToolChoice, ToolDefinition

_SEARCH_PREFIX = "tool_search_tool_"
"""The provider's search among tools whose loading is deferred. Without it there is nothing to defer them for."""


class ToolShelf:
    """The tools of one request while its messages are read, which may load tools that were deferred.

    Raises `InvalidRequest` for tools that cannot be meant, `UnsupportedParameter` for those that the provider runs.
    """

    def __init__(self, sent: Sequence[ToolDefinition]) -> None:
        self._tools: dict[str, Tool] = {}
        self._deferred: dict[str, Tool] = {}
        self._loaded: dict[str, Tool] = {}
        is_searched = any((definition.type or "").startswith(_SEARCH_PREFIX) for definition in sent)
        for index, definition in enumerate(sent):
            if not (definition.type or "").startswith(_SEARCH_PREFIX):
                is_deferred = bool(definition.defer_loading) and not is_searched
                self._put(definition, f"tools[{index}]", is_deferred=is_deferred)

    @property
    def tools(self) -> tuple[Tool, ...]:
        """Those that may be called: the ones known from the start, then the loaded ones."""
        return (*self._tools.values(), *self._loaded.values())

    def load(self, name: str, at: str) -> str:
        """Load a deferred tool from here on; what the model is to be told of it. Nothing for one it knows already."""
        if name in self._tools:
            return ""
        tool = self._deferred.get(name)
        if tool is None:
            known = ", ".join((*self._tools, *self._deferred)) or "none"
            raise InvalidRequest(
                f"{at} names the tool {name[:80]!r}, which is not among the tools ({known}).", param=at
            )
        self._loaded[name] = tool
        function = {"name": tool.name, "description": tool.description, "parameters": json.loads(tool.parameters)}
        return json.dumps({"type": "function", "function": function}, ensure_ascii=False)

    def define(self, definition: ToolDefinition, at: str) -> str:
        """Add a tool from here on; what the model is to be told of it."""
        self._put(definition, at, is_deferred=True)
        return self.load(str(definition.name), at)

    def remove(self, name: str) -> None:
        """Take a tool away."""
        for shelf in (self._tools, self._deferred, self._loaded):
            shelf.pop(name, None)

    def _put(self, definition: ToolDefinition, at: str, *, is_deferred: bool) -> None:
        tool = _parse_tool(definition, at, is_deferred=is_deferred)
        if tool.name in self._tools or tool.name in self._deferred:
            raise InvalidRequest(
                f"{at}.name {tool.name!r} is the name of a tool before it: every tool needs its own.",
                param=f"{at}.name",
            )
        (self._deferred if is_deferred else self._tools)[tool.name] = tool


def parse_tool_choice(sent: SentToolChoice | None, tools: Sequence[Tool]) -> ToolChoice:
    """Whether to call tools, and which. Raises `InvalidRequest` for a choice that the tools do not allow."""
    if sent is None or sent.type == "auto":
        return ToolChoice()
    if sent.type == "none":
        return ToolChoice(mode=ToolChoiceMode.NONE)
    known = ", ".join(tool.name for tool in tools) or "none"
    if sent.type == "any":
        if not tools:
            raise InvalidRequest("tool_choice asks for a tool call, and there are no tools.", param="tool_choice")
        return ToolChoice(mode=ToolChoiceMode.REQUIRED)
    if sent.name is None or not any(tool.name == sent.name for tool in tools):
        asked = "is required with the type tool" if sent.name is None else f"cannot be {sent.name[:80]!r}"
        raise InvalidRequest(
            f"tool_choice.name {asked}: name one of the tools (there: {known}).", param="tool_choice.name"
        )
    return ToolChoice(mode=ToolChoiceMode.REQUIRED, names=(sent.name,))


def streams_arguments(wire: PromptFields) -> bool:
    """Whether the arguments of calls may go out while they are being written.

    A call that turns out to be none cannot be taken back in this dialect. So arguments wait for their end, unless calls
    are enforced token by token, or the client has asked for its tools' arguments eagerly.
    """
    if wire.tool_choice is not None and wire.tool_choice.type in ("any", "tool"):
        return True
    tools = wire.tools or ()
    return bool(tools) and all(tool.strict or tool.eager_input_streaming for tool in tools)


def _parse_tool(definition: ToolDefinition, at: str, *, is_deferred: bool) -> Tool:
    if definition.type not in (None, "custom"):
        raise UnsupportedParameter(
            f"{at} is of type {str(definition.type)[:40]!r}, which is the provider's own and not supported: leave it "
            "out, or describe a tool of your own with an input_schema.",
            param=f"{at}.type",
        )
    for name in ("name", "input_schema"):
        if getattr(definition, name) is None:
            raise InvalidRequest(f"{at}.{name} is required, and is not in the request.", param=f"{at}.{name}")
    schema = definition.input_schema or {}
    if schema.get("type", "object") != "object":
        raise InvalidRequest(
            f"{at}.input_schema.type cannot be {str(schema['type'])[:40]!r}: the input of a tool is an object.",
            param=f"{at}.input_schema.type",
        )
    parameters = schema or {"type": "object", "properties": {}}
    return Tool(
        name=str(definition.name),
        description=definition.description or "",
        parameters=json.dumps(parameters, ensure_ascii=False),
        strict=bool(definition.strict),
        is_deferred=is_deferred,
        cache_ttl=parse_ttl(definition.cache_control),
    )
