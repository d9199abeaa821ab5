"""The gateway's side of one worker: its load, its requests in flight, and what its end means to them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import cast

import zmq

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.errors import ErrorInfo, MlxManagerError, ModelLoadFailed, ShuttingDown, WorkerDied
from mlx_manager.ipc import (
    Abort,
    BatchRow,
    Embed,
    Embedded,
    EngineStats,
    FromWorker,
    GatewayChannel,
    Generate,
    Hello,
    Load,
    Loaded,
    LoadFailed,
    LoadProgress,
    RequestFailed,
    ServingReport,
    StepDone,
    Stop,
    Tokenize,
    Tokenized,
    ToWorker,
    Trim,
    Trimmed,
)
from mlx_manager.ir import (
    DetokenizeRequest,
    EmbeddingRequest,
    Event,
    Finished,
    GenerationRequest,
    RerankRequest,
    TokenizeRequest,
    Tokens,
    Vectors,
)
from mlx_manager.pool.status import WorkerFault
from mlx_manager.pool.unanswered import Unanswered, settle
from mlx_manager.pool.worker_process import WorkerLaunch, WorkerProcess

logger = logging.getLogger(__name__)

LAST_WORDS_S = 0.1
"""How long messages of a process that has ended may still be on their way."""

STOP_GRACE_S = 3.0


class WorkerClient:
    """One worker process and everything that is asked of it. Lives in one event loop.

    Life: idle (importing, then waiting) → `load` → `generate` any number of times → `stop`, or its process dies.
    Raises `OSError` where the process cannot be started.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], socket_path: Path, launch: WorkerLaunch, label: str
    ) -> None:
        loop = asyncio.get_running_loop()
        self.stats: EngineStats | None = None
        """The engine's books after its last step; None before the load."""
        self.rows: tuple[BatchRow, ...] = ()
        """Its batch, as it told last."""
        self.hello: Hello | None = None
        self._hello_arrived: asyncio.Future[Hello | ErrorInfo] = loop.create_future()
        self._load_ended: asyncio.Future[ServingReport | ErrorInfo] = loop.create_future()
        self._on_progress: Callable[[LoadProgress], None] = _ignore
        self._on_death: Callable[[ErrorInfo], None] = self._warn_of_idle_death
        self._unanswered = Unanswered()
        self._stop_reason: ErrorInfo | None = None
        self.fault = WorkerFault.DIED
        """What its end was for, where it ended unasked. Written here only."""
        self._condemned_for = ""
        self._is_loading = False
        self._owes_since_s: float | None = None
        """Since when nothing was heard of it although it has something to say; None while it has not."""
        self._socket_path = socket_path
        address = f"ipc://{socket_path}"
        self._channel = GatewayChannel(context, address, self._dispatch, self._on_garbage)
        try:
            self._process = WorkerProcess(launch, address, label)
        except OSError:
            self._channel.close()
            raise
        self.ended: asyncio.Task[ErrorInfo] = loop.create_task(self._watch_end())
        """Done when the process is over and every request in flight knows; why it ended."""

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._process.pid

    @property
    def is_usable(self) -> bool:
        """Whether it is alive, as far as is known, and not being stopped."""
        return self._process.is_alive and self._stop_reason is None and not self._condemned_for

    @property
    def num_in_flight(self) -> int:
        """Requests it is answering."""
        return self._unanswered.num_requests

    @property
    def is_serving(self) -> bool:
        """Whether its load has ended."""
        return self._load_ended.done()

    @property
    def silent_s(self) -> float:
        """Seconds since it was last heard of, while it owes an answer to anything it was told; else 0."""
        return 0.0 if self._owes_since_s is None else time.monotonic() - self._owes_since_s

    async def wait_hello(self, label: str) -> Hello:
        """What it says once its imports are done. `label` is the model that it is going to load.

        Raises `ModelLoadFailed` when it dies before, and `ShuttingDown` when it is stopped.
        """
        self._process.label = label
        if not self._hello_arrived.done():
            self._owe()
        hello = await asyncio.shield(self._hello_arrived)
        if isinstance(hello, ErrorInfo):
            raise self._load_error(hello)
        return hello

    async def load(
        self,
        entry: ModelEntry,
        options: LoadOptions,
        *,
        on_progress: Callable[[LoadProgress], None],
        on_death: Callable[[ErrorInfo], None],
    ) -> ServingReport:
        """Load a model, once in the life of a worker.

        `on_progress` and `on_death` are called from the event loop; `on_death` when the process ends unasked, now or
        later, before the requests in flight learn of it.
        Raises `ModelLoadFailed` when the worker says so or dies of it, and `ShuttingDown` when it is stopped meanwhile.
        """
        self._on_progress = on_progress
        self._on_death = on_death
        self._is_loading = True
        await self.wait_hello(entry.name)
        self._tell(Load(entry, options))
        report = await asyncio.shield(self._load_ended)
        if isinstance(report, ErrorInfo):
            raise self._load_error(report)
        return report

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Answer `request`; its id must not be in flight here. Closing the generator early aborts the work.

        Raises what the worker raised for the request, `WorkerDied` or `ShuttingDown`.
        """
        request_id = request.request_id
        self._check_free(request_id)
        queue = self._unanswered.add_stream(request_id)
        self._tell(Generate(request))
        try:
            while True:
                for event in await queue.take():
                    yield event
                    if isinstance(event, Finished):
                        return
        finally:
            # Nothing is awaited here, so that the abort leaves even while this task is being cancelled.
            if self._unanswered.drop(request_id) and self._process.is_alive:
                self._tell(Abort(request_id))

    async def embed(self, request: EmbeddingRequest | RerankRequest) -> Vectors:
        """The vectors or scores of `request`; its id must not be in flight here. Cancelling this aborts the work.

        Raises what the worker raised for the request, `WorkerDied` or `ShuttingDown`.
        """
        return cast(Vectors, await self._reply_to(request.request_id, Embed(request)))

    async def tokenize(self, request: TokenizeRequest | DetokenizeRequest) -> Tokens:
        """The tokens of a prompt, or the text of tokens; the request's id must not be in flight here.

        Raises what the worker raised for the request, `WorkerDied` or `ShuttingDown`.
        """
        return cast(Tokens, await self._reply_to(request.request_id, Tokenize(request)))

    async def trim(self) -> EngineStats:
        """Let it give its caches back, which it does once it answers nothing; the engine's books afterwards.

        Raises `WorkerDied` or `ShuttingDown`.
        """
        self._check_usable()
        trimmed = self._unanswered.add_trim()
        self._tell(Trim())
        stats = await trimmed
        if isinstance(stats, ErrorInfo):
            raise MlxManagerError.from_info(stats)
        return stats

    def condemn(self, fault: WorkerFault, how: str) -> None:
        """Kill it for what it does: `how`, to be read after "the worker". What it was asked fails at once."""
        if not self.is_usable:
            return
        self.fault, self._condemned_for = fault, how
        self._unanswered.fail_all(self._death())
        self._process.kill()

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """End the process: asked at first, terminated after `grace_s`, killed after twice that.

        Requests in flight end with `ShuttingDown`. May be called more than once.
        """
        if self._stop_reason is None:
            self._stop_reason = ShuttingDown(f"The model '{self._process.label}' is being stopped.").as_info()
            self._unanswered.fail_all(self._stop_reason)
        # A process that has not said hello is still importing and reads no message.
        was_asked = self.hello is not None and self._channel.send(Stop())
        await self._process.stop(grace_s if was_asked else 0.0)
        await asyncio.shield(self.ended)

    async def _reply_to(self, request_id: str, command: Embed | Tokenize) -> Vectors | Tokens:
        self._check_free(request_id)
        reply = self._unanswered.add_reply(request_id)
        self._tell(command)
        try:
            answer = await reply
        finally:
            if self._unanswered.drop(request_id) and self._process.is_alive:
                self._tell(Abort(request_id))
        if isinstance(answer, ErrorInfo):
            raise MlxManagerError.from_info(answer)
        return answer

    def _tell(self, command: ToWorker) -> None:
        """Send what it has to react to."""
        self._owe()
        self._channel.send(command)

    def _owe(self) -> None:
        if self._owes_since_s is None:
            self._owes_since_s = time.monotonic()

    def _is_busy(self) -> bool:
        is_loading = self._is_loading and not self._load_ended.done()
        return is_loading or not self._unanswered.is_empty

    def _check_usable(self) -> None:
        if not self.is_usable:
            raise MlxManagerError.from_info(self._stop_reason or self._death())

    def _check_free(self, request_id: str) -> None:
        self._check_usable()
        self._unanswered.check_free(request_id)

    def _dispatch(self, message: FromWorker) -> None:
        match message:
            case StepDone(deltas, stats, rows):
                self._note(stats, rows)
                for delta in deltas:
                    self._unanswered.pass_on(delta)
            case RequestFailed(request_id, error):
                self._unanswered.fail(request_id, error)
            case Embedded(request_id, vectors):
                self._unanswered.answer(request_id, vectors)
            case Tokenized(request_id, tokens):
                self._unanswered.answer(request_id, tokens)
            case Trimmed(stats):
                self.stats = stats
                self._unanswered.end_trim(stats)
            case LoadProgress():
                self._on_progress(message)
            case Hello():
                self.hello = message
                settle(self._hello_arrived, message)
            case Loaded(report, stats):
                self.stats = stats
                settle(self._load_ended, report)
            case LoadFailed(error):
                settle(self._load_ended, error)
        self._owes_since_s = time.monotonic() if self._is_busy() else None

    def _note(self, stats: EngineStats, rows: tuple[BatchRow, ...] | None) -> None:
        self.stats = stats
        if rows is not None:
            self.rows = rows
        elif not stats.num_running and not stats.num_waiting:
            self.rows = ()

    def _on_garbage(self, description: str) -> None:
        self._condemned_for = f"sent a broken message ({description})"
        logger.error("The worker of %s sent what is no message, it is ended: %s", self._process.label, description)
        self._process.kill()

    async def _watch_end(self) -> ErrorInfo:
        await asyncio.wait((self._process.exited,))
        await asyncio.sleep(LAST_WORDS_S)
        self._channel.receive()
        self._channel.close()
        self._socket_path.unlink(missing_ok=True)
        reason = self._stop_reason or self._death()
        if self._stop_reason is None:
            self._on_death(reason)
        settle(self._hello_arrived, reason)
        settle(self._load_ended, reason)
        self._unanswered.fail_all(reason)
        return reason

    def _death(self) -> ErrorInfo:
        return WorkerDied(f"The worker of the model '{self._process.label}' {self._how_it_ended()}.").as_info()

    def _how_it_ended(self) -> str:
        return self._condemned_for or self._process.describe_end()

    def _load_error(self, info: ErrorInfo) -> MlxManagerError:
        if info.code in (ShuttingDown.code, ModelLoadFailed.code):
            return MlxManagerError.from_info(info)
        reason = f"its worker {self._how_it_ended()}." if info.code == WorkerDied.code else info.message
        return ModelLoadFailed(f"The model '{self._process.label}' could not be loaded: {reason}")

    def _warn_of_idle_death(self, _: ErrorInfo) -> None:
        logger.warning("An idle worker %s", self._how_it_ended())


def _ignore(_: object) -> None:
    """Before a load nobody listens."""
