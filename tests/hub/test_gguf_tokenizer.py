"""The converted tokenizer gives the token ids that llama.cpp's rules give, and gives the text back."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import regex  # type: ignore[import-untyped]
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from mlx_manager.models.gguf_file import GgufHeader, read_header
from mlx_manager.models.gguf_tokenizer import convert_tokenizer
from tests.hub.gguf_writer import TOKENS, tiny_llama

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

TEXTS = {
    "plain": "The quick brown fox jumps over the lazy dog.",
    "contractions": "It's what we'd said they're DOING, isn't it? I'LL see.",
    "digits": "In 1984 there were 1,234,567.89 of 3x4 items; call 0049-30-12345.",
    "digits after spaces": "a 1 12  123   1234",
    "other numerals": "Ⅷ and ² and ½ and ٣٤٥ and 一二三",
    "spaces": "  two before,   three within, trailing   ",
    "lines and tabs": "one\n\n\ttwo\r\n   \n three\t\t4\n",
    "code": "def f(x):\n    return {'a': x**2, \"b\": [1, 2]}  # done\n",
    "german": "Größenwahn für 50 €, Straße „zu“ – ach!",
    "chinese and japanese": "你好，世界！今日は2月29日です。",
    "arabic, hebrew, hindi": "مرحبا بالعالم שלום עולם नमस्ते दुनिया",
    "emoji": "👩‍👩‍👧‍👦 says 🙂🙂 and 🇫🇷!",
    "combining": "e\u0301 versus é, n\u0303o",
    "special tokens": "<|im_start|>user\nHi 42<|im_end|>\n<|im_start|>assistant\n",
    "almost special": "<|im_start |> <im_end> <|endoftext|><|endoftext|>x",
    "empty": "",
}


@pytest.fixture(scope="module")
def plain_tokenizer(starter_gguf: Path) -> PlainTokenizer:
    """Of the starter model's file."""
    return PlainTokenizer(read_header(starter_gguf))


@pytest.fixture(scope="module")
def starter_tokenizer(starter_folder: Path) -> Tokenizer:
    """As it lies in the converted folder."""
    return Tokenizer.from_file(str(starter_folder / "tokenizer.json"))


@pytest.mark.parametrize("kind", TEXTS)
def test_token_ids_are_those_of_the_rules(
    plain_tokenizer: PlainTokenizer, starter_tokenizer: Tokenizer, kind: str
) -> None:
    text = TEXTS[kind]
    found = starter_tokenizer.encode(text, add_special_tokens=False).ids
    assert found == plain_tokenizer.encode(text)
    assert starter_tokenizer.decode(found, skip_special_tokens=False) == text


def test_each_digit_is_a_token(starter_tokenizer: Tokenizer) -> None:
    assert starter_tokenizer.encode("2026", add_special_tokens=False).tokens == ["2", "0", "2", "6"]


def test_transformers_loads_the_folder_with_its_template(starter_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(starter_folder)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (1, 2, 0)
    assert tokenizer.model_max_length == 8192
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi 42"}], add_generation_prompt=True, tokenize=False
    )
    assert prompt.startswith("<|im_start|>system\n")
    assert prompt.endswith("<|im_start|>user\nHi 42<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.encode("Hi")[0] != tokenizer.bos_token_id
    assert tokenizer.decode(tokenizer.encode("<|im_end|>Hi"), skip_special_tokens=True) == "Hi"


def test_special_tokens_and_bos_come_from_the_metadata() -> None:
    made = convert_tokenizer(tiny_llama().metadata, len(TOKENS))
    assert made.tokenizer.encode("hello<tool>he").tokens == ["<|start|>", "hello", "<tool>", "he"]
    assert made.tokenizer.decode([1, 2, 0, TOKENS.index("hello")], skip_special_tokens=True) == "<tool>hello"
    assert (made.end_ids, made.special_ids) == ((0,), {"bos": 1, "eos": 0})
    assert made.config["chat_template"] == tiny_llama().metadata["tokenizer.chat_template"]


def test_a_second_end_token_ends_answers_too() -> None:
    metadata = tiny_llama().metadata | {"tokenizer.ggml.eot_token_id": 2}
    assert convert_tokenizer(metadata, len(TOKENS)).end_ids == (0, 2)


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("gpt-2", "a 1234", ["a", "Ġ1234"]),
        ("smollm", "a 1234", ["a", "Ġ", "1", "2", "3", "4"]),
        ("qwen2", "a 1234", ["a", "Ġ", "1", "2", "3", "4"]),
        ("llama-bpe", "a 1234", ["a", "Ġ", "123", "4"]),
        ("llama3", "I'LL\n\nsay", ["I", "'LL", "ĊĊ", "say"]),
        ("gpt-2", "I'LL\n\nsay", ["I", "'", "LL", "Ċ", "Ċ", "say"]),
        ("default", "a+b 12345", ["a", "+", "b", "Ġ", "123", "45"]),
    ],
)
def test_text_is_split_as_the_file_says(pre: str, text: str, pieces: list[str]) -> None:
    metadata = tiny_llama().metadata | {"tokenizer.ggml.pre": pre, "tokenizer.ggml.add_bos_token": False}
    splitter = convert_tokenizer(metadata, len(TOKENS)).tokenizer.pre_tokenizer
    assert splitter is not None
    assert [piece for piece, _ in splitter.pre_tokenize_str(text)] == pieces


class PlainTokenizer:
    """llama.cpp's rules for this file, the plain way: special tokens, then digits, words, and merges by rank."""

    def __init__(self, header: GgufHeader) -> None:
        tokens, merges, types = (header.metadata[f"tokenizer.ggml.{key}"] for key in ("tokens", "merges", "token_type"))
        assert isinstance(tokens, list)
        assert isinstance(merges, list)
        assert isinstance(types, list)
        self.vocabulary = {str(token): index for index, token in enumerate(tokens)}
        self.ranks = {tuple(str(merge).split(" ")): rank for rank, merge in enumerate(merges)}
        self.special = [str(token) for token, kind in zip(tokens, types, strict=True) if kind == 3]

    def encode(self, text: str) -> list[int]:
        """The token ids of `text`."""
        ids = []
        for part in regex.split("(" + "|".join(map(regex.escape, self.special)) + ")", text):
            if part in self.special:
                ids.append(self.vocabulary[part])
                continue
            for piece in _isolate(r"\p{N}", [part]):
                for word in _isolate(GPT2, [piece]):
                    letters = [_BYTE_LETTERS[byte] for byte in word.encode()]
                    ids += [self.vocabulary[token] for token in self._merge(letters)]
        return ids

    def _merge(self, letters: list[str]) -> list[str]:
        never = len(self.ranks)
        while len(letters) > 1:
            rank, at = min((self.ranks.get(pair, never), at) for at, pair in enumerate(itertools.pairwise(letters)))
            if rank == never:
                break
            letters = [*letters[:at], letters[at] + letters[at + 1], *letters[at + 2 :]]
        return letters


def _isolate(pattern: str, pieces: list[str]) -> list[str]:
    found = []
    for piece in pieces:
        end = 0
        for match in regex.finditer(pattern, piece):
            found += [piece[end : match.start()], match[0]]
            end = match.end()
        found.append(piece[end:])
    return [piece for piece in found if piece]


def _byte_letters() -> dict[int, str]:
    """GPT-2's letters for bytes: itself where it prints, else the next letter from 256 on."""
    printing = {*range(33, 127), *range(161, 173), *range(174, 256)}
    letters, spare = {}, 256
    for byte in range(256):
        if byte in printing:
            letters[byte] = chr(byte)
        else:
            letters[byte] = chr(spare)
            spare += 1
    return letters


_BYTE_LETTERS = _byte_letters()
