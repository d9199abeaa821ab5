"""What a model keeps between tokens: which of its caches are keys and values, which are states, and how they nest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlx import nn
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, RotatingKVCache, make_prompt_cache


class UnknownCache(Exception):
    """The model keeps something that is neither keys and values nor plain state arrays; names its kind."""


class CacheLayout:
    """The caches of one model, in the order its code takes them.

    Leaves of attention are numbered from 0, as the arena's layers are; leaves of recurrent state likewise.
    Raises `UnknownCache`.
    """

    def __init__(self, model: nn.Module) -> None:
        self._entries = make_prompt_cache(model)
        self.windows: list[int | None] = []
        """Per attention leaf: how many positions a token sees, itself included; None: all before it."""
        self.state_sizes: list[int] = []
        """Per state leaf: how many arrays it holds."""
        for leaf in _leaves(self._entries):
            if type(leaf) is KVCache:
                self.windows.append(None)
            elif type(leaf) is RotatingKVCache and leaf.keep == 0:
                self.windows.append(leaf.max_size)
            elif type(leaf) is ArraysCache:
                self.state_sizes.append(len(leaf.cache))
            else:
                raise UnknownCache(type(leaf).__name__)

    def assemble(self, views: list[Any], states: list[ArraysCache]) -> list[Any]:
        """The list a model takes for its cache, with `views` for its attention leaves and `states` for the others."""
        views_left, states_left = iter(views), iter(states)

        def build(entry: Any) -> Any:
            if isinstance(entry, CacheList):
                return CacheList(*(build(inner) for inner in entry.caches))
            return next(states_left) if type(entry) is ArraysCache else next(views_left)

        return [build(entry) for entry in self._entries]

    def new_states(self) -> list[ArraysCache]:
        """Empty states, as before the first token."""
        return [ArraysCache(size) for size in self.state_sizes]


def _leaves(entries: list[Any]) -> Iterator[Any]:
    for entry in entries:
        if isinstance(entry, CacheList):
            yield from _leaves(list(entry.caches))
        else:
            yield entry
