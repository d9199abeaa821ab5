"""A model's own chat template, with what it refuses or leaves out made up for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_manager.catalog import LoadOptions
from mlx_manager.errors import InvalidRequest
from mlx_manager.ir import ChatPrompt, Message, Role, TextContent, Tool, ToolChoiceMode
from mlx_manager.models.families import Family
from mlx_manager.models.plain_tools import as_plain_result, calls_as_text, without_tool_roles
from mlx_manager.models.template_traits import Message as TemplateMessage
from mlx_manager.models.template_traits import TemplateTraits, find_traits, in_form
from mlx_manager.models.time_bound import time_bound
from mlx_manager.models.turns import in_turns, with_plain_lone_results, with_somebody_asking, with_system
from mlx_manager.parsing import ToolFormat
from mlx_manager.parsing.tool_formats import HERMES

_SYSTEM_WITH_TOOLS = "You are a helpful assistant with some tools."
"""Where a template wants tools in a system message and the conversation has none."""


class ChatTemplate:
    """Renders conversations for one model."""

    def __init__(
        self, tokenizer: TokenizerWrapper, family: Family, *, timeout_s: float = LoadOptions().template_timeout_s
    ) -> None:
        self._tokenizer = tokenizer
        self._family = family
        self._timeout_s = timeout_s
        self._text = template_text(tokenizer)

    @cached_property
    def traits(self) -> TemplateTraits:
        """What the template takes and shows."""
        return find_traits(lambda messages, tools: self._apply(messages, tools, {}))

    @property
    def tools(self) -> ToolFormat | None:
        """How calls are written under this template; None where the family does not say."""
        family = self._family
        if self.traits.shows_tools or family.tools_prompt or family.style is not None:
            return family.tools
        return HERMES

    @property
    def is_tool_form_known(self) -> bool:
        """Whether the prompt tells the model to write calls in a form that is known here."""
        return self._family.style is not None or self.tools is not None

    def render(self, prompt: ChatPrompt) -> str:
        """The text of the whole prompt.

        Raises one of `template_traits.REFUSALS` where the template refuses it, and `InvalidRequest` where it takes too
        long.
        """
        messages = [_as_template_message(message, self._family) for message in _joined_instructions(prompt.messages)]
        is_none = prompt.tool_choice.mode is ToolChoiceMode.NONE
        tools = [] if is_none else [_as_template_tool(tool) for tool in prompt.tools if not tool.is_deferred]
        messages, tools = self._with_calls(with_somebody_asking(messages, self.traits), tools)
        return self._apply(
            in_turns(with_system(messages, self.traits), self.traits),
            tools,
            self._variables(prompt),
            continue_final_message=prompt.continue_final_message,
        )

    def _apply(
        self,
        messages: Sequence[TemplateMessage],
        tools: Sequence[TemplateMessage],
        variables: dict[str, Any],
        *,
        continue_final_message: bool = False,
    ) -> str:
        variable = self._family.tools_variable
        if tools and not variable:
            messages = _with_tools_in_system(messages, tools)
        elif tools and variable != "tools":
            variables = {variable: list(tools)} | variables
        too_slow = InvalidRequest(
            f"the model's chat template computes for more than {self._timeout_s:g} s (setting template_timeout)",
            param="messages",
        )
        with time_bound(self._timeout_s, too_slow):
            rendered = self._tokenizer.apply_chat_template(
                list(messages),
                tokenize=False,
                add_generation_prompt=not continue_final_message,
                continue_final_message=continue_final_message,
                tools=list(tools) or None,
                **variables,
            )
        return str(rendered)

    def _variables(self, prompt: ChatPrompt) -> dict[str, Any]:
        """What the template is told beside the messages; the client's own variables come last."""
        today = datetime.now().astimezone()
        variables: dict[str, Any] = {
            name: today.strftime(form) for name, form in self._family.dates.items() if name in self._text
        }
        is_enabled = prompt.thinking.is_enabled
        if is_enabled is not None:
            # always the usual variable: mlx-lm fills it in otherwise
            variables["enable_thinking"] = is_enabled
            for switch in self._family.thinking:
                if switch.variable in self._text:
                    variables[switch.variable] = switch.on if is_enabled else switch.off
        if prompt.thinking.effort not in (None, "none"):
            variables["reasoning_effort"] = prompt.thinking.effort
        return variables | prompt.template_kwargs

    def _with_calls(
        self, messages: list[TemplateMessage], tools: list[TemplateMessage]
    ) -> tuple[list[TemplateMessage], list[TemplateMessage]]:
        """Tools, calls and results in a way that the template shows."""
        traits, family = self.traits, self._family
        if not traits.shows_tools and not family.tools_prompt:
            return without_tool_roles(messages, tools), []
        if not traits.shows_tools and tools:
            messages, tools = _with_instructions(messages, _described(tools, family)), []
        if tools and traits.needs_system_for_tools and (not messages or messages[0]["role"] != "system"):
            messages = [{"role": "system", "content": ""}, *messages]
        if traits.needs_descriptions:
            tools = [_with_descriptions(tool) for tool in tools]
        if traits.calls is None:
            messages = [calls_as_text(message, family.tools or HERMES) for message in messages]
        else:
            messages = messages if traits.shows_several_calls else _one_call_each(messages)
            messages = in_form(messages, traits.calls)
        messages = with_plain_lone_results(messages, traits)
        if not traits.shows_results:
            messages = [as_plain_result(message) for message in messages]
        return messages, tools


def template_text(tokenizer: TokenizerWrapper) -> str:
    """The chat template's own text, all of them where there are several; empty where there is none to be read."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        return "\n".join(str(each) for each in template.values())
    return template if isinstance(template, str) else ""


def _joined_instructions(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The system messages at the beginning as one, because most templates look for no second."""
    num_leading = next((i for i, message in enumerate(messages) if message.role is not Role.SYSTEM), len(messages))
    if num_leading < 2:
        return messages
    text = "\n\n".join(message.text for message in messages[:num_leading])
    return (Message(role=Role.SYSTEM, content=(TextContent(text),)), *messages[num_leading:])


def _as_template_message(message: Message, family: Family) -> TemplateMessage:
    content = f"Error: {message.text}" if message.is_error else message.text
    rendered: TemplateMessage = {"role": message.role.value, "content": content}
    if message.name is not None:
        rendered["name"] = message.name
    if message.reasoning:
        rendered[family.reasoning_key] = message.reasoning
    if message.tool_calls:
        rendered["tool_calls"] = [
            {
                "id": call.call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.loads(call.arguments)},
            }
            for call in message.tool_calls
        ]
        if family.style is not None and message.reasoning and message.text:
            # before a call there is room for one of the two, and the text is shown as reasoning too
            rendered |= {"content": "", family.reasoning_key: f"{message.reasoning}\n\n{message.text}"}
    if message.tool_call_id is not None:
        rendered["tool_call_id"] = message.tool_call_id
    return rendered


def _as_template_tool(tool: Tool) -> TemplateMessage:
    description = {"description": tool.description} if tool.description else {}
    function = {"name": tool.name, **description, "parameters": json.loads(tool.parameters)}
    return {"type": "function", "function": function}


def _with_instructions(messages: list[TemplateMessage], text: str) -> list[TemplateMessage]:
    if messages and messages[0]["role"] == "system":
        return [messages[0] | {"content": f"{messages[0]['content']}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _described(tools: Sequence[TemplateMessage], family: Family) -> str:
    descriptions = [
        family.tool_prompt.format(
            name=tool["function"]["name"],
            description=tool["function"].get("description", ""),
            parameters=json.dumps(tool["function"]["parameters"], ensure_ascii=False),
            function=json.dumps(tool["function"], ensure_ascii=False),
        )
        for tool in tools
    ]
    return family.tools_prompt.replace("{tools}", "\n\n".join(descriptions))


def _with_descriptions(tool: TemplateMessage) -> TemplateMessage:
    function = tool["function"]
    schema = function["parameters"]
    properties = {
        key: {"description": "", **value} if isinstance(value, dict) else value
        for key, value in schema.get("properties", {}).items()
    }
    return tool | {"function": {"description": "", **function, "parameters": schema | {"properties": properties}}}


def _one_call_each(messages: Sequence[TemplateMessage]) -> list[TemplateMessage]:
    """Every call in a message of its own, with its result behind it."""
    results = {message.get("tool_call_id"): message for message in messages if message["role"] == "tool"}
    split: list[TemplateMessage] = []
    placed: set[str] = set()
    for message in messages:
        calls = message.get("tool_calls", [])
        if message["role"] == "tool" and message.get("tool_call_id") in placed:
            continue
        if len(calls) < 2:
            split.append(message)
            continue
        for index, call in enumerate(calls):
            split.append((message if index == 0 else {"role": "assistant", "content": ""}) | {"tool_calls": [call]})
            if call["id"] in results:
                split.append(results[call["id"]])
                placed.add(call["id"])
    return split


def _with_tools_in_system(
    messages: Sequence[TemplateMessage], tools: Sequence[TemplateMessage]
) -> list[TemplateMessage]:
    text = json.dumps([tool["function"] for tool in tools], ensure_ascii=False)
    if messages and messages[0]["role"] == "system":
        return [messages[0] | {"tools": text}, *messages[1:]]
    return [{"role": "system", "content": _SYSTEM_WITH_TOOLS, "tools": text}, *messages]
