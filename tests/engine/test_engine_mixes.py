"""The engine over a runner on the host: each request gets the tokens it would get alone, whatever else goes on."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_manager.engine.blocks import BLOCK_SIZE
from mlx_manager.engine.config import EngineConfig, Lookahead
from mlx_manager.engine.drafting import Guesser
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.requests import EngineRequest, RequestBroke, TokenEvent
from mlx_manager.engine.sequence import SamplingParams
from mlx_manager.engine.windows import WindowSlots
from mlx_manager.ir import FinishReason, Priority
from tests.engine.host_arena import POISON, HostArena, Oracle
from tests.engine.host_runner import HostRunner

VOCABULARY = 8
EOS = frozenset({3})
SHARED = (0, 1, 2) * 40


@dataclass(frozen=True)
class Visit:
    """One request: when it comes, what it asks for, and when it goes away by itself, counted in steps."""

    num_shared: int
    tail: tuple[int, ...]
    params: tuple[SamplingParams, ...]
    max_output_tokens: int
    has_eos: bool
    priority: Priority
    comes: int
    aborts: int | None = None
    stops: tuple[int, int] | None = None
    """(choice, tokens): end that choice early, as a stop string does."""
    is_poisoned: bool = False


@dataclass
class Received:
    """What came of one request."""

    tokens: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    ends: dict[int, FinishReason] = field(default_factory=dict)
    is_broken: bool = False
    is_over: bool = False


class House:
    """An engine over a host arena, and everything that came out of it."""

    def __init__(
        self,
        num_blocks: int = 8,
        *,
        lookahead: Lookahead = Lookahead.NONE,
        max_batch_size: int = 32,
        max_step_tokens: int = 512,
        max_draft_tokens: int = 0,
        draft_model: Guesser | None = None,
        slots: WindowSlots | None = None,
    ) -> None:
        self.now_s = 0.0
        num_slots, window = (None, None) if slots is None else (slots.num_slots, slots.window)
        self.runner = HostRunner(HostArena(num_blocks, VOCABULARY, window=window, num_slots=num_slots))
        self.engine = Engine(
            self.runner,
            EngineConfig(
                num_blocks=num_blocks,
                max_batch_size=max_batch_size,
                max_step_tokens=max_step_tokens,
                lookahead=lookahead,
                max_draft_tokens=max_draft_tokens,
                slots=slots,
            ),
            clock=self._clock,
            draft_model=draft_model,
        )
        self.received: dict[str, Received] = {}
        self._visits: dict[str, Visit] = {}

    def _clock(self) -> float:
        self.now_s += 0.001
        return self.now_s

    def add(self, name: str, visit: Visit) -> None:
        self.received[name] = Received()
        self._visits[name] = visit
        self.engine.add(
            EngineRequest(
                request_id=name,
                prompt_token_ids=prompt_of(visit),
                params=visit.params,
                max_output_tokens=visit.max_output_tokens,
                eos_token_ids=EOS if visit.has_eos else frozenset(),
                priority=visit.priority,
            )
        )

    def abort(self, name: str) -> None:
        self.received[name].is_over = True
        self.engine.forget(name, is_aborted=True)

    def step(self) -> None:
        for event in self.engine.step():
            self._take(event)
        self.engine.scheduler.check_integrity()

    def finish(self) -> None:
        for _ in range(20_000):
            if not self.engine.has_work:
                break
            self.step()
        assert not self.engine.has_work, "something starves"
        blocks = self.engine.scheduler.blocks
        assert blocks.num_used == 0
        assert blocks.num_free + blocks.num_cached == blocks.num_blocks

    def _take(self, event: TokenEvent | RequestBroke) -> None:
        received, visit = self.received[event.request_id], self._visits[event.request_id]
        assert not received.is_over, "an event of a request that is over"
        if isinstance(event, RequestBroke):
            received.is_broken = received.is_over = True
            return
        assert event.choice not in received.ends, "a token behind the last one"
        tokens = received.tokens[event.choice]
        tokens.append(event.chosen.token_id)
        if event.finish is not None:
            received.ends[event.choice] = event.finish
            assert event.is_end_token == (event.finish is FinishReason.STOP)
        elif visit.stops == (event.choice, len(tokens)):
            received.ends[event.choice] = FinishReason.STOP
            self.engine.finish_choice(event.request_id, event.choice)
        if len(received.ends) == len(visit.params):
            assert self.engine.usage(event.request_id).num_output_tokens == sum(map(len, received.tokens.values()))
            received.is_over = True
            self.engine.forget(event.request_id)


def prompt_of(visit: Visit) -> tuple[int, ...]:
    return (*SHARED[: visit.num_shared], *((POISON,) if visit.is_poisoned else ()), *visit.tail)


def answers_alone(visit: Visit, oracle: Oracle) -> list[list[int]]:
    """The answer of each choice, as the model gives it alone; one that stops early is cut there."""
    eos = EOS if visit.has_eos else frozenset[int]()
    answers = [oracle.answer(prompt_of(visit), one, visit.max_output_tokens, eos) for one in visit.params]
    if visit.stops is not None and visit.stops[0] < len(answers):
        choice, num_tokens = visit.stops
        answers[choice] = answers[choice][:num_tokens]
    return answers


greedy_or_sampled = st.builds(SamplingParams, temperature=st.sampled_from((0.0, 1.0)), seed=st.integers(0, 3))
visits = st.builds(
    Visit,
    num_shared=st.one_of(st.integers(0, 70), st.sampled_from((31, 32, 33, 64))),
    tail=st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=5).map(tuple),
    params=st.lists(greedy_or_sampled, min_size=1, max_size=4).map(tuple),
    max_output_tokens=st.integers(1, 50),
    has_eos=st.booleans(),
    priority=st.sampled_from(Priority),
    comes=st.integers(0, 30),
    aborts=st.one_of(st.none(), st.integers(0, 40)),
    stops=st.one_of(st.none(), st.tuples(st.integers(0, 3), st.integers(1, 20))),
)


def run_mix(house: House, mix: list[Visit]) -> None:
    """Let the visits come and go, and hold what each was answered against what it is answered alone."""
    for step in range(80):
        for index, visit in enumerate(mix):
            if visit.comes == step:
                house.add(str(index), visit)
            if visit.aborts is not None and visit.comes + visit.aborts == step:
                house.abort(str(index))
        house.step()
    house.finish()
    oracle = Oracle(VOCABULARY, house.runner.arena.windows)
    for index, visit in enumerate(mix):
        received = house.received[str(index)]
        for choice, alone in enumerate(answers_alone(visit, oracle)):
            tokens = received.tokens[choice]
            assert tokens == alone[: len(tokens)]
            if visit.aborts is None:
                assert tokens == alone


def run_with_bad(house: House, everyone: dict[str, Visit], bad: set[str]) -> None:
    """Let everyone come: those in `bad` are ended, and the others are answered as they are alone."""
    for step in range(60):
        for name, visit in everyone.items():
            if visit.comes == step:
                house.add(name, visit)
        house.step()
    house.finish()
    oracle = Oracle(VOCABULARY, house.runner.arena.windows)
    for name, visit in everyone.items():
        received = house.received[name]
        assert received.is_broken == (name in bad)
        if name not in bad:
            assert [received.tokens[choice] for choice in range(len(visit.params))] == answers_alone(visit, oracle)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    mix=st.lists(visits, min_size=1, max_size=8),
    num_blocks=st.integers(4, 20),
    lookahead=st.sampled_from(Lookahead),
    max_batch_size=st.integers(1, 8),
    max_step_tokens=st.sampled_from((1, 16, 48, 512)),
)
def test_every_request_gets_the_tokens_it_gets_alone(
    mix: list[Visit], num_blocks: int, lookahead: Lookahead, max_batch_size: int, max_step_tokens: int
) -> None:
    house = House(num_blocks, lookahead=lookahead, max_batch_size=max_batch_size, max_step_tokens=max_step_tokens)
    run_mix(house, mix)


def plain(num_shared: int = 40, max_output_tokens: int = 40, **more: object) -> Visit:
    params = more.pop("params", (SamplingParams(temperature=0.0),))
    tail, priority = more.pop("tail", (5,)), more.pop("priority", Priority.NORMAL)
    visit = {"num_shared": num_shared, "tail": tail, "params": params, "max_output_tokens": max_output_tokens}
    return Visit(**{**visit, "has_eos": False, "priority": priority, "comes": 0, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("lookahead", list(Lookahead))
@pytest.mark.parametrize("max_output_tokens", [1, 2, 3, BLOCK_SIZE])
def test_an_answer_has_as_many_tokens_as_its_limit(lookahead: Lookahead, max_output_tokens: int) -> None:
    house = House(lookahead=lookahead)
    house.add("one", plain(max_output_tokens=max_output_tokens))
    house.finish()
    assert len(house.received["one"].tokens[0]) == max_output_tokens
    assert house.received["one"].ends == {0: FinishReason.LENGTH}


def test_eight_that_arrive_together_prefill_their_prefix_once() -> None:
    house = House(num_blocks=40, max_step_tokens=48)
    for index in range(8):
        house.add(str(index), plain(num_shared=96, max_output_tokens=2, tail=(index % VOCABULARY, 7)))
    house.finish()
    counters = house.engine.counters
    assert counters.num_prompt_tokens == 8 * 98
    assert counters.num_cached_tokens >= 7 * 96


@pytest.mark.parametrize("lookahead", list(Lookahead))
def test_a_pool_too_small_for_all_preempts_and_nobody_notices(lookahead: Lookahead) -> None:
    house, oracle = House(num_blocks=6, lookahead=lookahead), Oracle(VOCABULARY)
    mix = {str(index): plain(num_shared=20 + index, max_output_tokens=90) for index in range(4)}
    for name, visit in mix.items():
        house.add(name, visit)
    house.finish()
    assert house.engine.scheduler.num_preemptions > 0
    for name, visit in mix.items():
        assert [house.received[name].tokens[0]] == answers_alone(visit, oracle)


def test_what_counts_as_cached_is_what_others_computed() -> None:
    house = House(num_blocks=6, max_step_tokens=2)
    house.add("urgent", plain(num_shared=28, max_output_tokens=80, priority=Priority.HIGH))
    house.add("other", plain(num_shared=0, tail=(7,) * 112, max_output_tokens=8, priority=Priority.LOW))
    num_cached: list[int] = []
    while house.engine.has_work:
        house.step()
        if not house.received["other"].is_over:
            num_cached.append(house.engine.usage("other").num_cached_tokens)
    assert house.engine.scheduler.num_preemptions > 0
    assert max(num_cached) == 0


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    mix=st.lists(visits, min_size=1, max_size=5),
    bad=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20)), min_size=1, max_size=3),
    num_blocks=st.integers(5, 12),
)
def test_values_that_are_not_finite_end_their_own_request_only(
    mix: list[Visit], bad: list[tuple[int, int]], num_blocks: int
) -> None:
    house = House(num_blocks, max_step_tokens=512)
    everyone = {str(index): visit for index, visit in enumerate(mix)}
    for index, (num_shared, comes) in enumerate(bad):
        params = (SamplingParams(), SamplingParams(seed=1))
        everyone[f"bad {index}"] = plain(num_shared, 10, params=params, comes=comes, is_poisoned=True)
    run_with_bad(house, everyone, {name for name, visit in everyone.items() if visit.is_poisoned})


@pytest.mark.parametrize("lookahead", list(Lookahead))
def test_an_idle_engine_is_done(lookahead: Lookahead) -> None:
    house = House(lookahead=lookahead)
    house.add("one", plain())
    house.step()
    house.abort("one")
    house.finish()
    num_launches = house.runner.num_launches
    house.step()
    assert house.runner.num_launches == num_launches
    assert house.engine.num_waiting_requests == 0


def test_a_request_that_could_never_run_is_refused() -> None:
    house = House(num_blocks=4)
    with pytest.raises(ValueError, match="do not fit"):
        house.add("long", plain(num_shared=100, max_output_tokens=60))
    with pytest.raises(ValueError, match="needs a prompt"):
        house.add("empty", plain(num_shared=0, tail=()))
    assert not house.engine.has_work
