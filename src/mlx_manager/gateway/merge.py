"""Several answers as one: the prompts of one completion request run side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec

from mlx_manager.ir import Event, Finished, PromptReady, Usage

_MAX_UNREAD_EVENTS = 64


async def merge(streams: Sequence[AsyncGenerator[Event, None]], num_choices: int) -> AsyncGenerator[Event, None]:
    """The events of `streams` as they come, as the one answer to all of them.

    Choice c of stream s becomes choice s * num_choices + c; one `Finished` at the end has the sum of all usage.
    The first failure of any stream is raised, and the others are closed; so they are when this one is.
    """
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for event in only:
                yield event
        return
    arrivals: asyncio.Queue[tuple[int, Event | BaseException]] = asyncio.Queue(_MAX_UNREAD_EVENTS)
    pumps = [asyncio.create_task(_pump(index, stream, arrivals)) for index, stream in enumerate(streams)]
    finished: list[Usage] = []
    try:
        while len(finished) < len(streams):
            index, arrival = await arrivals.get()
            match arrival:
                case BaseException():
                    raise arrival
                case Finished(usage):
                    finished.append(usage)
                case PromptReady():
                    yield arrival
                case _:
                    yield msgspec.structs.replace(arrival, choice=index * num_choices + arrival.choice)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
    yield Finished(_sum(finished))


async def _pump(
    index: int, stream: AsyncGenerator[Event, None], arrivals: asyncio.Queue[tuple[int, Event | BaseException]]
) -> None:
    try:
        async with aclosing(stream):
            async for event in stream:
                await arrivals.put((index, event))
    except Exception as error:
        # not handled here: it is raised again by `merge`, in the task that reads
        await arrivals.put((index, error))


def _sum(usages: Sequence[Usage]) -> Usage:
    return Usage(
        num_prompt_tokens=sum(usage.num_prompt_tokens for usage in usages),
        num_cached_tokens=sum(usage.num_cached_tokens for usage in usages),
        num_completion_tokens=sum(usage.num_completion_tokens for usage in usages),
        num_reasoning_tokens=sum(usage.num_reasoning_tokens for usage in usages),
    )
