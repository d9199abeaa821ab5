"""From a request's prompt to token ids, with the model's own chat template."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from mlx_lm.tokenizer_utils import TokenizerWrapper
from msgspec.structs import replace

from mlx_manager.errors import InvalidRequest, UnsupportedParameter
from mlx_manager.ir import ChatPrompt, Message, Prompt, Role, TextContent, TextPrompt, TokenPrompt, Tool, ToolChoiceMode
from mlx_manager.models.plain_tools import without_tool_roles

_MARK = "mlxmanagerplaceholder"
"""Stands for the text of a message. A plain word, so that no template trims it or reads anything into it."""


@dataclass(frozen=True)
class BuiltPrompt:
    """A prompt as the model gets it. `text` is that of a chat, rendered; of any other prompt it is empty."""

    token_ids: tuple[int, ...]
    text: str = ""


class PromptBuilder:
    """Renders and tokenizes prompts for one model."""

    def __init__(self, tokenizer: TokenizerWrapper, vocabulary_size: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary_size = vocabulary_size

    def build(self, prompt: Prompt) -> BuiltPrompt:
        """The tokens of `prompt`.

        Raises `InvalidRequest` when it has none, when a token is none of the model's, or when the template refuses the
        conversation; `UnsupportedParameter` for a chat with a model that has no template.
        """
        match prompt:
            case ChatPrompt():
                built = self._of_chat(prompt)
            case TextPrompt(text=text):
                built = BuiltPrompt(tuple(self._tokenizer.encode(text)))
            case TokenPrompt(token_ids=token_ids):
                self._check(token_ids)
                built = BuiltPrompt(token_ids)
        if not built.token_ids:
            raise InvalidRequest("the prompt holds no tokens; send at least one", param="prompt")
        return built

    def num_template_tokens(self, prompt: Prompt, token_ids: tuple[int, ...]) -> int:
        """How many of the leading `token_ids` of `prompt` are not its own text.

        Of a chat, what the template writes before the text of the first message: marks, dates, a system text of its
        own, tools. Of a raw text, the special tokens before it. 0 for a template that cannot be asked.
        """
        match prompt:
            case ChatPrompt():
                leading = self._template_tokens(prompt)
            case TextPrompt():
                leading = self._tokenizer.encode("")
            case TokenPrompt():
                leading = []
        pairs = zip(leading, token_ids, strict=False)
        return next(
            (index for index, (one, other) in enumerate(pairs) if one != other), min(len(leading), len(token_ids))
        )

    def _template_tokens(self, prompt: ChatPrompt) -> list[int]:
        marked = tuple(
            replace(message, content=(TextContent(_MARK),)) if message.content else message
            for message in prompt.messages
        )
        try:
            text = self._render(replace(prompt, messages=marked))
        except (TemplateError, ValueError, TypeError):
            return []
        return list(self._tokenizer.encode(text.partition(_MARK)[0], add_special_tokens=False))

    def _of_chat(self, prompt: ChatPrompt) -> BuiltPrompt:
        if any(message.images for message in prompt.messages):
            raise UnsupportedParameter(
                "this model does not see: leave the images out, or ask a vision model", param="messages"
            )
        if not self._tokenizer.has_chat_template:
            raise UnsupportedParameter(
                "this model has no chat template; use /v1/completions with a prompt instead", param="messages"
            )
        try:
            text = self._render(prompt)
        except (TemplateError, ValueError, TypeError) as error:
            raise InvalidRequest(
                f"the model's chat template refuses the messages: {error}", param="messages"
            ) from error
        # The template spells the special tokens itself, begin-of-sequence included.
        return BuiltPrompt(tuple(self._tokenizer.encode(text, add_special_tokens=False)), text)

    def _render(self, prompt: ChatPrompt) -> str:
        messages = [_as_template_message(message) for message in _joined_instructions(prompt.messages)]
        is_none = prompt.tool_choice.mode is ToolChoiceMode.NONE
        tools = [] if is_none else [_as_template_tool(tool) for tool in prompt.tools]
        if not self._knows_tools(tools):
            messages, tools = without_tool_roles(messages, tools), []
        return str(
            self._tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=not prompt.continue_final_message,
                continue_final_message=prompt.continue_final_message,
                tools=tools or None,
                **_template_variables(prompt),
            )
        )

    def _knows_tools(self, tools: list[dict[str, Any]]) -> bool:
        template = self._tokenizer.chat_template
        if isinstance(template, dict):
            template = self._tokenizer.get_chat_template(None, tools or None)
        # A renderer of mlx-lm's own stands in for the template of models that need it; they know tools.
        return not isinstance(template, str) or "tools" in template

    def _check(self, token_ids: tuple[int, ...]) -> None:
        for token_id in token_ids:
            if not 0 <= token_id < self._vocabulary_size:
                raise InvalidRequest(
                    f"token {token_id} is not in the model's vocabulary of {self._vocabulary_size}", param="prompt"
                )


def _joined_instructions(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The system messages at the beginning as one, because most templates look for no second."""
    num_leading = next((i for i, message in enumerate(messages) if message.role is not Role.SYSTEM), len(messages))
    if num_leading < 2:
        return messages
    text = "\n\n".join(message.text for message in messages[:num_leading])
    return (Message(role=Role.SYSTEM, content=(TextContent(text),)), *messages[num_leading:])


def _template_variables(prompt: ChatPrompt) -> dict[str, Any]:
    """What the template is told beside the messages; the client's own variables come last."""
    variables: dict[str, Any] = {}
    if prompt.thinking.is_enabled is not None:
        variables["enable_thinking"] = prompt.thinking.is_enabled
    if prompt.thinking.effort is not None:
        variables["reasoning_effort"] = prompt.thinking.effort
    return variables | prompt.template_kwargs


def _as_template_message(message: Message) -> dict[str, Any]:
    rendered: dict[str, Any] = {"role": message.role.value, "content": message.text}
    if message.name is not None:
        rendered["name"] = message.name
    if message.reasoning:
        rendered["reasoning_content"] = message.reasoning
    if message.tool_calls:
        rendered["tool_calls"] = [
            {
                "id": call.call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.loads(call.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        rendered["tool_call_id"] = message.tool_call_id
    return rendered


def _as_template_tool(tool: Tool) -> dict[str, Any]:
    description = {"description": tool.description} if tool.description else {}
    function = {"name": tool.name, **description, "parameters": json.loads(tool.parameters)}
    return {"type": "function", "function": function}
