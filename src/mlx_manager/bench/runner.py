"""Plays a workload against a server and measures it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx

from mlx_manager.bench.client import Message, ServerRefused, StreamRecord, Target, stream_chat
from mlx_manager.bench.figures import Figures
from mlx_manager.bench.prose import Prose
from mlx_manager.bench.workloads import Conversation, Scale, Workload


@dataclass(frozen=True)
class Measurement:
    """One workload played once. `errors` are the distinct complaints of failed requests."""

    workload: str
    figures: Figures
    errors: tuple[str, ...]


async def measure(target: Target, workload: Workload, prose: Prose, scale: Scale) -> Measurement:
    """Play `workload` once. Failed requests are counted in the figures; nothing is raised for them."""
    conversations = workload.plan(prose, scale)
    async with target.open() as client:
        play = _Play(client, target.model, conversations)
        per_conversation = await asyncio.gather(*(play.converse(place) for place in range(len(conversations))))
    streams = [stream for streams in per_conversation for stream in streams]
    errors = tuple(sorted({stream.error for stream in streams if stream.error is not None}))
    return Measurement(workload.name, Figures.of(streams), errors)


async def tokens_per_word(target: Target, seed: int = 0) -> float:
    """How many tokens the served model makes of a word of our prose; also warms the server up.

    Asks twice, so that what a chat template adds cancels out. Raises `ServerRefused` when the server does not answer.
    """
    prose = Prose(seed)
    short, long = prose.passage(30), prose.passage(200)
    async with target.open() as client:
        num_tokens = [await _count_prompt(client, target.model, text) for text in (short, long)]
    num_words = len(long.split()) - len(short.split())
    return (num_tokens[1] - num_tokens[0]) / num_words


async def first_model(url: str, api_key: str | None = None) -> str:
    """The first model that the server lists. Raises `ServerRefused` when it lists none, `httpx.HTTPError` else."""
    async with Target(url, "", api_key).open() as client:
        response = await client.get("/v1/models", timeout=30.0)
        if response.status_code in (401, 403):
            raise ServerRefused("it wants an API key: give one with --api-key, or in MLX_MANAGER_API_KEY")
        response.raise_for_status()
        models = response.json().get("data") or []
    if not models:
        raise ServerRefused("the server lists no models; name one")
    return str(models[0]["id"])


async def _count_prompt(client: httpx.AsyncClient, model: str, text: str) -> int:
    record = await stream_chat(client, model, [{"role": "user", "content": text}], max_tokens=4)
    if record.error is not None:
        raise ServerRefused(record.error)
    if record.num_prompt_tokens is None:
        raise ServerRefused("the server sent no usage, so the length of its prompts is unknown")
    return record.num_prompt_tokens


class _Play:
    """One workload while it runs. Counts the pieces each conversation received, for one that waits on the others."""

    def __init__(self, client: httpx.AsyncClient, model: str, conversations: list[Conversation]) -> None:
        self._client = client
        self._model = model
        self._conversations = conversations
        self._num_pieces = [0] * len(conversations)
        self._is_over = [False] * len(conversations)
        self._others_are_running = asyncio.Event()

    async def converse(self, place: int) -> list[StreamRecord]:
        """Play one conversation to its end, or to its first failure."""
        conversation = self._conversations[place]
        if conversation.after_tokens is None:
            await asyncio.sleep(conversation.start_s)
        else:
            await self._others_are_running.wait()
        messages: list[Message] = []
        if conversation.system is not None:
            messages.append({"role": "system", "content": conversation.system})
        streams: list[StreamRecord] = []
        for question in conversation.questions:
            messages.append({"role": "user", "content": question})
            stream = await stream_chat(
                self._client,
                self._model,
                messages,
                max_tokens=conversation.max_tokens,
                is_intruder=conversation.after_tokens is not None,
                on_piece=lambda: self._count_piece(place),
            )
            streams.append(stream)
            if stream.error is not None:
                break
            messages.append({"role": "assistant", "content": stream.text})
        self._is_over[place] = True
        self._check_others()
        return streams

    def _count_piece(self, place: int) -> None:
        self._num_pieces[place] += 1
        self._check_others()

    def _check_others(self) -> None:
        wanted = max(conversation.after_tokens or 0 for conversation in self._conversations)
        if all(
            conversation.after_tokens is not None or is_over or num_pieces >= wanted
            for conversation, is_over, num_pieces in zip(
                self._conversations, self._is_over, self._num_pieces, strict=True
            )
        ):
            self._others_are_running.set()
