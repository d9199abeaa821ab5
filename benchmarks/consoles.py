"""What open consoles cost the API: tokens per second of a real server with none and with twenty of its pages open.

    python -m benchmarks.consoles [--consoles 20] [--rounds 4] [--seconds 20]

A real `mlx-manager serve` with the starter model, and streams that never stop. The pages are opened as a browser opens
them (the page over HTTP with a session, then its WebSocket, which is read), but nothing is drawn: browsers run on other
machines. Rounds with and without take turns, so that what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import json
import re
import statistics
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import httpx
import psutil
import socketio

from benchmarks.folders import import_starter
from benchmarks.own import OURS
from benchmarks.servers import running
from mlx_manager.bench import Prose
from mlx_manager.pool.blas import find_openblas

PAGES = ("/", "/pool", "/requests", "/", "/pool", "/requests", "/system", "/models", "/routes", "/settings")
"""Those that are open, in turn: the ones that change by themselves more often."""
_LIVELY = ("/", "/pool", "/requests")
"""They change while requests run, whoever looks."""
NUM_STREAMS = 4
_ANSWER_TOKENS = 64
_WARM_UP_S = 4.0
_QUERY = re.compile(r"query: (\{.*?\}),\s*\n")


@dataclass
class Page:
    """One open page."""

    path: str
    num_messages: int = 0
    num_bytes: int = 0


@asynccontextmanager
async def open_page(http: httpx.AsyncClient, path: str) -> AsyncIterator[Page]:
    """One page, as a browser has it, while the context lasts."""
    answer = await http.get(path)
    answer.raise_for_status()
    found = _QUERY.search(answer.text)
    if found is None:
        raise ValueError(f"{path} does not say how its WebSocket is opened: {answer.text[-2000:]}")
    query = ast.literal_eval(found.group(1)) | {"tab_id": str(uuid.uuid4()), "document_id": str(uuid.uuid4())}
    # as JavaScript writes it, not as Python does
    query = {name: str(value).lower() if isinstance(value, bool) else value for name, value in query.items()}
    page = Page(path)

    def take(_: str, message: object) -> None:
        page.num_messages += 1
        page.num_bytes += len(json.dumps(message))

    socket = socketio.AsyncClient(reconnection=False)
    socket.on("*", take)
    cookies = "; ".join(f"{name}={value}" for name, value in http.cookies.items())
    await socket.connect(
        f"{http.base_url}?{urlencode(query)}",
        headers={"Cookie": cookies},
        transports=["websocket"],
        socketio_path="/_nicegui_ws/socket.io",
    )
    try:
        yield page
    finally:
        await socket.disconnect()


async def keep_asking(http: httpx.AsyncClient, model: str, prose: Prose) -> None:
    """One stream after the other, until it is cancelled."""
    while True:
        prompt = [{"role": "user", "content": prose.story_request(40)}]
        body = {"model": model, "messages": prompt, "max_tokens": _ANSWER_TOKENS, "temperature": 0, "stream": True}
        async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            answer.raise_for_status()
            async for _ in answer.aiter_bytes():
                pass


@dataclass(frozen=True)
class Pace:
    """Over one measurement."""

    tokens_per_s: float
    """Of all models together, by the engines' own books."""
    gateway_cores: float
    """Processor time of the gateway's process, per second."""


async def measure_pace(http: httpx.AsyncClient, seconds: float) -> Pace:
    """After a pause in which things settle."""
    gateway = next(child for child in psutil.Process().children() if "serve" in child.cmdline())
    counts = []
    for pause_s in (_WARM_UP_S, seconds):
        await asyncio.sleep(pause_s)
        books = (await http.get("/admin/stats")).json()["engines"].values()
        used = gateway.cpu_times()
        num_tokens = sum(book["num_generated_tokens"] for book in books)
        counts.append((time.monotonic(), num_tokens, used.user + used.system))
    (from_s, tokens_before, cpu_before), (until_s, tokens, cpu) = counts
    return Pace((tokens - tokens_before) / (until_s - from_s), (cpu - cpu_before) / (until_s - from_s))


async def measure(url: str, model: str, options: argparse.Namespace) -> None:
    """Print the figures of each round and what they come to."""
    without: list[Pace] = []
    with_pages: list[Pace] = []
    async with httpx.AsyncClient(base_url=url, timeout=120) as http:
        account = {"name": "ada", "password": "long enough to be one"}
        (await http.post("/auth/register", json=account)).raise_for_status()
        prose = Prose(time.time_ns())
        streams = [asyncio.create_task(keep_asking(http, model, prose)) for _ in range(NUM_STREAMS)]
        for number in range(options.rounds):
            without.append(await measure_pace(http, options.seconds))
            async with AsyncExitStack() as stack:
                pages = [
                    await stack.enter_async_context(open_page(http, PAGES[index % len(PAGES)]))
                    for index in range(options.consoles)
                ]
                with_pages.append(await measure_pace(http, options.seconds))
                told = sum(page.num_messages for page in pages), sum(page.num_bytes for page in pages)
            silent = [page.path for page in pages if not page.num_messages and page.path in _LIVELY]
            if silent:
                raise ValueError(f"these pages were told nothing, and so are not alive: {silent}")
            print(
                f"round {number + 1}: {without[-1].tokens_per_s:.1f} tokens/s with none, "
                f"{with_pages[-1].tokens_per_s:.1f} with {options.consoles} ({told[0]} messages, "
                f"{told[1] / 1024:.0f} KiB); gateway {without[-1].gateway_cores:.3f} and "
                f"{with_pages[-1].gateway_cores:.3f} cores",
                flush=True,
            )
        for stream in streams:
            stream.cancel()
            with suppress(asyncio.CancelledError):
                await stream
    base, loaded = (statistics.median(pace.tokens_per_s for pace in paces) for paces in (without, with_pages))
    cores = [statistics.median(pace.gateway_cores for pace in paces) for paces in (without, with_pages)]
    print(f"median {base:.1f} and {loaded:.1f} tokens/s: {options.consoles} consoles cost {1 - loaded / base:.1%}")
    print(f"the gateway takes {cores[0]:.3f} and {cores[1]:.3f} cores: they cost {cores[1] - cores[0]:.3f} of one")


def main() -> None:
    """Start the server and measure."""
    parser = argparse.ArgumentParser(description="What open consoles cost the API.")
    parser.add_argument("--consoles", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        starter = import_starter(Path(home))
        with running(OURS, starter, Path(home), find_openblas()) as url:
            asyncio.run(measure(url, starter.name, options))


if __name__ == "__main__":
    main()
