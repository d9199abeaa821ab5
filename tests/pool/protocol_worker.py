"""A worker without a model: speaks the protocol over the real socket and counts instead of generating.

The model folder's file `mode` says what a load does: good, slow, silent (a minute), broken, wordy or dies. Each load
leaves a file `load-PID` with its options there, each request a line in `requests`, each trim one in `trims`; with the
mode stuck no trim is answered, and mortal workers die of it. A prompt "NUM PERIOD_S" is answered with NUM deltas, one a
step, a conversation with one; the prompt "refuse" fails.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path

import msgspec

from mlx_manager.catalog import LoadOptions
from mlx_manager.errors import ErrorInfo
from mlx_manager.ipc import (
    Abort,
    EngineStats,
    Generate,
    Hello,
    Load,
    Loaded,
    LoadFailed,
    LoadProgress,
    RequestEvents,
    RequestFailed,
    ServingReport,
    StepDone,
    Stop,
    Trim,
    Trimmed,
    WorkerChannel,
)
from mlx_manager.ir import (
    ChatPrompt,
    ChoiceEnd,
    Event,
    Finished,
    FinishReason,
    GenerationRequest,
    PartDelta,
    PartEnd,
    PartStart,
    PromptReady,
    TextPrompt,
    Usage,
)


class Counting:
    """One request: `num_tokens` deltas, one each `period_s`."""

    def __init__(self, request_id: str, num_tokens: int, period_s: float) -> None:
        self.request_id = request_id
        self.num_tokens = num_tokens
        self.period_s = period_s
        self.num_done = 0
        self.next_step_s = time.monotonic()

    def step(self) -> tuple[Event, ...]:
        self.next_step_s += self.period_s
        first: tuple[Event, ...] = (PromptReady(1), PartStart(0)) if self.num_done == 0 else ()
        delta = PartDelta(0, f"{self.request_id}-{self.num_done} ")
        self.num_done += 1
        if self.num_done < self.num_tokens:
            return (*first, delta)
        usage = Usage(num_prompt_tokens=1, num_cached_tokens=0, num_completion_tokens=self.num_tokens)
        return (*first, delta, PartEnd(0), ChoiceEnd(0, FinishReason.STOP), Finished(usage))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    address = parser.parse_args().socket
    threading.Thread(target=end_with_gateway, daemon=True).start()
    channel = WorkerChannel.connect(address)
    channel.send(Hello(pid=os.getpid(), device="none", blas=None, versions={}))
    running: dict[str, Counting] = {}
    num_aborted = 0
    folder = Path()
    while True:
        message = channel.poll(0.002 if running else None)
        match message:
            case Load(model, options):
                folder = Path(model.path)
                load(channel, folder, options)
            case Generate(request):
                with (folder / "requests").open("ab") as requests:
                    requests.write(msgspec.json.encode(request) + b"\n")
                failure = begin(request, running)
                if failure is not None:
                    channel.send(failure)
                    continue
            case Abort(request_id):
                num_aborted += running.pop(request_id, None) is not None
            case Trim():
                assert not running, "a trim while something is answered"
                trim(channel, folder)
            case Stop():
                sys.stderr.write("stopping as asked\n")
                channel.close()
                return
            case None:
                pass
        due = [counting for counting in running.values() if counting.next_step_s <= time.monotonic()]
        deltas = tuple(RequestEvents(counting.request_id, counting.step()) for counting in due)
        for counting in due:
            if counting.num_done == counting.num_tokens:
                del running[counting.request_id]
        if due or message is not None:
            channel.send(StepDone(deltas, EngineStats(num_running=len(running), num_aborted_requests=num_aborted)))


def begin(request: GenerationRequest, running: dict[str, Counting]) -> RequestFailed | None:
    if isinstance(request.prompt, ChatPrompt):
        running[request.request_id] = Counting(request.request_id, 1, 0.0)
        return None
    assert isinstance(request.prompt, TextPrompt)
    if request.prompt.text == "refuse":
        error = ErrorInfo(code="context_length_exceeded", message="too long", param="messages")
        return RequestFailed(request.request_id, error)
    num_tokens, period_s = request.prompt.text.split()
    running[request.request_id] = Counting(request.request_id, int(num_tokens), float(period_s))
    return None


def load(channel: WorkerChannel, folder: Path, options: LoadOptions) -> None:
    (folder / f"load-{os.getpid()}").write_bytes(msgspec.json.encode(options))
    channel.send(LoadProgress("counting to three", 0.5))
    mode = (folder / "mode").read_text()
    time.sleep({"slow": 1.2, "silent": 60.0}.get(mode, 0.1))
    if mode == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode in ("broken", "wordy"):
        message = "Missing parameters:\n" + "\n".join(f"layer.{number}.weight," for number in range(200))
        message = "its config.json names no model" if mode == "broken" else message
        channel.send(LoadFailed(ErrorInfo(code="model_load_failed", message=message)))
        channel.close()
        sys.exit(1)
    report = ServingReport(
        path="sequential",
        reason="there is no model",
        attention="none",
        dtype="float32",
        max_context=100,
        weights_bytes=0,
        kv_bytes_per_token=1024 if (folder / "caches").exists() else 0,
        kv_budget_bytes=0,
        load_s=0.1,
    )
    channel.send(Loaded(report, EngineStats()))


def trim(channel: WorkerChannel, folder: Path) -> None:
    mode = (folder / "mode").read_text()
    if mode == "mortal":
        os.kill(os.getpid(), signal.SIGKILL)
    with (folder / "trims").open("a") as trims:
        trims.write("trimmed\n")
    if mode != "stuck":
        channel.send(Trimmed(EngineStats()))


def end_with_gateway() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
