"""A follower: one rank of a model that is split, which replays what rank 0 does. `python -m mlx_manager.worker.follow`.

Serves one session: it ends when rank 0 does, because the ring of a process cannot be joined again.
"""

from __future__ import annotations

import argparse
import copy
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx_lm.models.cache import make_prompt_cache

from mlx_manager.catalog import ModelEntry
from mlx_manager.errors import MlxManagerError
from mlx_manager.models.loading import load_text_model
from mlx_manager.worker.leading import shard
from mlx_manager.worker.ranks import Begin, Call, Drop, Fork, Ranks, receive

_log = logging.getLogger("mlx_manager.worker")
_MISUSED = 2


class Follower:
    """Replays calls on its part of the model."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._caches: dict[int, list[Any]] = {}

    def replay(self, message: Call | Fork | Drop) -> None:
        """Do what rank 0 does."""
        match message:
            case Call(number, token_ids):
                cache = self._caches.setdefault(number, make_prompt_cache(self._model))
                mx.eval(self._model(mx.array(token_ids), cache=cache))
            case Fork(number, copied):
                self._caches[copied] = copy.deepcopy(self._caches[number])
            case Drop(number):
                self._caches.pop(number, None)


def serve(connection: socket.socket, ranks: Ranks, rank: int, folder: Path) -> None:
    """One session, until rank 0 closes the connection or the ring breaks. Raises `MlxManagerError`, `RuntimeError`."""
    begin = receive(connection)
    if not isinstance(begin, Begin):
        return
    group = ranks.join(rank)
    loaded = load_text_model(_entry(folder), begin.options, _tell, split=lambda model: shard(model, group, folder.name))
    follower = Follower(loaded.model)
    _log.info("rank %d of %d follows", rank, group.size())
    while (message := receive(connection)) is not None:
        if not isinstance(message, Begin):
            follower.replay(message)


def main() -> int:
    """Wait for rank 0, and follow it to its end."""
    parser = argparse.ArgumentParser(prog="python -m mlx_manager.worker.follow")
    parser.add_argument("folder", type=Path, help="the model folder; the same model as at rank 0")
    parser.add_argument("--hostfile", type=Path, required=True)
    parser.add_argument("--rank", type=int, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        ranks = Ranks.read(arguments.hostfile)
        own_address = ranks.control_address(arguments.rank)
    except MlxManagerError as error:
        _log.error("%s", error.message)
        return _MISUSED
    try:
        with socket.create_server(own_address) as listener:
            connection, address = listener.accept()
        _log.info("rank 0 is at %s", address[0])
        with connection:
            serve(connection, ranks, arguments.rank, arguments.folder)
    except MlxManagerError as error:
        _log.error("%s", error.message)
        return 1
    except (OSError, RuntimeError, ValueError) as error:
        _log.error("the session is over: %s", error)
        return 1
    return 0


def _entry(folder: Path) -> ModelEntry:
    return ModelEntry(
        name=folder.name,
        path=str(folder),
        created_unix_s=0,
        size_bytes=0,
        architecture="",
        quantization="",
        max_context=None,
    )


def _tell(stage: str, fraction: float) -> None:
    _log.info("%s (%.0f %%)", stage, fraction * 100)


if __name__ == "__main__":
    exit_status = main()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(exit_status)
