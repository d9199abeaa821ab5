"""What a model keeps between tokens: which of its caches are keys and values, which are states, and how they nest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlx import nn
from mlx_lm.models.cache import make_prompt_cache

_MODULES = ("mlx_lm.models.cache", "mlx_vlm.models.cache")
"""Both have classes of these names, which do the same; the second is loaded where a model of it is."""


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
        self._state_classes: list[type[Any]] = []
        for leaf in _leaves(self._entries):
            kind = _kind(leaf)
            if kind == "KVCache":
                self.windows.append(None)
            elif kind == "RotatingKVCache" and leaf.keep == 0:
                self.windows.append(leaf.max_size)
            elif kind == "ArraysCache":
                self.state_sizes.append(len(leaf.cache))
                self._state_classes.append(type(leaf))
            else:
                raise UnknownCache(type(leaf).__name__)

    def assemble(self, views: list[Any], states: list[Any]) -> list[Any]:
        """The list a model takes for its cache, with `views` for its attention leaves and `states` for the others."""
        views_left, states_left = iter(views), iter(states)

        def build(entry: Any) -> Any:
            if _kind(entry) == "CacheList":
                return type(entry)(*(build(inner) for inner in entry.caches))
            return next(states_left) if _kind(entry) == "ArraysCache" else next(views_left)

        return [build(entry) for entry in self._entries]

    def new_states(self) -> list[Any]:
        """Empty states, as before the first token."""
        return [made(size) for made, size in zip(self._state_classes, self.state_sizes, strict=True)]


def _kind(entry: Any) -> str:
    """The name of a cache's class; empty for one of a model's own, whatever it is called."""
    return type(entry).__name__ if type(entry).__module__ in _MODULES else ""


def _leaves(entries: list[Any]) -> Iterator[Any]:
    for entry in entries:
        if _kind(entry) == "CacheList":
            yield from _leaves(list(entry.caches))
        else:
            yield entry
