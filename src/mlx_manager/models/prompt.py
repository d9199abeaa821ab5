"""From a request's prompt to token ids, with the model's own chat template."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_lm.tokenizer_utils import TokenizerWrapper
from msgspec.structs import replace

from mlx_manager.errors import InvalidRequest, UnsupportedParameter
from mlx_manager.ir import ChatPrompt, Prompt, TextContent, TextPrompt, TokenPrompt
from mlx_manager.models.chat_template import ChatTemplate
from mlx_manager.models.template_traits import REFUSALS

_MARK = "mlxmanagerplaceholder"
"""Stands for the text of a message. A plain word, so that no template trims it or reads anything into it."""


@dataclass(frozen=True)
class BuiltPrompt:
    """A prompt as the model gets it. `text` is that of a chat, rendered; of any other prompt it is empty."""

    token_ids: tuple[int, ...]
    text: str = ""


class PromptBuilder:
    """Renders and tokenizes prompts for one model."""

    def __init__(self, tokenizer: TokenizerWrapper, template: ChatTemplate, vocabulary_size: int) -> None:
        self._tokenizer = tokenizer
        self._template = template
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
            text = self._template.render(replace(prompt, messages=marked))
        except (*REFUSALS, InvalidRequest):
            return []
        return list(self._tokenizer.encode(text.partition(_MARK)[0], add_special_tokens=False))

    def _of_chat(self, prompt: ChatPrompt) -> BuiltPrompt:
        if any(message.visuals for message in prompt.messages):
            raise UnsupportedParameter(
                "this model does not see: leave images and videos out, or ask a vision model", param="messages"
            )
        if not self._tokenizer.has_chat_template:
            raise UnsupportedParameter(
                "this model has no chat template; use /v1/completions with a prompt instead", param="messages"
            )
        try:
            text = self._template.render(prompt)
        except REFUSALS as error:
            raise InvalidRequest(
                f"the model's chat template refuses the messages: {error}", param="messages"
            ) from error
        # The template spells the special tokens itself, begin-of-sequence included.
        return BuiltPrompt(tuple(self._tokenizer.encode(text, add_special_tokens=False)), text)

    def check_vocabulary(self, built: BuiltPrompt) -> None:
        """Raise `InvalidRequest` where the tokenizer made a token that the model does not have."""
        highest = max(built.token_ids)
        if highest >= self._vocabulary_size:
            raise InvalidRequest(
                f"the tokenizer makes token {highest} of this prompt, and the model has {self._vocabulary_size} tokens",
                param="prompt" if not built.text else "messages",
            )

    def _check(self, token_ids: tuple[int, ...]) -> None:
        for token_id in token_ids:
            if not 0 <= token_id < self._vocabulary_size:
                raise InvalidRequest(
                    f"token {token_id} is not in the model's vocabulary of {self._vocabulary_size}", param="prompt"
                )
