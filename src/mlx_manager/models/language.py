"""The language model of a vision model of mlx-vlm, called as the text models of mlx-lm are."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx import nn


class LanguagePart(nn.Module):
    """Tokens and caches in, logits out. It keeps nothing of one call for the next, as the library's own call would."""

    def __init__(self, language_model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # mlx has no types
        self.language_model = language_model
        self.is_library = False
        """Whether positions are left to what the library keeps of the last prompt. Set when the path is chosen."""
        _let_deepstack_be_dense(self._backbone())

    def __call__(self, tokens: mx.array, cache: Any = None, **arguments: Any) -> mx.array:
        """Logits [batch, length, vocabulary] behind `tokens`; `arguments` as the family's own call takes them."""
        if self.has_positions and not self.is_library and "position_ids" not in arguments:
            arguments["position_ids"] = _plain_positions(tokens, cache)
        logits: mx.array = self.language_model(tokens, cache=cache, **arguments).logits
        return logits

    @property
    def has_positions(self) -> bool:
        """Whether tokens have positions in three dimensions (M-RoPE), which are handed to each call."""
        return hasattr(self.language_model, "get_rope_index")

    @property
    def model(self) -> nn.Module:
        """The part behind which rows can be picked: the backbone, or where there is none, its last norm."""
        backbone = self._backbone()
        return backbone.norm if backbone is self.language_model else backbone

    @property
    def layers(self) -> list[nn.Module]:
        """The layers, in the order of their caches."""
        return list(self.language_model.layers)

    def make_cache(self) -> list[Any]:
        """The library's own caches."""
        from mlx_vlm.models.cache import make_prompt_cache  # noqa: PLC0415  # seconds of imports, for these models alone

        return list(make_prompt_cache(self.language_model))

    def embed(self, tokens: mx.array) -> mx.array:
        """The embeddings of `tokens`, as the model's own call makes them."""
        embeddings: mx.array = self._backbone().embed_tokens(tokens)
        return embeddings

    def _backbone(self) -> nn.Module:
        backbone = getattr(self.language_model, "model", None)
        return backbone if isinstance(backbone, nn.Module) else self.language_model


def _plain_positions(tokens: mx.array, cache: Any) -> mx.array:
    """[3, batch, length] the positions of text without any image."""
    offset = next((entry.offset for entry in cache or () if hasattr(entry, "offset")), 0)
    batch, length = tokens.shape
    first = offset.reshape(-1, 1) if isinstance(offset, mx.array) else offset
    return mx.broadcast_to(mx.arange(length)[None] + first, (3, batch, length))


def _let_deepstack_be_dense(backbone: nn.Module) -> None:
    """Let a backbone add what it adds to the hidden states of images as a whole array: without a mask, row by row.

    The library looks for the rows of images in each row of the batch, one after the other.
    """
    plain_class = type(backbone)
    if not hasattr(plain_class, "_deepstack_process"):
        return

    def add(self: Any, hidden: mx.array, mask: mx.array | None, embeddings: mx.array) -> mx.array:
        if mask is None:
            return hidden + embeddings
        added: mx.array = plain_class._deepstack_process(self, hidden, mask, embeddings)
        return added

    backbone.__class__ = type(plain_class.__name__, (plain_class,), {"_deepstack_process": add})
