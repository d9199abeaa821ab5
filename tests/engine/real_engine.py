"""The engine on the real starter model, driven in this process, and what mlx-lm itself answers."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import mlx.core as mx
from mlx_lm import stream_generate

from benchmarks.steady_questions import even_clock
from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.batch import Chosen
from mlx_manager.engine.config import EngineConfig, Lookahead
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.probe import ModelCaches
from mlx_manager.engine.requests import EngineRequest, RequestBroke
from mlx_manager.engine.runner import PagedRunner
from mlx_manager.engine.sequence import SamplingParams
from mlx_manager.ir import FinishReason, Priority
from mlx_manager.models.loading import LoadedModel

GREEDY = SamplingParams(temperature=0.0)
ANSWER = 8
LONG_ANSWER = 24
FOLLOW_UP = "chat, second turn"
MIN_MARGIN = 1e-3
"""Least distance between the two likeliest tokens' log-probabilities: below it rounding may decide."""


@dataclass(frozen=True, repr=False)
class Starter:
    """The starter model in float32, its attention layers, and prompts with mlx-lm's answers to them."""

    loaded: LoadedModel
    caches: ModelCaches
    prompts: Mapping[str, tuple[int, ...]]
    answers: Mapping[str, tuple[int, ...]]
    """Greedy, `ANSWER` tokens or to the end token; `LONG_ANSWER` for the prompts of `LONG_ANSWERED`."""
    logprobs: Mapping[str, tuple[float, ...]]
    """Of the tokens of `answers`."""

    def ask(self, name: str, num_tokens: int, *, num_choices: int = 1, key: str | None = None) -> EngineRequest:
        """A greedy request of `num_tokens` for the prompt `name`; its id is `key`, or the name."""
        return EngineRequest(
            request_id=key or name,
            prompt_token_ids=self.prompts[name],
            params=(GREEDY,) * num_choices,
            max_output_tokens=num_tokens,
            eos_token_ids=self.loaded.eos_token_ids,
        )

    def expected(self, names: Iterable[str], num_tokens: int) -> dict[str, list[tuple[int, ...]]]:
        """What `Drive.tokens` has to be after one greedy request for each of `names`."""
        return {name: [self.answers[name][:num_tokens]] for name in names}


def greedy_answer(
    loaded: LoadedModel, prompt: tuple[int, ...], num_tokens: int
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """What mlx-lm generates: the tokens and their log-probabilities.

    Fails where two tokens are so close that rounding could choose between them.
    """
    tokens: list[int] = []
    logprobs: list[float] = []
    for response in stream_generate(loaded.model, loaded.tokenizer, list(prompt), max_tokens=num_tokens):
        best_two = mx.topk(response.logprobs, 2)
        assert float(mx.max(best_two) - mx.min(best_two)) > MIN_MARGIN, (
            f"a tie after {len(tokens)} tokens: choose another prompt"
        )
        tokens.append(int(response.token))
        logprobs.append(float(response.logprobs[response.token].item()))
    return tuple(tokens), tuple(logprobs)


@dataclass
class Drive:
    """An engine with what came out of it, by request id."""

    engine: Engine
    runner: PagedRunner
    chosen: dict[str, list[list[Chosen]]] = field(default_factory=dict)
    finishes: dict[str, list[FinishReason | None]] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    cached: dict[str, int] = field(default_factory=dict)
    """Prompt tokens found in the prefix cache."""

    def add(self, *requests: EngineRequest) -> None:
        for request in requests:
            self.chosen[request.request_id] = [[] for _ in request.params]
            self.finishes[request.request_id] = [None for _ in request.params]
            self.engine.add(request)

    def step(self) -> None:
        """One step of the engine; a request whose choices have all ended is forgotten, as the worker does."""
        for event in self.engine.step():
            if isinstance(event, RequestBroke):
                self.broken.add(event.request_id)
                continue
            self.chosen[event.request_id][event.choice].append(event.chosen)
            if event.finish is None:
                continue
            self.finishes[event.request_id][event.choice] = event.finish
            if all(self.finishes[event.request_id]):
                self.cached[event.request_id] = self.engine.usage(event.request_id).num_cached_tokens
                self.engine.forget(event.request_id)

    def steps(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.step()

    def run(self, *requests: EngineRequest) -> dict[str, list[tuple[int, ...]]]:
        """Add the requests, step until nothing is left, and prove that no block is. Returns all tokens so far."""
        self.add(*requests)
        while self.engine.has_work:
            self.step()
        self.engine.scheduler.check_integrity()
        assert self.engine.scheduler.blocks.num_used == 0
        return self.tokens()

    def run_staggered(self, requests: Iterable[EngineRequest], *, every: int) -> dict[str, list[tuple[int, ...]]]:
        """As `run`, but one more request joins every so many steps."""
        for request in requests:
            self.add(request)
            self.steps(every)
        return self.run()

    def tokens(self) -> dict[str, list[tuple[int, ...]]]:
        """The tokens of every choice of every request."""
        return {key: [tuple(c.token_id for c in choice) for choice in rows] for key, rows in self.chosen.items()}


def drive(
    starter: Starter,
    *,
    num_blocks: int = 192,
    lookahead: Lookahead = Lookahead.NONE,
    max_batch_size: int = 32,
    max_step_tokens: int = 512,
    attention: DecodeAttention = DecodeAttention.GATHER_MM,
    min_shared_blocks: int | None = None,
    max_draft_tokens: int = 0,
    kv_cache_bits: int | None = None,
) -> Drive:
    """A new engine over the starter model."""
    runner = PagedRunner(starter.loaded.model, starter.caches, num_blocks, attention)
    if kv_cache_bits is not None:
        runner.lay_out(starter.caches.quantized(kv_cache_bits), num_blocks)
    runner.attention.min_shared_blocks = min_shared_blocks
    config = EngineConfig(
        num_blocks=num_blocks,
        max_batch_size=max_batch_size,
        max_step_tokens=max_step_tokens,
        lookahead=lookahead,
        max_draft_tokens=max_draft_tokens,
    )
    # With drafts, all steps take the same by this clock, and so further rows are cheap: every guess is worth it.
    clock = even_clock() if max_draft_tokens else time.monotonic
    return Drive(Engine(runner, config, clock), runner)


def sampled(
    starter: Starter, name: str, params: SamplingParams, num_tokens: int, *, key: str | None = None
) -> EngineRequest:
    """A request for the prompt `name` with its own sampling parameters, that no end token ends."""
    return EngineRequest(
        request_id=key or name,
        prompt_token_ids=starter.prompts[name],
        params=(params,),
        max_output_tokens=num_tokens,
        priority=Priority.NORMAL,
    )


def repeated(names: Iterable[str], count: int) -> list[tuple[str, str]]:
    """`count` (prompt name, request id) pairs, going round the names."""
    return [(name, f"{name} #{index}") for index, name in enumerate(itertools.islice(itertools.cycle(names), count))]
