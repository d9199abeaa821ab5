"""Rank 0 of a model that is split: a worker that has its followers replay each call of the model."""

from __future__ import annotations

import copy
import itertools
import logging
import os
import socket
import time
import weakref
from typing import Any, cast

import mlx.core as mx
from mlx import nn
from mlx_lm.models.cache import make_prompt_cache

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.errors import ModelLoadFailed
from mlx_manager.models.loading import LoadedModel, Report, load_text_model
from mlx_manager.worker.ranks import Begin, Call, Drop, Fork, Ranks, ToFollower, send

_log = logging.getLogger("mlx_manager.worker")
_PATIENCE_S = 60.0
_EXIT_STATUS = 3


def load_split_model(entry: ModelEntry, options: LoadOptions, ranks: Ranks, report: Report) -> LoadedModel:
    """This process's part of the model, which leads the followers. Raises `ModelLoadFailed`."""
    report(f"waiting for {len(ranks.addresses) - 1} followers", 0.01)
    followers = [_connect(ranks, rank) for rank in range(1, len(ranks.addresses))]
    try:
        for connection in followers:
            send(connection, Begin(options))
        group = ranks.join(0)
    except (OSError, RuntimeError) as error:
        raise ModelLoadFailed(f"The ranks of {entry.name} do not come together: {error}") from None
    loaded = load_text_model(entry, options, report, split=lambda model: shard(model, group, entry.name))
    loaded.model = cast(nn.Module, LedModel(loaded.model, followers))
    return loaded


def shard(model: Any, group: mx.distributed.Group, name: str) -> None:
    """Keep this rank's part of `model`. Raises `ModelLoadFailed` for one that mlx-lm cannot split."""
    if not hasattr(model, "shard"):
        raise ModelLoadFailed(f"mlx-lm knows no way to split models of the type of {name}.")
    try:
        model.shard(group)
    except ValueError as error:
        raise ModelLoadFailed(f"{name} cannot be split over {group.size()} ranks: {error}") from None


class LedModel:
    """Stands for the model: each call is told to the followers, and computed before the next one.

    A follower that is gone cannot be done without, and the ring cannot be joined again: this process ends, and the next
    one begins with all ranks anew.
    """

    def __init__(self, model: nn.Module, followers: list[socket.socket]) -> None:
        self._model = model
        self._followers = followers
        self._numbers = itertools.count()

    def __call__(self, tokens: mx.array, cache: list[Any] | None = None, **named: Any) -> mx.array:
        """The logits, as the model's own call gives them."""
        if named:
            raise ModelLoadFailed(f"A model that is split takes no {', '.join(named)}.")
        led = cache if isinstance(cache, LedCache) else self.make_cache()
        self.tell(Call(led.number, cast("list[list[int]]", tokens.tolist())))
        try:
            logits: mx.array = self._model(tokens, cache=led)
            mx.eval(logits)
        except RuntimeError as error:
            self._end(error)
        return logits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def make_cache(self) -> LedCache:
        """A new cache, here and at the followers."""
        return LedCache(make_prompt_cache(self._model), self, next(self._numbers))

    def forked(self, cache: LedCache) -> LedCache:
        """A copy of `cache`, here and at the followers."""
        number = next(self._numbers)
        self.tell(Fork(cache.number, number))
        return LedCache(copy.deepcopy(list(cache)), self, number)

    def tell(self, message: ToFollower) -> None:
        """Send `message` to all followers."""
        try:
            for follower in self._followers:
                send(follower, message)
        except OSError as error:
            self._end(error)

    def _end(self, error: Exception) -> None:
        _log.error("a rank of the model is gone, so this one ends too: %s", error)
        logging.shutdown()
        os._exit(_EXIT_STATUS)


class LedCache(list[Any]):
    """The library's cache of one sequence, which the followers know by its number."""

    def __init__(self, layers: list[Any], lead: LedModel, number: int) -> None:
        super().__init__(layers)
        self.number = number
        self._lead = lead
        weakref.finalize(self, lead.tell, Drop(number))

    def __deepcopy__(self, memo: dict[int, Any]) -> LedCache:
        return self._lead.forked(self)


def _connect(ranks: Ranks, rank: int) -> socket.socket:
    address = ranks.control_address(rank)
    deadline_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            connection = socket.create_connection(address, timeout=_PATIENCE_S)
        except OSError as error:
            if time.monotonic() > deadline_s:
                raise ModelLoadFailed(
                    f"Rank {rank} does not answer on {address[0]} port {address[1]}: {error}. Start mlx-manager follow "
                    "there."
                ) from None
            time.sleep(0.5)
        else:
            connection.settimeout(None)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
