"""Requests for the tokens of a prompt and for the text of tokens, by the model's own tokenizer and template."""

from __future__ import annotations

import msgspec

from mlx_manager.ir.request import Prompt


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True, tag="tokenize"):
    """A prompt whose tokens are asked for: a chat is rendered with the model's template first. Answered by `Tokens`."""

    request_id: str
    model: str
    prompt: Prompt
    add_special_tokens: bool = True
    """Of a raw text: put those that the tokenizer begins and ends a text with. A chat has its template's."""
    wants_token_texts: bool = False
    wants_count_only: bool = False
    """Of the answer nothing but the number is looked at; a provider may tell that."""


class DetokenizeRequest(msgspec.Struct, frozen=True, kw_only=True, tag="detokenize"):
    """Tokens whose text is asked for. Answered by `Tokens`."""

    request_id: str
    model: str
    token_ids: tuple[int, ...]


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """Token ids and the text that they spell."""

    token_ids: tuple[int, ...]
    text: str
    """Special tokens are spelled in it; of a chat, it is the rendered prompt."""
    token_texts: tuple[str, ...] = ()
    """Of each token, where asked for; what is part of a character is U+FFFD."""
    max_context: int | None = None
    """Tokens that the model takes at most; None where nobody knows."""
    num_counted: int | None = None
    """How many there are, of a backend that tells no more than that."""

    @property
    def num_tokens(self) -> int:
        """How many there are."""
        return len(self.token_ids) if self.num_counted is None else self.num_counted
