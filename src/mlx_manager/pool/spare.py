"""Where workers come from: started in one private folder, with one idle spare kept ready where that is wanted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import psutil
import zmq

from mlx_manager.errors import ShuttingDown
from mlx_manager.pool.socket_folder import SocketFolder
from mlx_manager.pool.worker_client import WorkerClient
from mlx_manager.pool.worker_process import WorkerLaunch

logger = logging.getLogger(__name__)


class WorkerSource:
    """Starts workers and owns their sockets. With `use_spare` one worker is kept with its imports done.

    It counts in the memory budget, of which it has what no model wants: `has_room` says whether there is so much.
    A spare that dies while it waits is not replaced before the next load, so that a broken installation does not loop.
    """

    def __init__(
        self, launch: WorkerLaunch, *, use_spare: bool, spare_delay_s: float, has_room: Callable[[], bool]
    ) -> None:
        self._launch = launch
        self._use_spare = use_spare
        self._spare_delay_s = spare_delay_s
        self._sockets: _Sockets | None = None
        self._workers: set[WorkerClient] = set()
        self._spare: WorkerClient | None = None
        self._replenishing: asyncio.Task[None] | None = None
        self._recommended_bytes: int | None = None
        self._has_room = has_room
        self._is_withheld = False
        """Whether there is no spare for want of memory."""
        self._is_closed = False

    @property
    def spare(self) -> WorkerClient | None:
        """The worker that waits for a model, perhaps still importing."""
        return self._spare if self._spare is not None and self._spare.is_usable else None

    @property
    def workers(self) -> frozenset[WorkerClient]:
        """All that have been started and are not over."""
        return frozenset(self._workers)

    def take(self, label: str) -> WorkerClient:
        """A worker for one model: the spare, or a new one.

        Raises `OSError` where none can be started, and `ShuttingDown` after `close`.
        """
        worker, self._spare = self.spare, None
        return worker or self._start_worker(label)

    async def recommended_bytes(self, label: str) -> int:
        """What the device of the workers recommends to use, asked once of the worker that the next `take` gives.

        Raises as `take` does, and `ModelLoadFailed` for a worker that ends before it can say.
        """
        if self._recommended_bytes is None:
            if self.spare is None:
                self._spare = self._start_worker(label)
            assert self._spare is not None
            hello = await self._spare.wait_hello(label)
            self._recommended_bytes = hello.recommended_bytes or int(psutil.virtual_memory().total)
        return self._recommended_bytes

    def replenish_later(self, delay_s: float | None = None) -> None:
        """Start a spare after `delay_s`, unless one is there or on its way.

        None is the usual delay: the spare's imports would slow the first requests to the model just loaded.
        """
        if self._use_spare and not self._is_closed and (self._replenishing is None or self._replenishing.done()):
            self._replenishing = asyncio.create_task(
                self._replenish(self._spare_delay_s if delay_s is None else delay_s)
            )

    async def fit_spare(self) -> None:
        """End the spare where there is no room for it any more; start one again where there is."""
        if self.spare is not None and not self._has_room():
            spare, self._spare = self._spare, None
            self._is_withheld = True
            assert spare is not None
            logger.info("The spare worker is ended: models need its memory")
            await spare.stop()
        elif self._is_withheld and self._has_room():
            self.replenish_later()

    async def close(self) -> None:
        """Stop every worker and remove the folder."""
        self._is_closed = True
        if self._replenishing is not None:
            self._replenishing.cancel()
            await asyncio.wait((self._replenishing,))
        await asyncio.gather(*(worker.stop() for worker in self._workers))
        if self._sockets is not None:
            self._sockets.close()

    async def _replenish(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        if self.spare is None:
            self._is_withheld = not self._has_room()
            if self._is_withheld:
                return
            try:
                self._spare = self._start_worker("spare")
            except OSError as error:
                logger.warning("No spare worker could be started: %s", error)

    def _start_worker(self, label: str) -> WorkerClient:
        if self._is_closed:
            raise ShuttingDown("The server is stopping.")
        if self._sockets is None:
            self._sockets = _Sockets()
        worker = WorkerClient(self._sockets.context, self._sockets.new_path(), self._launch, label)
        self._workers.add(worker)
        worker.ended.add_done_callback(lambda _: self._workers.discard(worker))
        return worker


class _Sockets:
    """The ZeroMQ context of one pool and the folder of its sockets."""

    def __init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._folder = SocketFolder()

    def new_path(self) -> Path:
        """A path no socket has had."""
        return self._folder.new_path()

    def close(self) -> None:
        """Remove both; every socket must be closed before."""
        self.context.term()
        self._folder.remove()
