"""The engine without its gateway: one request after another in this process, timed. Run by `gateway_cost`.

The baseline of what the gateway adds: the same template, tokenizer, engine and detokenizer, but no HTTP and no IPC.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from mlx_manager.catalog import LoadOptions
from mlx_manager.hub import Inventory
from mlx_manager.ipc import FromWorker, StepDone
from mlx_manager.ir import ChatPrompt, GenerationRequest, Message, PartDelta, Role, Sampling, TextContent
from mlx_manager.worker.load import load
from mlx_manager.worker.served import ServedModel


def main() -> None:
    """Arguments: the model folder and tokens a request. A prompt a line as JSON comes in, a line of times goes out."""
    model, max_tokens = sys.argv[1:]
    entry = Inventory(Path(model).parent).find(model)
    serving, _ = load(entry, LoadOptions(), lambda stage, fraction: None)
    for line in sys.stdin:
        print(json.dumps(_time(serving, entry.name, json.loads(line), int(max_tokens))), flush=True)


def _time(serving: ServedModel, model: str, prompt: str, max_tokens: int) -> list[float]:
    """Seconds from the request to each piece of its text."""
    request = GenerationRequest(
        request_id="timed",
        model=model,
        prompt=ChatPrompt(messages=(Message(role=Role.USER, content=(TextContent(text=prompt),)),)),
        sampling=Sampling(max_tokens=max_tokens, temperature=0.0),
    )
    started_s = time.perf_counter()
    arrivals: list[float] = []

    def take(message: FromWorker) -> None:
        if isinstance(message, StepDone):
            now_s = time.perf_counter() - started_s
            events = [event for delta in message.deltas for event in delta.events]
            arrivals.extend(now_s for event in events if isinstance(event, PartDelta) and event.text)

    serving.publish = take
    failure = serving.submit(request)
    if failure is not None:
        sys.exit(failure.error.message)
    while serving.has_work:
        serving.step()
    return arrivals


if __name__ == "__main__":
    main()
