"""A tokenizer from the metadata of a GGUF file, as `tokenizers` runs it; byte-level BPE is split as the file says.

The regular expressions are facts of the vocabularies they come with; llama.cpp keys them by `tokenizer.ggml.pre`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from mlx_manager.errors import InvalidRequest
from mlx_manager.models.gguf_file import MetadataValue
from mlx_manager.models.gguf_sentencepiece import build_sentencepiece, spell_pieces

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS_AND_REST = r"[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _CONTRACTIONS + "|" + _WORDS_AND_REST.replace("DIGITS", r"\p{N}{1,3}")
_QWEN2 = _CONTRACTIONS + "|" + _WORDS_AND_REST.replace("DIGITS", r"\p{N}")


@dataclass(frozen=True)
class _Split:
    """How text falls into pieces before the merges. Each pattern divides the pieces of the one before."""

    patterns: tuple[str, ...]
    ignores_merges: bool = False
    """A piece that is a token as a whole is that token, whatever the merges would make of it."""
    adds_bos: bool = False
    """Whether a text begins with the bos token where the file does not say."""


_SPLITS: Mapping[str, _Split] = {
    "gpt-2": _Split((_GPT2,)),
    "smollm": _Split((r"\p{N}", _GPT2)),
    "llama-bpe": _Split((_LLAMA3,), ignores_merges=True, adds_bos=True),
    "qwen2": _Split((_QWEN2,)),
    "default": _Split((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
}
_ALIASES = {
    "gpt2": "gpt-2",
    "starcoder": "smollm",
    "refact": "smollm",
    "command-r": "smollm",
    "llama3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "deepseek-r1-qwen": "qwen2",
}
_CONTROL, _USER_DEFINED = 3, 4
_ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


@dataclass(frozen=True)
class ConvertedTokenizer:
    """A tokenizer and the files' contents that go with it."""

    tokenizer: Tokenizer
    config: dict[str, object]
    """tokenizer_config.json."""
    special_ids: dict[str, int]
    """Of bos, eos, unk and pad, those the file names."""
    end_ids: tuple[int, ...]
    """Tokens that end an answer, the eos token first."""


def convert_tokenizer(metadata: Mapping[str, MetadataValue], num_embeddings: int) -> ConvertedTokenizer:
    """The tokenizer that `metadata` describes. Raises `InvalidRequest` naming what is not supported or missing."""
    kind = metadata.get("tokenizer.ggml.model")
    tokens = _texts(metadata, "tokenizer.ggml.tokens")
    if len(set(tokens)) != len(tokens) or len(tokens) > num_embeddings:
        raise InvalidRequest(
            f"The vocabulary of this file is damaged: {len(tokens)} tokens, {len(set(tokens))} of them different, for "
            f"{num_embeddings} embeddings."
        )
    types = _types(metadata, len(tokens))
    if kind == "gpt2":
        split = _split_of(metadata)
        tokenizer, adds_bos = _byte_level(tokens, _texts(metadata, "tokenizer.ggml.merges"), split), split.adds_bos
    elif kind == "llama":
        tokens = spell_pieces(tokens, types)
        tokenizer, adds_bos = build_sentencepiece(tokens, _scores(metadata), types, metadata), True
    else:
        raise InvalidRequest(
            f"The tokenizer of this file is of the kind {kind!r} (tokenizer.ggml.model); only byte-level BPE ('gpt2') "
            "and SentencePiece ('llama') are supported. Use the model's own safetensors folder instead."
        )
    _add_tokens(tokenizer, types, tokens)
    special_ids = _special_ids(metadata, len(tokens))
    _add_template(tokenizer, metadata, special_ids, tokens, adds_bos=adds_bos)
    end_ids = _end_ids(metadata, special_ids, len(tokens))
    return ConvertedTokenizer(tokenizer, _config(metadata, special_ids, tokens), special_ids, end_ids)


def _byte_level(tokens: list[str], merges: list[str], split: _Split) -> Tokenizer:
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=_parse_merges(merges),
            ignore_merges=split.ignores_merges,
        )
    )
    steps: list[pre_tokenizers.PreTokenizer] = [
        pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in split.patterns
    ]
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _split_of(metadata: Mapping[str, MetadataValue]) -> _Split:
    name = metadata.get("tokenizer.ggml.pre")
    if name is None:
        raise InvalidRequest(
            "This file does not say how its tokenizer splits text (tokenizer.ggml.pre is missing): it was made by an "
            "old converter. Use a newer GGUF of the model."
        )
    found = _SPLITS.get(_ALIASES.get(str(name), str(name)))
    if found is None:
        raise InvalidRequest(
            f"The pre-tokenizer {name!r} of this file (tokenizer.ggml.pre) is not known here; known are "
            f"{', '.join(sorted([*_SPLITS, *_ALIASES]))}. Use the model's own safetensors folder instead."
        )
    return found


def _parse_merges(merges: list[str]) -> list[tuple[str, str]]:
    pairs = []
    for merge in merges:
        # The halves are byte-level text, which holds no space: the first one divides them.
        left, space, right = merge.partition(" ")
        if not (left and space and right):
            raise InvalidRequest(f"The vocabulary of this file is damaged: {merge!r} is not a merge of two tokens.")
        pairs.append((left, right))
    return pairs


def _types(metadata: Mapping[str, MetadataValue], num_tokens: int) -> list[int]:
    types = metadata.get("tokenizer.ggml.token_type", [])
    if not isinstance(types, list) or len(types) not in (0, num_tokens):
        raise InvalidRequest("The vocabulary of this file is damaged: it has not one type for each token.")
    return [kind if isinstance(kind, int) else 1 for kind in types]


def _scores(metadata: Mapping[str, MetadataValue]) -> list[float]:
    scores = metadata.get("tokenizer.ggml.scores", [])
    values = scores if isinstance(scores, list) else []
    return [float(score) for score in values if isinstance(score, int | float)]


def _add_tokens(tokenizer: Tokenizer, types: list[int], tokens: list[str]) -> None:
    """Make the control and the user-defined tokens whole pieces that no merge and no split touches."""
    added = [
        AddedToken(token, special=kind == _CONTROL, normalized=False)
        for token, kind in zip(tokens, types, strict=False)
        if kind in (_CONTROL, _USER_DEFINED) and token
    ]
    tokenizer.add_tokens(added)


def _special_ids(metadata: Mapping[str, MetadataValue], num_tokens: int) -> dict[str, int]:
    ids = {}
    for role, key in _ROLES.items():
        token_id = _token_id(metadata, f"tokenizer.ggml.{key}_token_id", num_tokens)
        if token_id is not None:
            ids[role] = token_id
    return ids


def _end_ids(metadata: Mapping[str, MetadataValue], special_ids: Mapping[str, int], num_tokens: int) -> tuple[int, ...]:
    ids = [special_ids["eos"]] if "eos" in special_ids else []
    for role in ("eot", "eom"):
        token_id = _token_id(metadata, f"tokenizer.ggml.{role}_token_id", num_tokens)
        if token_id is not None and token_id not in ids:
            ids.append(token_id)
    return tuple(ids)


def _token_id(metadata: Mapping[str, MetadataValue], key: str, num_tokens: int) -> int | None:
    token_id = metadata.get(key)
    if token_id is None:
        return None
    if not isinstance(token_id, int) or not 0 <= token_id < num_tokens:
        raise InvalidRequest(f"This file is damaged: {key} is {token_id!r}, outside its vocabulary of {num_tokens}.")
    return token_id


def _add_template(
    tokenizer: Tokenizer,
    metadata: Mapping[str, MetadataValue],
    special_ids: Mapping[str, int],
    tokens: list[str],
    *,
    adds_bos: bool,
) -> None:
    """Begin (and end) a text with bos (and eos) where the file asks for it."""
    before = bool(metadata.get("tokenizer.ggml.add_bos_token", adds_bos)) and "bos" in special_ids
    after = bool(metadata.get("tokenizer.ggml.add_eos_token", False)) and "eos" in special_ids
    wanted = [role for role, is_wanted in (("bos", before), ("eos", after)) if is_wanted]
    if not wanted:
        return
    names = {role: tokens[special_ids[role]] for role in wanted}
    single = [*([names["bos"]] if before else []), "$A", *([names["eos"]] if after else [])]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[(names[role], special_ids[role]) for role in wanted]
    )


def _config(
    metadata: Mapping[str, MetadataValue], special_ids: Mapping[str, int], tokens: list[str]
) -> dict[str, object]:
    config: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
        **{f"{role}_token": tokens[token_id] for role, token_id in special_ids.items()},
    }
    context = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    if context is not None:
        config["model_max_length"] = context
    template = metadata.get("tokenizer.chat_template")
    if template is not None:
        config["chat_template"] = template
    return config


def _texts(metadata: Mapping[str, MetadataValue], key: str) -> list[str]:
    values = metadata.get(key)
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise InvalidRequest(f"This file holds no tokenizer: {key} is missing. Use a complete GGUF of the model.")
    return [str(value) for value in values]
