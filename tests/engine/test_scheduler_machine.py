"""The scheduler against a model of the arena: hypothesis adds, aborts and steps, and after every step every row must
find exactly its own past through its block table. No MLX.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mlx_manager.engine.batch import Batch
from mlx_manager.engine.blocks import BLOCK_SIZE
from mlx_manager.engine.checkpoints import CheckpointBook
from mlx_manager.engine.pacing import StepPacer
from mlx_manager.engine.prefix import ROOT_KEY, chain_keys
from mlx_manager.engine.residency import Residency
from mlx_manager.engine.scheduler import Scheduler
from mlx_manager.engine.sequence import SamplingParams, Sequence, Status
from mlx_manager.engine.windows import Window
from mlx_manager.ir import Priority
from tests.engine.host_arena import HostArena, Oracle, stored_contents
from tests.engine.host_store import HostStore

VOCABULARY = 8
AGEING_S = 5.0
BASES: tuple[tuple[int, ...], ...] = ((0, 1) * 60, (0,) * 120, tuple(range(VOCABULARY)) * 15)
"""Prompts begin with a piece of one of these, so that prefixes collide in whole blocks and in parts of them."""


@dataclass(frozen=True)
class Flight:
    """A step on its way: its batch and the tokens that it will turn out to have chosen."""

    batch: Batch
    tokens: list[int | None]


class Driver:
    """Does what the engine does around a scheduler, over a host arena, and checks every step."""

    def __init__(
        self,
        num_blocks: int,
        max_batch_size: int,
        max_step_tokens: int,
        modes: tuple[bool, bool],
        *,
        num_checkpoints: int | None = None,
        window: int | None = None,
        num_slots: int | None = None,
        store: HostStore | None = None,
    ) -> None:
        """With `num_slots` only one layer has the window, and an arena of so many slots, or of as many as it needs."""
        self.store = store
        self.is_pipelined, self.has_prefix_cache = modes
        self.scheduler = Scheduler(
            num_blocks=num_blocks,
            max_batch_size=max_batch_size,
            pacer=StepPacer(max_step_tokens),
            ageing_s=AGEING_S,
            has_prefix_cache=self.has_prefix_cache,
            checkpoints=None if num_checkpoints is None else CheckpointBook(num_checkpoints),
            window=None if window is None or num_slots is not None else Window(window, max_step_tokens),
            store=store,
        )
        if window is not None and num_slots is not None:
            slots_window = Window(window, max_step_tokens)
            num_slots = max(num_slots, slots_window.max_held_blocks)
            self.scheduler.keep_in_slots(Residency(num_slots, slots_window))
        self.num_checkpoints = num_checkpoints
        self._arena_shape = (window, num_slots)
        self.arena = self._new_arena()
        self.oracle = Oracle(VOCABULARY, self.arena.windows)
        self.now_s = 0.0
        self.requests: list[list[Sequence]] = []
        self.ended: dict[int, str] = {}
        """Why each sequence that is over ended."""
        self.flight: Flight | None = None
        self._ids = itertools.count()
        self._by_id: dict[int, Sequence] = {}

    def _new_arena(self) -> HostArena:
        window, num_slots = self._arena_shape
        return HostArena(
            self.scheduler.blocks.num_blocks,
            VOCABULARY,
            has_states=self.num_checkpoints is not None,
            window=window,
            num_slots=num_slots,
        )

    def add(
        self, prompt: tuple[int, ...], max_output_tokens: int, params: tuple[SamplingParams, ...], **more: object
    ) -> None:
        """Queue a request with one choice for each of `params`, shortened to what the pool holds."""
        capacity = 1 << 20 if self.scheduler.is_endless else self.scheduler.blocks.num_blocks * BLOCK_SIZE
        prompt = prompt[: capacity - 1]
        sequences = [
            Sequence(
                seq_id=next(self._ids),
                request_id=str(len(self.requests)),
                choice=choice,
                token_ids=list(prompt),
                num_prompt_tokens=len(prompt),
                max_output_tokens=min(max_output_tokens, capacity - len(prompt)),
                params=one,
                arrival_s=self.now_s,
                **more,  # type: ignore[arg-type]
            )
            for choice, one in enumerate(params)
        ]
        sequences[0].forks = sequences[1:]
        self._by_id.update((seq.seq_id, seq) for seq in sequences)
        self.requests.append(sequences)
        self.scheduler.add(sequences[0])

    def end(self, sequences: list[Sequence], why: str, *, is_tainted: bool = False) -> None:
        """Finish sequences from outside."""
        for seq in sequences:
            self.scheduler.finish(seq, is_tainted=is_tainted)
            self.ended.setdefault(seq.seq_id, why)

    def step(self) -> None:
        """One step of the engine, checked."""
        waiting_before = list(self.scheduler.waiting)
        could_run = {seq.seq_id for seq in waiting_before if seq.num_sampling == 0}
        has_flight = self.flight is not None
        has_rows = bool(waiting_before or self.scheduler.running)
        batch = self.scheduler.schedule()
        assert batch.segments or batch.loads or has_flight or not has_rows, (
            "there is work, nothing is under way, and nothing is done"
        )
        assert batch.segments or not batch.copies, "copies that no runner is asked to make"
        self._check_order([seq for seq in waiting_before if seq.seq_id in could_run])
        if self.store is not None:
            self.store.take(batch.spills, batch.state_spills, self.arena)
        launched = None
        if not batch.is_empty:
            launched = Flight(batch, self.arena.run(batch, [] if self.flight is None else self.flight.tokens))
        if self.is_pipelined:
            launched, self.flight = self.flight, launched
        self._check_contents()
        if launched is not None:
            self._commit(launched)

    def trim(self) -> None:
        """Forget the cache and whatever the arena holds, as the engine does."""
        if self.scheduler.has_work or self.flight is not None:
            if self.scheduler.has_work:
                with pytest.raises(ValueError, match="run or wait"):
                    self.scheduler.trim()
            return
        self.scheduler.trim()
        assert self.scheduler.blocks.num_touched == 0
        assert len(self.scheduler.tables.prefix) == 0
        self.arena = self._new_arena()

    def spill(self) -> None:
        """Keep all that is cached, as an idle engine does."""
        if self.store is not None and not self.scheduler.has_work and self.flight is None:
            self.store.take(self.scheduler.tables.unspilled(99), self.scheduler.tables.unspilled_states(99), self.arena)

    def drain(self) -> None:
        """Run until everything has ended; it must within a bound."""
        live = [seq for seq in self._by_id.values() if seq.status is not Status.FINISHED]
        bound = 20 + 4 * sum(seq.num_prompt_tokens + seq.max_output_tokens for seq in live)
        for _ in range(bound):
            if not self.scheduler.has_work and self.flight is None:
                break
            self.step()
            self.scheduler.check_integrity()
        assert not self.scheduler.has_work, "something starves"
        assert self.scheduler.blocks.num_used == 0
        assert set(self.ended) == set(self._by_id)
        self._check_cache()
        if self.num_checkpoints is not None and self.arena.states is not None:
            assert self.arena.states.num_copies <= self.num_checkpoints, "copies that nobody will ever drop"

    def _commit(self, launched: Flight) -> None:
        for sample, token in zip(launched.batch.samples, launched.tokens, strict=True):
            seq = self._by_id[sample.seq_id]
            if seq.seq_id in self.ended:
                continue
            assert token is not None
            assert token == self._stream(seq)[len(seq.token_ids)], "a token that the sequence alone would not get"
            assert sample.output_index == len(seq.token_ids) - seq.num_prompt_tokens
            self.scheduler.commit_token(seq, token)
            if token in seq.eos_token_ids or len(seq.token_ids) == seq.num_prompt_tokens + seq.max_output_tokens:
                self.end([seq], "answered")

    def _stream(self, seq: Sequence) -> list[int]:
        prompt = tuple(seq.token_ids[: seq.num_prompt_tokens])
        return self.oracle.tokens(prompt, seq.params, seq.max_output_tokens + 1)

    def _check_contents(self) -> None:
        for seq in self.scheduler.running:
            assert len(seq.block_table) * BLOCK_SIZE >= seq.num_computed_tokens
            own = self._stream(seq)[: seq.num_computed_tokens]
            slots = self.scheduler.tables.slot_table(seq, len(seq.block_table))
            assert self.arena.holds(seq.block_table, own, slots), "foreign contents"
            assert self.arena.states is None or self.arena.states.holds(seq.seq_id, own), "a foreign state"

    def _check_order(self, waiting_before: list[Sequence]) -> None:
        """Nobody was admitted before somebody whose turn is earlier, but for who waits for a running prefix."""
        turn_of = self.scheduler.waiting.turn_of
        admitted = [turn_of(seq) for seq in waiting_before if seq.status is Status.RUNNING]
        for seq in waiting_before:
            if seq.status is Status.WAITING and not self._shares_with_running(seq):
                assert all(turn < turn_of(seq) for turn in admitted), "somebody was overtaken"

    def _shares_with_running(self, seq: Sequence) -> bool:
        head = seq.token_ids[:BLOCK_SIZE]
        return self.has_prefix_cache and any(other.token_ids[:BLOCK_SIZE] == head for other in self.scheduler.running)

    def _check_cache(self) -> None:
        """Whatever the index finds for any sequence that ever was holds what it says."""
        for seq in self._by_id.values():
            keys: list[bytes] = []
            chain_keys(seq.token_ids, keys)
            contents = stored_contents(seq.token_ids, self.arena.windows)
            for index, parent in enumerate([ROOT_KEY, *keys]):
                own = contents[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE]
                block = self.scheduler.tables.prefix.find(keys[index]) if index < len(keys) else None
                assert block is None or self.arena.block_holds(block, own, self._slot_of(block))
                hit = self.scheduler.tables.prefix.find_partial(parent, seq.prefix_ids_of_block(index))
                if hit is not None:
                    assert self.arena.block_holds(hit.block, own[: hit.num_tokens], self._slot_of(hit.block))

    def _slot_of(self, block: int) -> int | None:
        residency = self.scheduler.tables.residency
        return residency.slot(block) if residency is not None and residency.has(block) else None


prompts = st.tuples(
    st.integers(0, len(BASES) - 1),
    st.one_of(st.integers(0, 120), st.sampled_from((31, 32, 33, 63, 64, 65, 96))),
    st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=6),
)
choices = st.lists(
    st.builds(SamplingParams, temperature=st.sampled_from((0.0, 1.0)), seed=st.integers(0, 2)), min_size=1, max_size=4
).map(tuple)


class SchedulerMachine(RuleBasedStateMachine):
    """Requests come, go and run in any order."""

    @initialize(
        num_blocks=st.one_of(st.integers(4, 12), st.integers(4, 40)),
        max_batch_size=st.integers(1, 6),
        max_step_tokens=st.sampled_from((1, 8, 33, 64, 200)),
        modes=st.tuples(st.booleans(), st.sampled_from((True, True, True, False))),
        num_checkpoints=st.sampled_from((None, None, 0, 1, 3, 20)),
        window=st.sampled_from((None, None, 1, 20, 40, 70)),
        num_slots=st.sampled_from((None, 0, 8)),
        num_at_once=st.sampled_from((None, 1, 2, 64)),
    )
    def start(
        self,
        *,
        num_blocks: int,
        max_batch_size: int,
        max_step_tokens: int,
        modes: tuple[bool, bool],
        num_checkpoints: int | None,
        window: int | None,
        num_slots: int | None,
        num_at_once: int | None,
    ) -> None:
        if num_slots is not None and window is not None:
            # Slots go with a prefix cache in memory alone.
            modes, num_at_once = (modes[0], True), None
        self.driver = Driver(
            num_blocks,
            max_batch_size,
            max_step_tokens,
            modes,
            num_checkpoints=num_checkpoints,
            window=window,
            num_slots=num_slots if window is not None else None,
            store=None if num_at_once is None else HostStore(num_at_once),
        )

    @rule(
        prompt=prompts,
        max_output_tokens=st.integers(1, 70),
        params=choices,
        priority=st.sampled_from(Priority),
        eos=st.sampled_from((frozenset[int](), frozenset({3}))),
        delay_s=st.sampled_from((0.0, 0.5, 6.0)),
    )
    def add(
        self,
        *,
        prompt: tuple[int, int, list[int]],
        max_output_tokens: int,
        params: tuple[SamplingParams, ...],
        priority: Priority,
        eos: frozenset[int],
        delay_s: float,
    ) -> None:
        self.driver.now_s += delay_s
        base, length, tail = prompt
        self.driver.add((*BASES[base][:length], *tail), max_output_tokens, params, priority=priority, eos_token_ids=eos)

    @rule(num_steps=st.integers(1, 25))
    def step(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.driver.step()
            self.driver.scheduler.check_integrity()

    @precondition(lambda self: self.driver.requests)
    @rule(choose=st.integers(0, 1 << 16), is_tainted=st.booleans())
    def abort(self, choose: int, is_tainted: bool) -> None:
        sequences = self.driver.requests[choose % len(self.driver.requests)]
        self.driver.end(sequences[::-1], "aborted", is_tainted=is_tainted)

    @precondition(lambda self: self.driver.requests)
    @rule(choose=st.integers(0, 1 << 16), choice=st.integers(0, 3))
    def finish_choice(self, choose: int, choice: int) -> None:
        sequences = self.driver.requests[choose % len(self.driver.requests)]
        self.driver.end([sequences[choice % len(sequences)]], "stopped")

    @rule(choose=st.integers(0, 1 << 16))
    def lose_a_file(self, choose: int) -> None:
        if self.driver.store is not None:
            self.driver.store.lose(choose)

    @rule(is_drained=st.booleans())
    def trim(self, *, is_drained: bool) -> None:
        """What is at work cannot be trimmed; afterwards nothing is found, and everything is computed anew."""
        if is_drained:
            self.driver.drain()
            self.driver.spill()
        self.driver.trim()

    @invariant()
    def the_books_balance(self) -> None:
        self.driver.scheduler.check_integrity()

    def teardown(self) -> None:
        if hasattr(self, "driver"):
            self.driver.drain()


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
