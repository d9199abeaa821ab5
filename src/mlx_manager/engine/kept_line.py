"""What the library's own cache holds of one sequence, and how the next sequence that begins alike goes on with it."""

from __future__ import annotations

import copy
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import CacheList, KVCache

_LEAST_COMMON = 16
"""Fewer tokens in common are not worth giving up what is kept."""


@dataclass
class Line:
    """The library's cache of one sequence."""

    cache: list[Any]
    first_id: int
    """As the segment's."""
    tokens: list[int | mx.array] = field(default_factory=list)
    """The sequence's own, all of them in the cache; chosen ones may still be on the device."""
    ahead: list[int] = field(default_factory=list)
    """What the cache has behind `tokens`, from an earlier sequence that went on so."""

    @property
    def nbytes(self) -> int:
        """Bytes of the cache."""
        return sum(layer.nbytes for layer in self.cache)

    @property
    def can_be_cut(self) -> bool:
        """Whether it can be cut back to what it was at an earlier token. Windows, chunks and states cannot."""
        return all(_is_plain(layer) for layer in self.cache)

    def fork(self) -> Line:
        """The same for another sequence."""
        return Line(copy.deepcopy(self.cache), self.first_id, list(self.tokens), list(self.ahead))

    def handed_on(self, token_ids: AbstractSequence[int]) -> Line | None:
        """This line for another sequence, which begins with `token_ids`; None where that would bring nothing."""
        held = [*(int(token) for token in self.tokens), *self.ahead]
        num_common = num_alike(held, token_ids)
        is_whole = num_common == min(len(held), len(token_ids))
        if (not is_whole and not self.can_be_cut) or num_common < min(_LEAST_COMMON, len(held)):
            return None
        return Line(self.cache, self.first_id, [], held)

    def take(self, token_ids: AbstractSequence[int], *, is_last_needed: bool) -> int | None:
        """Go on with `token_ids`: how many of them are in the cache already. None: it cannot be gone on with.

        With `is_last_needed` the last of them has to be computed. What is ahead goes where it differs.
        """
        num_alike_ahead = num_alike(self.ahead, token_ids)
        if num_alike_ahead == len(token_ids) and not is_last_needed:
            self.ahead = self.ahead[num_alike_ahead:]
            return num_alike_ahead
        num_taken = min(num_alike_ahead, len(token_ids) - 1)
        num_over = len(self.ahead) - num_taken
        if num_over and not self.can_be_cut:
            return None
        if num_over:
            for layer in self.cache:
                layer.trim(num_over)
        self.ahead = []
        return num_taken


def num_alike(one: AbstractSequence[int], other: AbstractSequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (left, right) in pairs if left != right), min(len(one), len(other)))


def _is_plain(layer: Any) -> bool:
    parts = layer.caches if type(layer) is CacheList else (layer,)
    return all(type(part) is KVCache for part in parts)
