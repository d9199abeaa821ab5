"""The tools of a request to /v1/responses and whether they are to be called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from mlx_manager.errors import InvalidRequest, UnsupportedParameter
from mlx_manager.ir import Tool, ToolChoice, ToolChoiceMode
from mlx_manager.protocols.openai.responses.wire import ResponsesRequest, SentChoice, SentReferenceToTool, SentTool
from mlx_manager.protocols.openai.tools import add_tool, check_choice, parse_tool

_OFFERED = ("web_search", "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11")
"""Tools of the provider that agents offer beside their own in every request, whatever they are used for. They are left
out beside functions, because the model may do without them; alone, they are what the client wants."""


@dataclass(frozen=True)
class ToolNames:
    """What the functions of a request are called: flat for the model, in their namespace for the client."""

    origins: Mapping[str, tuple[str, str]]
    """By flat name, namespace and name of each function that is in a namespace."""

    def origin(self, flat: str) -> tuple[str | None, str]:
        """Namespace and name of a function that the model has called."""
        return self.origins.get(flat, (None, flat))


def flat_name(name: str, namespace: str | None) -> str:
    """The name under which the model knows a function."""
    return f"{namespace}__{name}" if namespace else name


def parse_response_tools(wire: ResponsesRequest) -> tuple[tuple[Tool, ...], ToolNames, tuple[str, ...]]:
    """The tools, their names, and the fields with tools that are left out.

    Raises `InvalidRequest`, and `UnsupportedParameter` for tools that are no functions.
    """
    tools: dict[str, Tool] = {}
    origins: dict[str, tuple[str, str]] = {}
    left_out: list[tuple[str, str]] = []
    for index, sent in enumerate(wire.tools or ()):
        at = f"tools[{index}]"
        if sent.type in _OFFERED:
            left_out.append((at, sent.type))
        elif sent.type == "namespace":
            _add_namespace(sent, at, tools, origins)
        else:
            add_tool(tools, _parse_function(sent, at), at)
    if left_out and not tools:
        raise _unsupported(*left_out[0])
    return tuple(tools.values()), ToolNames(origins), tuple(at for at, _ in left_out)


def parse_response_choice(wire: ResponsesRequest, tools: tuple[Tool, ...]) -> ToolChoice:
    """Whether to call tools, and which. Raises `InvalidRequest`, and `UnsupportedParameter` for tools that are none."""
    sent = wire.tool_choice
    if sent is None or isinstance(sent, str):
        choice = ToolChoice(mode=ToolChoiceMode(sent or "auto"))
    elif sent.type == "function":
        choice = ToolChoice(mode=ToolChoiceMode.REQUIRED, names=(_named(sent, "tool_choice"),))
    elif sent.type == "allowed_tools":
        if sent.mode is None or sent.tools is None:
            raise InvalidRequest(
                "tool_choice.mode and tool_choice.tools are required with the type allowed_tools.",
                param="tool_choice.mode" if sent.mode is None else "tool_choice.tools",
            )
        names = [_named(tool, f"tool_choice.tools[{index}]") for index, tool in enumerate(sent.tools)]
        choice = ToolChoice(mode=ToolChoiceMode(sent.mode), names=tuple(names))
    else:
        raise UnsupportedParameter(
            f"tool_choice is of type {sent.type[:40]!r}, which is not supported: name a function.",
            param="tool_choice.type",
        )
    check_choice(choice, tools, "tool_choice")
    return choice


def names_one_tool(wire: ResponsesRequest) -> bool:
    """Whether one function is named, which OpenAI's models then call exactly once."""
    return isinstance(wire.tool_choice, SentChoice) and wire.tool_choice.type == "function"


def _add_namespace(sent: SentTool, at: str, tools: dict[str, Tool], origins: dict[str, tuple[str, str]]) -> None:
    """The functions of a namespace, each under a flat name and with what is said about all of them."""
    if not sent.name:
        raise InvalidRequest(f"{at}.name is required, and is not in the request.", param=f"{at}.name")
    for index, nested in enumerate(sent.tools or ()):
        at_nested = f"{at}.tools[{index}]"
        tool = _parse_function(nested, at_nested)
        flat = flat_name(tool.name, sent.name)
        description = "\n\n".join(text for text in (sent.description, tool.description) if text)
        add_tool(tools, replace(tool, name=flat, description=description), at_nested)
        origins[flat] = (sent.name, tool.name)


def _parse_function(sent: SentTool, at: str) -> Tool:
    if sent.type != "function":
        raise _unsupported(at, sent.type)
    if not sent.name:
        raise InvalidRequest(f"{at}.name is required, and is not in the request.", param=f"{at}.name")
    return parse_tool(sent, at)


def _named(sent: SentChoice | SentReferenceToTool, at: str) -> str:
    if sent.type != "function":
        raise UnsupportedParameter(
            f"{at} is of type {sent.type[:40]!r}, which is not supported: name a function.", param=f"{at}.type"
        )
    if not sent.name:
        raise InvalidRequest(f"{at}.name is required with the type function.", param=f"{at}.name")
    return flat_name(sent.name, sent.namespace)


def _unsupported(at: str, kind: str) -> UnsupportedParameter:
    return UnsupportedParameter(
        f"{at} is of type {kind[:40]!r}, which is not supported: send tools of type function.", param=f"{at}.type"
    )
