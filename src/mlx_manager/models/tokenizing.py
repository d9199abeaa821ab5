"""Answers requests for tokens and for their text, with one model's tokenizer and chat template; nothing is computed."""

from __future__ import annotations

from collections.abc import Callable

from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_manager.errors import InvalidRequest
from mlx_manager.ir import DetokenizeRequest, TokenizeRequest, TokenPrompt, Tokens
from mlx_manager.models.encoding import always
from mlx_manager.models.prompt import PromptBuilder, PromptText

_NUM_MOST_TOKENS = 500_000
"""More are counted where the context is larger. A token takes up to 400 bytes while a text is encoded."""


class Tokenizing:
    """What a model makes of prompts and of token ids. `max_context` is only passed on."""

    def __init__(
        self, tokenizer: TokenizerWrapper, prompts: PromptBuilder, *, vocabulary_size: int, max_context: int
    ) -> None:
        self._tokenizer = tokenizer
        self._prompts = prompts
        self._vocabulary_size = vocabulary_size
        self._max_context = max_context
        self._num_most = max(_NUM_MOST_TOKENS, 2 * max_context)

    def answer(self, request: TokenizeRequest | DetokenizeRequest) -> Tokens:
        """The tokens and their text. Raises `InvalidRequest`, and what `PromptBuilder.build` raises."""
        if isinstance(request, DetokenizeRequest):
            self._check(request.token_ids)
            return self._tokens(request.token_ids, self._spell(request.token_ids))
        if isinstance(request.prompt, TokenPrompt):
            built = self._prompts.build(request.prompt, self._num_most)
            return self._of_ids(built.token_ids, self._spell(built.token_ids), request)
        return self.encoded(self._prompts.render(request.prompt), request)

    def encoded(self, rendered: PromptText, request: TokenizeRequest, is_wanted: Callable[[], bool] = always) -> Tokens:
        """The tokens of a rendered prompt, in any thread. Raises what `PromptBuilder.encode` raises."""
        adds = request.add_special_tokens and not rendered.is_chat
        token_ids = self._prompts.token_ids(rendered, self._num_most, is_wanted, add_special_tokens=adds)
        return self._of_ids(token_ids, rendered.text, request)

    def encode(self, text: str) -> tuple[int, ...]:
        """The tokens of a piece of a text, nothing added."""
        return self._prompts.encoder.encode(text, add_special_tokens=False)

    def _of_ids(self, token_ids: tuple[int, ...], text: str, request: TokenizeRequest) -> Tokens:
        texts = tuple(self._spell((token_id,)) for token_id in token_ids) if request.wants_token_texts else ()
        return self._tokens(token_ids, text, texts)

    def _tokens(self, token_ids: tuple[int, ...], text: str, token_texts: tuple[str, ...] = ()) -> Tokens:
        return Tokens(token_ids=token_ids, text=text, token_texts=token_texts, max_context=self._max_context)

    def _spell(self, token_ids: tuple[int, ...]) -> str:
        return str(self._tokenizer.decode(list(token_ids), clean_up_tokenization_spaces=False))

    def _check(self, token_ids: tuple[int, ...]) -> None:
        if len(token_ids) > self._num_most:
            raise InvalidRequest(f"there are more than {self._num_most} tokens; send less at once", param="tokens")
        for token_id in token_ids:
            if not 0 <= token_id < self._vocabulary_size:
                raise InvalidRequest(
                    f"token {token_id} is not in the model's vocabulary of {self._vocabulary_size}", param="tokens"
                )
