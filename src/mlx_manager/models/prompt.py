"""From a request's prompt to token ids, with the model's own chat template."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass

from mlx_lm.tokenizer_utils import TokenizerWrapper
from msgspec.structs import replace

from mlx_manager.errors import ContextLengthExceeded, InvalidRequest, UnsupportedParameter
from mlx_manager.ir import ChatPrompt, Prompt, TextContent, TextPrompt, TokenPrompt
from mlx_manager.models.chat_template import ChatTemplate
from mlx_manager.models.encoding import TextEncoder, always
from mlx_manager.models.template_traits import REFUSALS

_MARK = "mlxmanagerplaceholder"
"""Stands for the text of a message. A plain word, so that no template trims it or reads anything into it."""


@dataclass(frozen=True)
class BuiltPrompt:
    """A prompt as the model gets it. `text` is that of a chat, rendered; of any other prompt it is empty."""

    token_ids: tuple[int, ...]
    text: str = ""


@dataclass(frozen=True)
class PromptText:
    """A prompt as text, to be encoded. The special tokens of a chat are spelled in it."""

    text: str
    is_chat: bool


class PromptBuilder:
    """Renders and tokenizes prompts for one model. Encoding may happen in any thread."""

    def __init__(self, tokenizer: TokenizerWrapper, template: ChatTemplate, vocabulary_size: int) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._vocabulary_size = vocabulary_size
        self.encoder = TextEncoder(tokenizer)

    def build(self, prompt: Prompt, num_most: int | None = None) -> BuiltPrompt:
        """The tokens of `prompt`.

        Raises `InvalidRequest` when it has none, when a token is none of the model's, or when the template refuses the
        conversation; `UnsupportedParameter` for a chat with a model that has no template; `ContextLengthExceeded` for
        one that surely has more than `num_most` tokens.
        """
        if isinstance(prompt, TokenPrompt):
            return self._take(prompt.token_ids, num_most)
        return self.encode(self.render(prompt), num_most)

    def render(self, prompt: ChatPrompt | TextPrompt) -> PromptText:
        """The text of `prompt`. Raises what `build` does about it."""
        if isinstance(prompt, TextPrompt):
            return PromptText(prompt.text, is_chat=False)
        return PromptText(self._render_chat(prompt), is_chat=True)

    def encode(
        self, rendered: PromptText, num_most: int | None = None, is_wanted: Callable[[], bool] = always
    ) -> BuiltPrompt:
        """The tokens of a text. Raises what `build` does about it, and `CancelledError` once it `is_wanted` no more."""
        # A template spells the special tokens itself, begin-of-sequence included.
        token_ids = self.token_ids(rendered, num_most, is_wanted, add_special_tokens=not rendered.is_chat)
        return _checked(BuiltPrompt(token_ids, rendered.text if rendered.is_chat else ""))

    def token_ids(
        self, rendered: PromptText, num_most: int | None, is_wanted: Callable[[], bool], *, add_special_tokens: bool
    ) -> tuple[int, ...]:
        """The tokens of a text, which may be none. Raises what `encode` does about its length."""
        if num_most is not None:
            self._check_length(rendered, num_most, is_wanted)
        if not is_wanted():
            raise CancelledError
        return self.encoder.encode(rendered.text, add_special_tokens=add_special_tokens)

    def check_length(self, prompt: ChatPrompt, num_most: int) -> None:
        """Raise `ContextLengthExceeded` where the messages surely have more than `num_most` tokens."""
        self._check_length(PromptText("\n".join(message.text for message in prompt.messages), is_chat=True), num_most)

    def num_template_tokens(self, prompt: Prompt, token_ids: tuple[int, ...]) -> int:
        """How many of the leading `token_ids` of `prompt` are not its own text.

        Of a chat, what the template writes before the text of the first message: marks, dates, a system text of its
        own, tools. Of a raw text, the special tokens before it. 0 for a template that cannot be asked.
        """
        match prompt:
            case ChatPrompt():
                leading = self._template_tokens(prompt)
            case TextPrompt():
                leading = self.encoder.encode("")
            case TokenPrompt():
                leading = ()
        pairs = zip(leading, token_ids, strict=False)
        return next(
            (index for index, (one, other) in enumerate(pairs) if one != other), min(len(leading), len(token_ids))
        )

    def _template_tokens(self, prompt: ChatPrompt) -> tuple[int, ...]:
        marked = tuple(
            replace(message, content=(TextContent(_MARK),)) if message.content else message
            for message in prompt.messages
        )
        try:
            text = self._template.render(replace(prompt, messages=marked))
        except (*REFUSALS, InvalidRequest):
            return ()
        return self.encoder.encode(text.partition(_MARK)[0], add_special_tokens=False)

    def _render_chat(self, prompt: ChatPrompt) -> str:
        if any(message.visuals for message in prompt.messages):
            raise UnsupportedParameter(
                "this model does not see: leave images and videos out, or ask a vision model", param="messages"
            )
        if not self._tokenizer.has_chat_template:
            raise UnsupportedParameter(
                "this model has no chat template; use /v1/completions with a prompt instead", param="messages"
            )
        try:
            return self._template.render(prompt)
        except REFUSALS as error:
            raise InvalidRequest(
                f"the model's chat template refuses the messages: {error}", param="messages"
            ) from error

    def check_vocabulary(self, built: BuiltPrompt) -> None:
        """Raise `InvalidRequest` where the tokenizer made a token that the model does not have."""
        highest = max(built.token_ids)
        if highest >= self._vocabulary_size:
            raise InvalidRequest(
                f"the tokenizer makes token {highest} of this prompt, and the model has {self._vocabulary_size} tokens",
                param="prompt" if not built.text else "messages",
            )

    def _check_length(self, rendered: PromptText, num_most: int, is_wanted: Callable[[], bool] = always) -> None:
        if len(self.encoder.head(rendered.text, num_most, is_wanted)) < len(rendered.text):
            raise _too_long(num_most, "messages" if rendered.is_chat else "prompt")

    def _take(self, token_ids: tuple[int, ...], num_most: int | None) -> BuiltPrompt:
        if num_most is not None and len(token_ids) > num_most:
            raise _too_long(num_most, "prompt")
        for token_id in token_ids:
            if not 0 <= token_id < self._vocabulary_size:
                raise InvalidRequest(
                    f"token {token_id} is not in the model's vocabulary of {self._vocabulary_size}", param="prompt"
                )
        return _checked(BuiltPrompt(token_ids))


def _checked(built: BuiltPrompt) -> BuiltPrompt:
    if not built.token_ids:
        raise InvalidRequest("the prompt holds no tokens; send at least one", param="prompt")
    return built


def _too_long(num_most: int, param: str) -> ContextLengthExceeded:
    return ContextLengthExceeded(
        f"the prompt has more than {num_most} tokens, which is the most that is taken; shorten the prompt", param=param
    )
