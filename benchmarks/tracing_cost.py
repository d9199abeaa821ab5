"""What tracing costs: processor time per request, in the gateway, with traces kept and without.

`python -m benchmarks.tracing_cost`. A scripted backend answers, so that nothing but the gateway and its tracer works;
all threads count, so that the tracer's own work does. Processor time, not elapsed time: others may use the machine.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

from mlx_manager.backends.scripted import ScriptedBackend, script_of
from mlx_manager.gateway import Gateway
from mlx_manager.ir import GenerationRequest, Origin, TextPrompt, enter_origin
from mlx_manager.observability.tracer import Tracer

NUM_REQUESTS = 2_000
NUM_TOKENS = 100
NUM_ROUNDS = 5


async def _answer(gateway: Gateway, index: int) -> None:
    enter_origin(Origin(request_id=f"r{index}", path="/v1/completions"))
    request = GenerationRequest(request_id=f"a{index}", model="m", prompt=TextPrompt(text="hi"))
    async with aclosing(gateway.generate(request, http_request_id=f"r{index}")) as events:
        async for _ in events:
            pass


def _cpu_s_per_request(folder: Path | None) -> float:
    tracer = None
    if folder is not None:
        tracer = Tracer(folder, max_bytes=2**30, max_age_s=3600, with_content=False, make_exporter=lambda: None)
        tracer.start()
    backend = ScriptedBackend({"m": script_of(["token "] * NUM_TOKENS)})
    gateway = Gateway([backend], account=(), tracer=tracer)

    async def run() -> None:
        for index in range(NUM_REQUESTS):
            await _answer(gateway, index)

    started_s = time.process_time()
    asyncio.run(run())
    if tracer is not None:
        tracer.close()
    return (time.process_time() - started_s) / NUM_REQUESTS


def main() -> None:
    """Print the figures."""
    without, with_traces = [], []
    for _ in range(NUM_ROUNDS):
        without.append(_cpu_s_per_request(None))
        with tempfile.TemporaryDirectory() as folder:
            with_traces.append(_cpu_s_per_request(Path(folder)))
    base_us, traced_us = (statistics.median(times) * 1e6 for times in (without, with_traces))
    print(f"without traces {base_us:.0f} µs, with traces {traced_us:.0f} µs: {traced_us - base_us:.0f} µs per request")


if __name__ == "__main__":
    main()
