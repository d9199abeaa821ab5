"""Encodes texts with one model's tokenizer in any thread, and finds out early that one is too long."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError

from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import Tokenizer

_NUM_PIECE_CHARACTERS = 65_536
_PROBE = "The quick 狐 jumps\n\tover 12 dogs."


def always() -> bool:
    """For texts that are wanted in any case."""
    return True


class TextEncoder:
    """What `tokenizer.encode` gives, from any thread.

    A tokenizer of the `tokenizers` library is asked in the way that lets other threads run meanwhile and keeps neither
    offsets nor masks: a quarter of the time and a fraction of the memory.
    """

    def __init__(self, tokenizer: TokenizerWrapper) -> None:
        self._tokenizer = tokenizer
        self._backend = _backend_of(tokenizer)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> tuple[int, ...]:
        """The tokens of `text`."""
        if self._backend is None or self._backend.truncation is not None or self._backend.padding is not None:
            # an embedding model's tokenizer cuts off from one call on until it is called like this
            return tuple(self._tokenizer.encode(text, add_special_tokens=add_special_tokens))
        return _encode(self._backend, text, add_special_tokens=add_special_tokens)

    def head(self, text: str, num_tokens: int, is_wanted: Callable[[], bool] = always) -> str:
        """The beginning of `text` that surely has more than `num_tokens` tokens; all of it where that is not sure.

        Piece by piece, so that a text that is far too long costs no more than what is returned of it. Pieces have
        slightly more tokens than the whole, so a text is counted to a quarter above the bound.
        Raises `CancelledError` before the first piece for which `is_wanted` says no.
        """
        num_enough = num_tokens + num_tokens // 4 + 1024
        num_found = 0
        for start in range(0, len(text), _NUM_PIECE_CHARACTERS):
            end = start + _NUM_PIECE_CHARACTERS
            if end >= len(text):
                # nothing is left to be saved
                break
            if not is_wanted():
                raise CancelledError
            num_found += len(self.encode(text[start:end], add_special_tokens=False))
            if num_found > num_enough:
                return text[:end]
        return text


def _backend_of(tokenizer: TokenizerWrapper) -> Tokenizer | None:
    """The fast tokenizer inside, where it alone makes the tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        return None
    for adds in (True, False):
        # it also switches off padding and cutting off, which a tokenizer's file may switch on
        if tuple(tokenizer.encode(_PROBE, add_special_tokens=adds)) != _encode(
            backend, _PROBE, add_special_tokens=adds
        ):
            return None
    return backend


def _encode(backend: Tokenizer, text: str, *, add_special_tokens: bool) -> tuple[int, ...]:
    (encoding,) = backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)
    return tuple(encoding.ids)
