"""From a request's prompt to token ids, with the model's own chat template."""

from __future__ import annotations

from typing import Any

from jinja2 import TemplateError
from mlx_lm.tokenizer_utils import TokenizerWrapper
from msgspec.structs import replace

from mlx_manager.errors import InvalidRequest, UnsupportedParameter
from mlx_manager.ir import ChatPrompt, Message, Prompt, TextContent, TextPrompt, TokenPrompt

_MARK = "mlxmanagerplaceholder"
"""Stands for the text of a message. A plain word, so that no template trims it or reads anything into it."""


class PromptBuilder:
    """Renders and tokenizes prompts for one model."""

    def __init__(self, tokenizer: TokenizerWrapper, vocabulary_size: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary_size = vocabulary_size

    def token_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """The tokens of `prompt`.

        Raises `InvalidRequest` when it has none, when a token is none of the model's, or when the template refuses the
        conversation; `UnsupportedParameter` for a chat with a model that has no template.
        """
        match prompt:
            case ChatPrompt():
                token_ids = self._of_chat(prompt)
            case TextPrompt(text=text):
                token_ids = tuple(self._tokenizer.encode(text))
            case TokenPrompt(token_ids=token_ids):
                self._check(token_ids)
        if not token_ids:
            raise InvalidRequest("the prompt holds no tokens; send at least one", param="prompt")
        return token_ids

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

    def _of_chat(self, prompt: ChatPrompt) -> tuple[int, ...]:
        if not self._tokenizer.has_chat_template:
            raise UnsupportedParameter(
                "this model has no chat template; use /v1/completions with a prompt instead", param="messages"
            )
        try:
            text = self._render(prompt)
        except (TemplateError, ValueError) as error:
            raise InvalidRequest(
                f"the model's chat template refuses the messages: {error}", param="messages"
            ) from error
        # The template spells the special tokens itself, begin-of-sequence included.
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def _render(self, prompt: ChatPrompt) -> str:
        return str(
            self._tokenizer.apply_chat_template(
                [_as_template_message(message) for message in prompt.messages],
                tokenize=False,
                add_generation_prompt=not prompt.continue_final_message,
                continue_final_message=prompt.continue_final_message,
            )
        )

    def _check(self, token_ids: tuple[int, ...]) -> None:
        for token_id in token_ids:
            if not 0 <= token_id < self._vocabulary_size:
                raise InvalidRequest(
                    f"token {token_id} is not in the model's vocabulary of {self._vocabulary_size}", param="prompt"
                )


def _as_template_message(message: Message) -> dict[str, Any]:
    rendered: dict[str, Any] = {"role": message.role.value, "content": message.text}
    if message.name is not None:
        rendered["name"] = message.name
    return rendered
