"""The tools of a request and whether they are to be called, in the dialect's form of today and in the one before it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mlx_manager.errors import InvalidRequest, UnsupportedParameter
from mlx_manager.ir import Tool, ToolChoice, ToolChoiceMode
from mlx_manager.protocols.openai.wire import ChatRequest, FunctionDefinition, NamedToolChoice, ToolDefinition


def parse_tools(wire: ChatRequest) -> tuple[Tool, ...]:
    """The tools of a request. Raises `InvalidRequest`, `UnsupportedParameter` for tools that are no functions."""
    if wire.tools and wire.functions:
        raise InvalidRequest("functions and tools exclude each other: send tools.", param="functions")
    if wire.functions:
        found = [(definition, f"functions[{index}]") for index, definition in enumerate(wire.functions)]
    else:
        found = [_function_of(tool, f"tools[{index}]") for index, tool in enumerate(wire.tools or ())]
    tools: dict[str, Tool] = {}
    for definition, at in found:
        add_tool(tools, parse_tool(definition, at), at)
    return tuple(tools.values())


def add_tool(tools: dict[str, Tool], tool: Tool, at: str) -> None:
    """Add a tool to those before it, which are kept by their names. Raises `InvalidRequest` for a name of theirs."""
    if tool.name in tools:
        raise InvalidRequest(
            f"{at}.name {tool.name!r} is the name of a tool before it: every tool needs its own.", param=f"{at}.name"
        )
    tools[tool.name] = tool


def parse_tool_choice(wire: ChatRequest, tools: Sequence[Tool]) -> ToolChoice:
    """Whether to call tools, and which. Raises `InvalidRequest` for a choice that the tools do not allow."""
    if wire.functions or (wire.function_call is not None and wire.tool_choice is None):
        choice, param = _of_function_call(wire), "function_call"
    else:
        choice, param = _of_tool_choice(wire.tool_choice), "tool_choice"
    check_choice(choice, tools, param)
    if choice.mode is ToolChoiceMode.REQUIRED and (wire.continue_final_message or wire.add_generation_prompt is False):
        raise InvalidRequest(
            f"{param} asks for a tool call, which cannot go on with a message: leave one of them out.", param=param
        )
    return choice


def names_one_tool(wire: ChatRequest) -> bool:
    """Whether one function is named, which OpenAI's models then call exactly once."""
    return isinstance(wire.tool_choice, NamedToolChoice) and wire.tool_choice.type == "function"


def check_choice(choice: ToolChoice, tools: Sequence[Tool], param: str) -> None:
    """Raises `InvalidRequest` for a choice that the tools do not allow; `param` is where it was made."""
    known = [tool.name for tool in tools]
    for name in choice.names:
        if name not in known:
            raise InvalidRequest(
                f"{param} names the tool {name[:80]!r}, which is not among the tools ({', '.join(known) or 'none'}).",
                param=param,
            )
    if choice.mode is ToolChoiceMode.REQUIRED and not known:
        raise InvalidRequest(f"{param} asks for a tool call, and there are no tools: send some.", param=param)


def _function_of(tool: ToolDefinition, at: str) -> tuple[FunctionDefinition, str]:
    if tool.type != "function":
        raise UnsupportedParameter(
            f"{at} is of type {tool.type[:40]!r}, which is not supported: send tools of type function.",
            param=f"{at}.type",
        )
    if tool.function is None:
        raise InvalidRequest(f"{at}.function is required, and is not in the request.", param=f"{at}.function")
    return tool.function, f"{at}.function"


def parse_tool(definition: FunctionDefinition, at: str) -> Tool:
    """One function as a tool. Raises `InvalidRequest` for parameters that are no object's."""
    parameters = definition.parameters
    if not parameters:
        return Tool(name=definition.name, description=definition.description or "", strict=bool(definition.strict))
    if parameters.get("type", "object") != "object":
        raise InvalidRequest(
            f"{at}.parameters.type cannot be {str(parameters['type'])[:40]!r}: arguments are an object.",
            param=f"{at}.parameters.type",
        )
    return Tool(
        name=definition.name,
        description=definition.description or "",
        parameters=json.dumps(parameters, ensure_ascii=False),
        strict=bool(definition.strict),
    )


def _of_tool_choice(sent: str | NamedToolChoice | None) -> ToolChoice:
    if sent is None or isinstance(sent, str):
        return ToolChoice(mode=ToolChoiceMode(sent or "auto"))
    if sent.type == "function":
        if sent.function is None:
            raise InvalidRequest(
                "tool_choice.function is required with the type function: send its name.", param="tool_choice.function"
            )
        return ToolChoice(mode=ToolChoiceMode.REQUIRED, names=(sent.function.name,))
    if sent.allowed_tools is None:
        raise InvalidRequest(
            "tool_choice.allowed_tools is required with the type allowed_tools: send its mode and tools.",
            param="tool_choice.allowed_tools",
        )
    names = tuple(reference.function.name for reference in sent.allowed_tools.tools)
    return ToolChoice(mode=ToolChoiceMode(sent.allowed_tools.mode), names=names)


def _of_function_call(wire: ChatRequest) -> ToolChoice:
    if wire.tool_choice is not None:
        raise InvalidRequest("tool_choice belongs to tools: send function_call with functions.", param="tool_choice")
    if wire.function_call is None or isinstance(wire.function_call, str):
        return ToolChoice(mode=ToolChoiceMode(wire.function_call or "auto"))
    return ToolChoice(mode=ToolChoiceMode.REQUIRED, names=(wire.function_call.name,))
