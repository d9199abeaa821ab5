"""The worker's main thread, which makes every MLX call: take commands, run the engine, publish events."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
from collections.abc import Callable

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.errors import InvalidRequest, MlxManagerError, ModelLoadFailed
from mlx_manager.ipc import (
    Abort,
    Embed,
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
from mlx_manager.ipc.channel import WorkerChannel
from mlx_manager.ir import DetokenizeRequest, EmbeddingRequest, GenerationRequest, RerankRequest, TokenizeRequest
from mlx_manager.models.loading import Report
from mlx_manager.worker.device import (
    device_name,
    give_memory_back,
    package_versions,
    preloaded_blas,
    probe,
    recommended_bytes,
)
from mlx_manager.worker.load import load
from mlx_manager.worker.preparing import unprepared
from mlx_manager.worker.served import ServedModel

_log = logging.getLogger("mlx_manager.worker")

_TIDY_PAUSE_S = 0.2
"""Nothing came for so long: time to do what could wait."""

Loader = Callable[[ModelEntry, LoadOptions, Report], tuple[ServedModel, ServingReport]]


class WorkerMain:
    """The life of one worker on one channel. `load_model` is `worker.load.load`, or what a test puts in its place."""

    def __init__(self, channel: WorkerChannel, load_model: Loader = load) -> None:
        self._channel = channel
        self._load = load_model
        self._is_told_to_stop = False
        self._is_told_to_trim = False
        self._has_aborted = False
        """Since the last round of the loop began."""

    def run(self) -> int:
        """Say hello, load what is asked for, serve it until told to stop. Returns the exit status."""
        self._channel.send(Hello(os.getpid(), device_name(), preloaded_blas(), package_versions(), recommended_bytes()))
        command = self._channel.poll(None)
        if not isinstance(command, Load):
            return 0
        try:
            serving, report = self._load(command.model, command.options, self._report)
        except MlxManagerError as error:
            _log.error("loading %s failed: %s", command.model.name, error.message)
            self._channel.send(LoadFailed(error.as_info()))
            return 1
        except Exception as error:
            # The edge of the load: whatever a model's code raises has to reach the person who asked for it.
            _log.exception("loading %s failed", command.model.name)
            reason = ModelLoadFailed(f"loading {command.model.name} failed: {type(error).__name__}: {error}")
            self._channel.send(LoadFailed(reason.as_info()))
            return 1
        self._channel.send(Loaded(report, serving.stats()))
        self._serve(serving)
        return 0

    def _report(self, stage: str, fraction: float) -> None:
        self._channel.send(LoadProgress(stage, fraction))

    def _serve(self, serving: ServedModel) -> None:
        serving.publish = self._channel.send
        is_tidy = False
        while True:
            self._has_aborted = False
            self._take_in(serving, self._patience_s(serving, is_tidy=is_tidy))
            if self._is_told_to_stop:
                break
            if serving.has_work:
                is_tidy = False
                serving.step(lambda: self._take_in(serving))
            elif self._is_told_to_trim:
                self._trim(serving)
            elif not self._has_aborted and not is_tidy:
                is_tidy = not serving.tidy()
            if self._has_aborted and not serving.has_work:
                # No step tells of the books any more, as they are without what was aborted.
                self._channel.send(StepDone((), serving.stats()))
        serving.close()

    def _patience_s(self, serving: ServedModel, *, is_tidy: bool) -> float | None:
        """How long to wait for a command: not at all with something to do, for ever (None) with nothing."""
        if serving.has_work or self._is_told_to_trim:
            return 0.0
        return None if is_tidy else _TIDY_PAUSE_S

    def _take_in(self, serving: ServedModel, timeout_s: float | None = 0.0) -> None:
        """Take every command that has arrived, waiting for a first one if there is time."""
        command = self._channel.poll(timeout_s)
        while command is not None and not self._is_told_to_stop:
            self._is_told_to_stop = isinstance(command, Stop)
            self._is_told_to_trim |= isinstance(command, Trim)
            self._has_aborted |= isinstance(command, Abort)
            self._take(command, serving)
            command = self._channel.poll(0.0)

    def _take(self, command: ToWorker, serving: ServedModel) -> None:
        if isinstance(command, Abort):
            serving.abort(command.request_id)
        elif isinstance(command, Tokenize):
            answer = _tokenized(command.request, serving)
            if answer is not None:
                self._channel.send(answer)
        elif isinstance(command, Generate | Embed):
            request = command.request
            try:
                is_for_it = isinstance(request, serving.request_type)
                failure = serving.submit(request) if is_for_it else _refusal(request)
            except Exception as error:
                failure = unprepared(request.request_id, error)
            if failure is not None:
                self._channel.send(failure)

    def _trim(self, serving: ServedModel) -> None:
        self._is_told_to_trim = False
        serving.trim()
        give_memory_back()
        self._channel.send(Trimmed(serving.stats()))


def _tokenized(request: TokenizeRequest | DetokenizeRequest, serving: ServedModel) -> Tokenized | RequestFailed | None:
    try:
        tokens = serving.tokenize(request)
    except Exception as error:
        return unprepared(request.request_id, error)
    return None if tokens is None else Tokenized(request.request_id, tokens)


def _refusal(request: GenerationRequest | EmbeddingRequest | RerankRequest) -> RequestFailed:
    """The gateway asks no model for what its kind cannot do; this is for a folder that changed its kind."""
    reason = InvalidRequest("The model is not made for this: ask one that is.", param="model")
    return RequestFailed(request.request_id, reason.as_info())


def _watch_gateway() -> None:
    """End this process when the gateway's end of the standard input closes: it died, however it did."""
    while os.read(0, 4096):
        pass
    os._exit(0)


def main(load_model: Loader = load) -> int:
    """Run the worker, or with `--probe` print what it would compute on."""
    parser = argparse.ArgumentParser(prog="python -m mlx_manager.worker")
    parser.add_argument("--socket", help="address of the gateway's socket")
    parser.add_argument("--probe", action="store_true", help="print facts about the device as JSON and end")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    if arguments.probe:
        sys.stdout.write(json.dumps(probe()) + "\n")
        return 0
    if not arguments.socket:
        parser.error("--socket is needed")
    threading.Thread(target=_watch_gateway, daemon=True, name="gateway-watch").start()
    channel = WorkerChannel.connect(arguments.socket)
    try:
        return WorkerMain(channel, load_model).run()
    finally:
        channel.close()


if __name__ == "__main__":
    exit_status = main()
    logging.shutdown()
    sys.stdout.flush()
    # whoever waits for this memory need not wait for the interpreter to take down a gigabyte of libraries first
    os._exit(exit_status)
