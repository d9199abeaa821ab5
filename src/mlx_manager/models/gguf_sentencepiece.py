"""SentencePiece's BPE from the metadata of a GGUF file, which keeps its pieces and scores but not its merges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from mlx_manager.errors import InvalidRequest
from mlx_manager.models.gguf_file import MetadataValue

_SPACE = "▁"
_NORMAL, _USER_DEFINED = 1, 4


def spell_pieces(tokens: Sequence[str], types: Sequence[int]) -> list[str]:
    """The pieces as SentencePiece spells them: GGUF writes the spaces of user-defined ones as spaces."""
    kinds = types or [_NORMAL] * len(tokens)
    return [
        token.replace(" ", _SPACE) if kind == _USER_DEFINED else token
        for token, kind in zip(tokens, kinds, strict=True)
    ]


def build_sentencepiece(
    pieces: Sequence[str], scores: Sequence[float], types: Sequence[int], metadata: Mapping[str, MetadataValue]
) -> Tokenizer:
    """The tokenizer without its added tokens. Raises `InvalidRequest` for a vocabulary without its bytes."""
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    if len(scores) != len(pieces) or any(f"<0x{byte:02X}>" not in vocabulary for byte in range(256)):
        raise InvalidRequest(
            "The vocabulary of this file is damaged or of a kind that is not supported: it takes a score for each "
            "token, and a token for each byte."
        )
    unknown = metadata.get("tokenizer.ggml.unknown_token_id")
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_merges(vocabulary, scores, types),
            unk_token=pieces[unknown] if isinstance(unknown, int) and 0 <= unknown < len(pieces) else None,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    has_prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    steps: list[normalizers.Normalizer] = [normalizers.Prepend(_SPACE)] if has_prefix else []
    replaced = normalizers.Replace(" ", _SPACE)
    tokenizer.normalizer = normalizers.Sequence([*steps, replaced]) if steps else replaced
    # Nothing to split: there are no spaces left. Without a step here, transformers would put one of its own.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    parts: list[decoders.Decoder] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if has_prefix else parts)
    return tokenizer


def _merges(vocabulary: Mapping[str, int], scores: Sequence[float], types: Sequence[int]) -> list[tuple[str, str]]:
    """Every way to make a piece of two, the likeliest piece first, as transformers derives them from such models.

    User-defined pieces come before all others, the longest first: SentencePiece takes them as a whole.
    """
    ranked: list[tuple[float, int, int, str, str]] = []
    for piece, index in vocabulary.items():
        kind = types[index] if types else _NORMAL
        if kind not in (_NORMAL, _USER_DEFINED):
            continue
        score = float("inf") if kind == _USER_DEFINED else scores[index]
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocabulary and right in vocabulary:
                ranked.append((score, len(left), len(right), left, right))
    ranked.sort(key=lambda each: each[:3], reverse=True)
    return [(left, right) for *_, left, right in ranked]
