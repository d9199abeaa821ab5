"""From token ids to text: the exact bytes of each token, and a decoder that puts them together as they come."""

from __future__ import annotations

import codecs
from typing import Any, Protocol

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
        self._bytes: list[bytes] | None = None
        if isinstance(detokenizer, BPEStreamingDetokenizer):
            self._bytes = _byte_level_bytes(tokenizer)
        elif isinstance(detokenizer, SPMStreamingDetokenizer):
            self._bytes = _sentencepiece_bytes(tokenizer)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def is_special(self, token_id: int) -> bool:
        """Whether a token is control only, and no part of any text."""
        return token_id in self._special_ids

    def bytes_of(self, token_id: int) -> bytes:
        """The UTF-8 bytes that a token stands for; it may be a part of a character."""
        if self._bytes is None:
            text: str = self._tokenizer.decode([token_id])
            return text.encode()
        return self._bytes[token_id] if token_id < len(self._bytes) else b""

    def decoder(self) -> TokenDecoder:
        """A decoder for one answer."""
        return _LibraryDecoder(self._tokenizer) if self._bytes is None else _ByteDecoder(self)


class _ByteDecoder:
    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token_id: int) -> str:
        return "" if self._vocabulary.is_special(token_id) else self._utf8.decode(self._vocabulary.bytes_of(token_id))

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


def _byte_level_bytes(tokenizer: TokenizerWrapper) -> list[bytes]:
    """Byte-level BPE spells every byte as one printable character; added tokens are spelled as they are."""
    decoder = _byte_by_character()
    added = _added_tokens(tokenizer)
    spelled = []
    for token_id, token in enumerate(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))):
        if token is None:
            spelled.append(b"")
        elif token_id in added:
            spelled.append(token.encode())
        else:
            spelled.append(b"".join(decoder.get(c, c.encode()) for c in token))
    return spelled


def _sentencepiece_bytes(tokenizer: TokenizerWrapper) -> list[bytes]:
    """SentencePiece spells a space as U+2581 and a lone byte as <0xNN>."""
    added = _added_tokens(tokenizer)
    spelled = []
    for token_id, token in enumerate(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))):
        if token is None:
            spelled.append(b"")
        elif token_id in added:
            spelled.append(token.encode())
        elif len(token) == 6 and token.startswith("<0x"):
            spelled.append(bytes([int(token[3:5], 16)]))
        else:
            spelled.append(token.replace(_SPM_SPACE, " ").encode())
    return spelled


def _added_tokens(tokenizer: TokenizerWrapper) -> dict[int, Any]:
    added: dict[int, Any] = tokenizer.added_tokens_decoder
    return added


def _byte_by_character() -> dict[str, bytes]:
    """The table of byte-level BPE (Radford et al. 2019): printable bytes as they are, the others from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {chr(byte): bytes([byte]) for byte in printable}
    others = [byte for byte in range(256) if byte not in printable]
    table.update({chr(256 + index): bytes([byte]) for index, byte in enumerate(others)})
    return table
