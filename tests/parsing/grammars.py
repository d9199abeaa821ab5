"""Grammars of the formats, compiled by llguidance for the starter model's tokenizer, and walked at random."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from tokenizers import AddedToken, Tokenizer

from mlx_manager.ir import Tool
from mlx_manager.models.gguf_file import read_header
from mlx_manager.models.gguf_tokenizer import convert_tokenizer
from mlx_manager.parsing import AnswerStyle

_EOS = "<|im_end|>"
_NUM_FREE_TOKENS = 30
_NUM_MOST_TOKENS = 400


class Vocabulary:
    """A tokenizer with or without the markers of the formats as tokens of their own."""

    def __init__(self, gguf: Path, markers: tuple[str, ...]) -> None:
        header = read_header(gguf)
        self.tokenizer: Tokenizer = convert_tokenizer(header.metadata, num_embeddings=49152).tokenizer
        self.tokenizer.add_tokens([AddedToken(marker, normalized=False) for marker in markers])
        ids = {marker: self.tokenizer.token_to_id(marker) for marker in markers}
        self.special_ids: Mapping[str, int] = {marker: token_id for marker, token_id in ids.items() if token_id}
        self.size = self.tokenizer.get_vocab_size()
        self.eos_id = int(self.tokenizer.token_to_id(_EOS) or 0)
        self._trie = LLTokenizer(self.tokenizer.to_str(), n_vocab=self.size, eos_token=[self.eos_id])

    def special_ids_of(self, style: AnswerStyle) -> dict[str, int]:
        """The ids of those markers of `style` that are tokens."""
        return {marker: self.special_ids[marker] for marker in style.markers if marker in self.special_ids}

    def matcher(self, style: AnswerStyle, tools: tuple[Tool, ...], form: str = "", **more: bool) -> LLMatcher:
        """A matcher of whole answers in `style`."""
        options = {"parallel": True, "required": True} | more
        lark = style.lark(tools, special_ids=self.special_ids_of(style), form=form, **options)
        matcher = LLMatcher(self._trie, LLMatcher.grammar_from_lark(lark), log_level=0)
        assert not matcher.is_error(), f"{matcher.get_error()}\n{lark}"
        return matcher

    def accepts(self, matcher: LLMatcher, answer: str) -> bool:
        """Whether the grammar allows `answer` as a whole."""
        ids = self._encode(answer)
        fresh = matcher.deep_copy()
        return fresh.validate_tokens(ids) == len(ids) and bool(fresh.consume_tokens(ids) and fresh.is_accepting())

    def walk(self, matcher: LLMatcher, hints: Sequence[str], ends: Sequence[str], seed: int) -> str:
        """An answer that the grammar allows, drawn at random; after some tokens from `ends`, so that it ends."""
        drawn = random.Random(seed)
        encoded = [self._encode(hint) for hint in hints]
        closing = [self._encode(end) for end in ends]
        walked, ids = matcher.deep_copy(), list[int]()
        bits = allocate_token_bitmask(1, self.size)
        while len(ids) < _NUM_MOST_TOKENS and not walked.is_stopped():
            if walked.is_accepting() and len(ids) > _NUM_FREE_TOKENS // 2:
                break
            is_late = len(ids) >= _NUM_FREE_TOKENS
            possible = self._allowed(walked, closing) if is_late and drawn.random() < 0.8 else []
            possible = possible or self._allowed(walked, encoded)
            if possible and (is_late or drawn.random() < 0.7):
                chosen = drawn.choice(possible)
            else:
                fill_next_token_bitmask(walked, bits)
                allowed = np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little")[: self.size])
                choices = [each for each in allowed.tolist() if each != self.eos_id]
                if not choices:
                    break
                chosen = [drawn.choice(choices)]
            assert walked.consume_tokens(chosen)
            ids += chosen
        answer = str(self.tokenizer.decode(ids, skip_special_tokens=False))
        assert walked.is_accepting(), answer
        return answer

    def _allowed(self, matcher: LLMatcher, several: list[list[int]]) -> list[list[int]]:
        return [each for each in several if matcher.validate_tokens(each) == len(each)]

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)
