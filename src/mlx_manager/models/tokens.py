"""From token ids to text: the exact bytes of each token, and a decoder that puts them together as they come."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Protocol

from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer, SPMStreamingDetokenizer, TokenizerWrapper

_SPM_SPACE = "▁"


class TokenDecoder(Protocol):
    """Turns the tokens of one answer into text, each as soon as its characters are complete."""

    def add(self, token_id: int) -> str:
        """Take a token and return the text that became complete; often empty inside a multi-byte character."""
        ...

    def flush(self) -> str:
        """The answer has ended: return what was held back, incomplete characters as U+FFFD."""
        ...


class Vocabulary:
    """What the tokens of one tokenizer spell.

    Byte-level BPE and SentencePiece tokenizers are decoded from the bytes of each token, so that nothing is trimmed and
    nothing waits; any other kind goes through the tokenizer's own `decode`.
    """

    def __init__(self, tokenizer: TokenizerWrapper) -> None:
        self._tokenizer = tokenizer
        self._special_ids = frozenset(tokenizer.all_special_ids)
        detokenizer = tokenizer.detokenizer
        self._added_ids = frozenset(tokenizer.added_tokens_decoder)
        self._spell: Callable[[str], bytes] | None = None
        if isinstance(detokenizer, BPEStreamingDetokenizer):
            self._spell = _ByteLevel().spell
        elif isinstance(detokenizer, SPMStreamingDetokenizer):
            self._spell = _spell_sentencepiece
        # Spelled when first asked for: all at once would take a sixth of a second of every load.
        self._bytes: list[bytes | None] = [None] * len(tokenizer)

    def __len__(self) -> int:
        return len(self._bytes)

    def is_special(self, token_id: int) -> bool:
        """Whether a token is control only, and no part of any text."""
        return token_id in self._special_ids

    def bytes_of(self, token_id: int) -> bytes:
        """The UTF-8 bytes that a token stands for; it may be a part of a character."""
        if self._spell is None:
            text: str = self._tokenizer.decode([token_id])
            return text.encode()
        if token_id >= len(self._bytes):
            return b""
        spelled = self._bytes[token_id]
        if spelled is None:
            spelled = self._bytes[token_id] = self._spelled(token_id, self._spell)
        return spelled

    def decoder(self, spelled_ids: frozenset[int] = frozenset()) -> TokenDecoder:
        """A decoder for one answer. Special tokens have no text in it, but for those in `spelled_ids`."""
        return _LibraryDecoder(self._tokenizer) if self._spell is None else _ByteDecoder(self, spelled_ids)

    def _spelled(self, token_id: int, spell: Callable[[str], bytes]) -> bytes:
        token: str | None = self._tokenizer.convert_ids_to_tokens(token_id)
        if token is None:
            return b""
        # Added tokens are spelled as they are.
        return token.encode() if token_id in self._added_ids else spell(token)


class _ByteDecoder:
    def __init__(self, vocabulary: Vocabulary, spelled_ids: frozenset[int]) -> None:
        self._vocabulary = vocabulary
        self._spelled_ids = spelled_ids
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token_id: int) -> str:
        if self._vocabulary.is_special(token_id) and token_id not in self._spelled_ids:
            return ""
        return self._utf8.decode(self._vocabulary.bytes_of(token_id))

    def flush(self) -> str:
        return self._utf8.decode(b"", final=True)


class _LibraryDecoder:
    def __init__(self, tokenizer: TokenizerWrapper) -> None:
        self._detokenizer = tokenizer.detokenizer

    def add(self, token_id: int) -> str:
        self._detokenizer.add_token(token_id)
        segment: str = self._detokenizer.last_segment
        return segment

    def flush(self) -> str:
        self._detokenizer.finalize()
        segment: str = self._detokenizer.last_segment
        return segment


class _ByteLevel:
    """Byte-level BPE spells every byte as one printable character."""

    def __init__(self) -> None:
        self._byte_by_character = _byte_by_character()

    def spell(self, token: str) -> bytes:
        return b"".join(self._byte_by_character.get(c, c.encode()) for c in token)


def _spell_sentencepiece(token: str) -> bytes:
    """SentencePiece spells a space as U+2581 and a lone byte as <0xNN>."""
    if len(token) == 6 and token.startswith("<0x"):
        return bytes([int(token[3:5], 16)])
    return token.replace(_SPM_SPACE, " ").encode()


def _byte_by_character() -> dict[str, bytes]:
    """The table of byte-level BPE (Radford et al. 2019): printable bytes as they are, the others from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {chr(byte): bytes([byte]) for byte in printable}
    others = [byte for byte in range(256) if byte not in printable]
    table.update({chr(256 + index): bytes([byte]) for index, byte in enumerate(others)})
    return table
