"""The steady load itself: who joins, leaves and is cancelled when, and whether each gets what it would get alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import mlx.core as mx
import psutil

from mlx_manager.engine.engine import Engine
from mlx_manager.engine.requests import EngineRequest, RequestBroke, TokenEvent
from mlx_manager.engine.sequence import SamplingParams
from mlx_manager.ir import Priority


@dataclass(frozen=True)
class Limits:
    """How much there is to share. Few enough blocks that running sequences get into each other's way."""

    max_tokens: int = 2000
    num_blocks: int = 64
    max_batch_size: int = 12
    max_step_tokens: int = 256
    max_live: int = 18
    """Requests at once, waiting ones included."""
    max_answer_tokens: int = 120
    steps_per_wave: int = 400
    """After so many steps nobody joins until everybody has left."""


@dataclass(frozen=True)
class Way:
    """One way to sample, and what is answered alone."""

    params: SamplingParams
    answer: tuple[int, ...]


@dataclass(frozen=True)
class Question:
    """A prompt and the ways to answer it."""

    prompt: tuple[int, ...]
    ways: tuple[Way, ...]


@dataclass(frozen=True)
class Moment:
    """Memory at an idle moment."""

    step: int
    active_bytes: int
    resident_bytes: int


@dataclass
class Tally:
    """What happened."""

    num_steps: int = 0
    num_requests: int = 0
    num_cancelled: int = 0
    num_forking: int = 0
    num_stopped_choices: int = 0
    num_compared_tokens: int = 0
    num_differences: int = 0
    num_preemptions: int = 0
    num_cached_tokens: int = 0
    num_idle_moments: int = 0
    moments: list[Moment] = field(default_factory=list)


@dataclass
class _Live:
    expected: list[tuple[int, ...]]
    """What each choice has to say, its end included."""
    cancelled_after: int | None
    """Steps."""
    stops_after: int | None
    """Tokens after which the first choice is ended from outside, as a stop string does."""
    tokens: list[int]
    """How many each choice has said."""
    ended: list[bool]
    age_steps: int = 0


class Load:
    """Plays the load over an engine. Everything is drawn from `rng`, so that a run can be repeated."""

    def __init__(self, engine: Engine, questions: list[Question], rng: Random, limits: Limits) -> None:
        self._engine = engine
        self._questions = questions
        self._rng = rng
        self._limits = limits
        self._live: dict[str, _Live] = {}
        self._process = psutil.Process()
        self.tally = Tally()

    def play(self, num_steps: int) -> Tally:
        """Play at least `num_steps` steps, to an idle moment. Raises `AssertionError` at the first difference."""
        wave_ends = 0
        while self.tally.num_steps < num_steps or self._live:
            if not self._live and self.tally.num_steps >= wave_ends:
                wave_ends = self.tally.num_steps + self._limits.steps_per_wave
                most = self._rng.choice((1, 4, self._limits.max_live, self._limits.max_live))
            if self.tally.num_steps < min(wave_ends, num_steps) and len(self._live) < most and self._rng.random() < 0.6:
                self._join()
            self._step()
            if not self._live:
                self._check_idle()
        return self.tally

    def _join(self) -> None:
        rng, question = self._rng, self._rng.choice(self._questions)
        ways = rng.choices(question.ways, k=rng.choice((1, 1, 1, 2, 3)))
        num_possible = min(len(way.answer) for way in ways)
        num_tokens = rng.choice((num_possible, rng.randint(1, num_possible)))
        # An end token that the first choice really says, for some.
        eos = frozenset({ways[0].answer[rng.randrange(num_tokens)]}) if rng.random() < 0.2 else frozenset[int]()
        name = str(self.tally.num_requests)
        self._live[name] = _Live(
            expected=[_up_to_end(way.answer[:num_tokens], eos) for way in ways],
            cancelled_after=rng.randrange(60) if rng.random() < 0.2 else None,
            stops_after=rng.randrange(1, 30) if rng.random() < 0.1 else None,
            tokens=[0] * len(ways),
            ended=[False] * len(ways),
        )
        self.tally.num_requests += 1
        self.tally.num_forking += len(ways) > 1
        self._engine.add(
            EngineRequest(
                request_id=name,
                prompt_token_ids=question.prompt,
                params=tuple(way.params for way in ways),
                max_output_tokens=num_tokens,
                eos_token_ids=eos,
                priority=rng.choice(list(Priority)),
            )
        )

    def _step(self) -> None:
        for name, live in list(self._live.items()):
            if live.cancelled_after == live.age_steps:
                self._engine.forget(name, is_aborted=True)
                self.tally.num_cancelled += 1
                del self._live[name]
            live.age_steps += 1
        for event in self._engine.step():
            if isinstance(event, RequestBroke):
                raise AssertionError(f"step {self.tally.num_steps}: request {event.request_id} broke: {event.reason}")
            self._take(event)
        self.tally.num_steps += 1

    def _take(self, event: TokenEvent) -> None:
        live, choice = self._live[event.request_id], event.choice
        place, expected = live.tokens[choice], live.expected[choice]
        self.tally.num_compared_tokens += 1
        if place >= len(expected) or event.chosen.token_id != expected[place]:
            self.tally.num_differences += 1
            alone = expected[place] if place < len(expected) else "nothing more"
            raise AssertionError(
                f"step {self.tally.num_steps}: token {place} of request {event.request_id}, choice {choice}, is "
                f"{event.chosen.token_id}; alone it is {alone}"
            )
        live.tokens[choice] += 1
        if event.finish is not None:
            assert live.tokens[choice] == len(expected), "an answer that ends too early"
            live.ended[choice] = True
        elif choice == 0 and live.tokens[0] == live.stops_after:
            self._engine.finish_choice(event.request_id, 0)
            self.tally.num_stopped_choices += 1
            live.ended[0] = True
        if all(live.ended):
            self._engine.forget(event.request_id)
            del self._live[event.request_id]

    def _check_idle(self) -> None:
        """Nobody is here: let the engine tidy up, then count everything."""
        while self._engine.has_work:
            assert not self._engine.step(), "an event of a request that is over"
        scheduler = self._engine.scheduler
        scheduler.check_integrity()
        blocks = scheduler.blocks
        assert blocks.num_used == 0, "a block that nobody gave back"
        assert blocks.num_free + blocks.num_cached == blocks.num_blocks
        assert not scheduler.running, "a sequence that never left"
        assert len(scheduler.waiting) == 0, "a sequence that still waits"
        self.tally.num_preemptions = scheduler.num_preemptions
        self.tally.num_cached_tokens = self._engine.counters.num_cached_tokens
        self.tally.num_idle_moments += 1
        resident_bytes = self._process.memory_info().rss
        self.tally.moments.append(Moment(self.tally.num_steps, mx.get_active_memory(), resident_bytes))


def _up_to_end(answer: tuple[int, ...], eos: frozenset[int]) -> tuple[int, ...]:
    ends = [place for place, token in enumerate(answer) if token in eos]
    return answer[: ends[0] + 1] if ends else answer
