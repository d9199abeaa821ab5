"""Answers requests for tokens and for their text, with one model's tokenizer and chat template; nothing is computed."""

from __future__ import annotations

from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_manager.errors import InvalidRequest
from mlx_manager.ir import DetokenizeRequest, TextPrompt, TokenizeRequest, Tokens
from mlx_manager.models.prompt import PromptBuilder


class Tokenizing:
    """What a model makes of prompts and of token ids. `max_context` is only passed on."""

    def __init__(
        self, tokenizer: TokenizerWrapper, prompts: PromptBuilder, *, vocabulary_size: int, max_context: int
    ) -> None:
        self._tokenizer = tokenizer
        self._prompts = prompts
        self._vocabulary_size = vocabulary_size
        self._max_context = max_context

    def answer(self, request: TokenizeRequest | DetokenizeRequest) -> Tokens:
        """The tokens and their text. Raises `InvalidRequest`, and what `PromptBuilder.build` raises."""
        if isinstance(request, DetokenizeRequest):
            self._check(request.token_ids)
            return self._tokens(request.token_ids, self._spell(request.token_ids))
        prompt = request.prompt
        if isinstance(prompt, TextPrompt):
            encoded = self._tokenizer.encode(prompt.text, add_special_tokens=request.add_special_tokens)
            token_ids, text = tuple(encoded), prompt.text
        else:
            built = self._prompts.build(prompt)
            token_ids, text = built.token_ids, built.text or self._spell(built.token_ids)
        texts = tuple(self._spell((token_id,)) for token_id in token_ids) if request.wants_token_texts else ()
        return self._tokens(token_ids, text, texts)

    def encode(self, text: str) -> tuple[int, ...]:
        """The tokens of a piece of a text, nothing added."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def _tokens(self, token_ids: tuple[int, ...], text: str, token_texts: tuple[str, ...] = ()) -> Tokens:
        return Tokens(token_ids=token_ids, text=text, token_texts=token_texts, max_context=self._max_context)

    def _spell(self, token_ids: tuple[int, ...]) -> str:
        return str(self._tokenizer.decode(list(token_ids), clean_up_tokenization_spaces=False))

    def _check(self, token_ids: tuple[int, ...]) -> None:
        for token_id in token_ids:
            if not 0 <= token_id < self._vocabulary_size:
                raise InvalidRequest(
                    f"token {token_id} is not in the model's vocabulary of {self._vocabulary_size}", param="tokens"
                )
