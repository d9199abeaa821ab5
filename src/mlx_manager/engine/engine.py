"""The engine: token ids in, token ids out. One step is a sentence: schedule, run, commit.

Requests may be added and aborted between any two steps, and from `take_in` inside one. How far an engine works ahead of
the tokens it has read is its `Lookahead`.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mlx_manager.engine.batch import Batch, Chosen, Sample
from mlx_manager.engine.blocks import BLOCK_SIZE
from mlx_manager.engine.checkpoints import CheckpointBook
from mlx_manager.engine.config import EngineConfig, Lookahead
from mlx_manager.engine.disk_cache import DiskCache
from mlx_manager.engine.draft_ledger import DraftLedger
from mlx_manager.engine.drafting import Drafting, Guesser, is_given_prompts, with_guesses, without_drafts
from mlx_manager.engine.drafts import Drafter
from mlx_manager.engine.grammar import Constraint, GrammarMasks
from mlx_manager.engine.pacing import StepPacer
from mlx_manager.engine.requests import (
    EngineEvent,
    EngineRequest,
    RequestBroke,
    RequestUsage,
    RunningRequest,
    TokenEvent,
)
from mlx_manager.engine.residency import Residency
from mlx_manager.engine.runner import Launched, Runner
from mlx_manager.engine.scheduler import Scheduler
from mlx_manager.engine.sequence import Sequence
from mlx_manager.engine.timeline import Timeline
from mlx_manager.engine.windows import Window
from mlx_manager.ir import FinishReason, PrefixReport

_MOST_HOST_SHARE = 0.5


@dataclass
class EngineCounters:
    """Totals since the engine was made."""

    num_steps: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_generated_tokens: int = 0
    num_drafted_tokens: int = 0
    num_accepted_drafts: int = 0
    num_finished_requests: int = 0
    num_aborted_requests: int = 0


@dataclass(frozen=True)
class _InFlight:
    """A step that is started and not read, and when it was started."""

    step: Launched
    started_s: float
    guessing_s: float
    """What the draft model took before it was built."""

    def wall_s(self, last_read_s: float, read_s: float) -> float:
        """All that it took since the tokens before it were read at `last_read_s`, until its own were. A pause in which
        there was nothing to do counts for little."""
        step_s = read_s - max(self.started_s, last_read_s)
        host_s = max(0.0, self.started_s - last_read_s - self.guessing_s)
        return step_s + self.guessing_s + min(host_s, _MOST_HOST_SHARE * step_s)


class Engine:
    """Runs requests over a `Runner`.

    Not thread-safe: everything is called from the thread that owns the device, or by `deliver` while that one waits in
    `step`.
    """

    def __init__(
        self,
        runner: Runner,
        config: EngineConfig,
        clock: Callable[[], float] = time.monotonic,
        *,
        new_drafter: Callable[[list[int], int], Drafter] = Drafter,
        disk_cache: DiskCache | None = None,
        draft_model: Guesser | None = None,
    ) -> None:
        self._runner = runner
        can_draft = config.num_checkpoints is None and config.window is None
        self._draft_model = draft_model if can_draft else None
        self._drafting_fault = config.drafting_fault
        self._disk_cache = disk_cache
        self._clock = clock
        self._pacer = StepPacer(config.max_step_tokens)
        self.drafting = Drafting(
            config.max_draft_tokens if can_draft else 0,
            self._pacer,
            new_drafter=new_drafter,
            ledger=None if self._draft_model is None else DraftLedger(config.num_blocks),
            max_model_tokens=0 if self._draft_model is None else self._draft_model.max_context,
        )
        self.scheduler = Scheduler(
            num_blocks=config.num_blocks,
            max_batch_size=config.max_batch_size,
            pacer=self._pacer,
            ageing_s=config.priority_ageing_s,
            has_prefix_cache=config.has_prefix_cache,
            checkpoints=None if config.num_checkpoints is None else CheckpointBook(config.num_checkpoints),
            window=None if config.window is None else Window(config.window, config.max_step_tokens),
            store=disk_cache,
        )
        if config.slots is not None:
            window = Window(config.slots.window, config.max_step_tokens)
            self.scheduler.keep_in_slots(Residency(config.slots.num_slots, window))
        if self.drafting.sources:
            self.scheduler.guess_by(self.drafting)
        self.scheduler.on_admit = self._tell_admitted
        self.on_admitted: Callable[[str, PrefixReport], None] = lambda request_id, report: None
        """Told each request once, inside a step and before its forward pass: work on it begins. Set by the owner."""
        self.counters = EngineCounters()
        self.grammars = GrammarMasks()
        self._requests: dict[str, RunningRequest] = {}
        self._sequences: dict[int, Sequence] = {}
        self._ids = itertools.count()
        self._lookahead = config.lookahead
        self._guessing_s = 0.0
        """What the draft model took for the step that was built last."""
        self._in_flight: _InFlight | None = None
        """The step that is started and not read."""
        self._reader = ThreadPoolExecutor(1, "engine-reader") if config.lookahead is Lookahead.OVERLAP else None
        self._last_read_s = 0.0

    @property
    def has_work(self) -> bool:
        """Whether `step` has anything to do."""
        return self.scheduler.has_work or self._in_flight is not None

    @property
    def is_prefilling(self) -> bool:
        """Whether a prompt waits for a step, or for its next one."""
        return bool(self.scheduler.waiting) or any(seq.is_prefilling for seq in self.scheduler.running)

    @property
    def can_draft(self) -> bool:
        """Whether tokens are guessed ahead."""
        return bool(self.drafting.sources)

    @property
    def drafting_off(self) -> str:
        """Why guesses are not run now, in words; "" while they may be, and where none were asked for."""
        reasons = ((source, self.drafting.off_reason(source)) for source in self.drafting.sources)
        return self._drafting_fault or "; ".join(f"{source}: {reason}" for source, reason in reasons if reason)

    @property
    def block_fetch_s(self) -> float | None:
        """Seconds that fetching a block from disk takes; None before the first."""
        return None if self._disk_cache is None else self._disk_cache.fetch_s

    @property
    def block_prefill_s(self) -> float | None:
        """Seconds that computing the tokens of a block takes, as far as learned."""
        return None if self._pacer.prefill_token_s is None else BLOCK_SIZE * self._pacer.prefill_token_s

    @property
    def num_waiting_requests(self) -> int:
        """Requests that have not started."""
        return len(self.scheduler.waiting)

    @property
    def arena_bytes(self) -> int:
        """Bytes that the KV cache holds on the device."""
        return self._runner.arena_bytes + (self._draft_model.arena_bytes if self._draft_model is not None else 0)

    @property
    def capacity_tokens(self) -> int:
        """Tokens that one sequence can have when it has the whole KV cache; no bound where windows pass over them."""
        return sys.maxsize if self.scheduler.is_endless else self.scheduler.blocks.num_blocks * BLOCK_SIZE

    def add(self, request: EngineRequest, constraint: Constraint | None = None) -> None:
        """Queue a request, each choice of which matches the `constraint`, if there is one.

        Raises `ValueError` when it could never run: check its length against `capacity_tokens`.
        """
        num_most = len(request.prompt_token_ids) + request.max_output_tokens
        if num_most > self.capacity_tokens:
            raise ValueError(f"{num_most} tokens do not fit the {self.capacity_tokens} of the KV cache")
        if not request.prompt_token_ids or request.max_output_tokens < 1:
            raise ValueError("a request needs a prompt and room for at least one token")
        sequences = [self._sequence(request, choice) for choice in range(len(request.params))]
        leader = sequences[0]
        leader.forks = sequences[1:]
        self._requests[request.request_id] = RunningRequest(sequences, Timeline(self._clock()))
        for seq in sequences:
            self._sequences[seq.seq_id] = seq
            if constraint is not None:
                self.grammars.add(seq.seq_id, constraint)
        self.scheduler.add(leader)

    def usage(self, request_id: str) -> RequestUsage:
        """What a request used so far. Raises `KeyError` for one that is not here (any more)."""
        return self._requests[request_id].usage

    def force(self, request_id: str, choice: int, token_ids: tuple[int, ...]) -> None:
        """Let output tokens of a choice be these, whatever the model says, from the one after the next on.

        The next one may be on its way already, or not: so that the answer does not depend on that, it is left to the
        model.
        """
        seq = self._requests[request_id].sequences[choice]
        seq.forced, seq.forced_from = token_ids, _num_known_outputs(seq) + 1

    def unforce(self, request_id: str, choice: int) -> None:
        """Leave output tokens of a choice to the model again, but for the next one, which may be on its way."""
        seq = self._requests[request_id].sequences[choice]
        seq.forced = seq.forced[: max(_num_known_outputs(seq) + 1 - seq.forced_from, 0)]

    def timeline(self, request_id: str) -> Timeline:
        """When what was done for a request. Raises `KeyError` for one that is not here (any more)."""
        return self._requests[request_id].timeline

    def finish_choice(self, request_id: str, choice: int) -> None:
        """End one choice early: its text met a stop string. Its `TokenEvent`s stop at once."""
        self._finish(self._requests[request_id].sequences[choice])

    def forget(self, request_id: str, *, is_aborted: bool = False) -> None:
        """End whatever is left of a request and drop it. An unknown id is ignored."""
        request = self._requests.pop(request_id, None)
        if request is None:
            return
        self._end(request)
        if is_aborted:
            self.counters.num_aborted_requests += 1
        else:
            self.counters.num_finished_requests += 1

    def trim(self) -> None:
        """Give up every cached block and the memory of all of them; the next request begins with an empty cache.

        Raises `ValueError` while there is work.
        """
        if self.has_work:
            raise ValueError("the engine is at work")
        self.scheduler.trim()
        self._runner.trim()
        if self._draft_model is not None:
            self._draft_model.trim()

    def spill(self, num_most: int) -> bool:
        """Keep up to `num_most` cached blocks on disk that were not there yet, and once all are, a state.

        False: there is nothing (more) to do.
        """
        blocks = self.scheduler.tables.unspilled(num_most)
        states = [] if blocks else self.scheduler.tables.unspilled_states(1)
        if self._disk_cache is not None:
            self._disk_cache.spill(blocks, states)
        return bool(blocks or states)

    def flush(self) -> None:
        """Wait until what was given to the disk is written."""
        if self._disk_cache is not None:
            self._disk_cache.flush()

    def step(
        self,
        take_in: Callable[[], object] | None = None,
        deliver: Callable[[list[EngineEvent]], None] | None = None,
    ) -> list[EngineEvent]:
        """Run one step and hand on the tokens that became known. Blocks while the device works.

        `take_in` is called once, at the last moment at which requests that it adds can join the step. Tokens go to
        `deliver` as soon as they are known, with `Lookahead.OVERLAP` from a second thread while this one waits for the
        device: it may call the engine like any owner, for this thread waits until it returns. Without it they are
        returned.
        """
        events: list[EngineEvent] = []
        hand_on = deliver or events.extend
        if take_in is not None:
            take_in()
        earlier, self._in_flight = self._in_flight, None
        if earlier is not None and self._has_to_read_first(earlier.step):
            hand_on(self._commit(earlier))
            earlier = None
        built = self._build(None if earlier is None else earlier.step)
        if built is None:
            if earlier is not None:
                hand_on(self._commit(earlier))
            return events
        started = _InFlight(built, self._clock(), self._guessing_s)
        if self._lookahead is Lookahead.NONE:
            self._start(built)
            hand_on(self._commit(started))
            return events
        self._in_flight = started
        if self._reader is None or earlier is None:
            self._start(built)
            if earlier is not None:
                hand_on(self._commit(earlier))
            return events
        reading = self._reader.submit(lambda step: hand_on(self._commit(step)), earlier)
        try:
            self._start(built)
        finally:
            reading.result()
        return events

    def _has_to_read_first(self, launched: Launched) -> bool:
        """Whether the next step has to wait for the tokens of `launched`.

        A grammar must know the last token before it can say which may be next, and so must a guess that is worth it.
        """
        if launched.batch.num_drafted_tokens or self.scheduler.expects_drafts():
            return True
        return any(seq.seq_id in self.grammars for seq in self.scheduler.running)

    def _build(self, previous: Launched | None) -> Launched | None:
        """Schedule the next step and build it; None when there is nothing to do. `previous` has not been read yet."""
        batch = self.scheduler.schedule()
        if self._disk_cache is not None:
            self._disk_cache.spill(batch.spills, batch.state_spills)
        if batch.is_empty:
            return None
        batch = self._with_guesses(batch)
        return self._runner.build(batch, previous, self.grammars.begin(batch.samples))

    def _with_guesses(self, batch: Batch) -> Batch:
        """The batch with what the draft model guesses for it."""
        self._guessing_s = 0.0
        if self._draft_model is None or not batch.draft_rows:
            return batch
        began_s = self._clock()
        guesses = self._draft_model.guess(batch)
        if guesses is None:
            self.drafting.distrust_model()
            return without_drafts(batch)
        self._guessing_s = self._clock() - began_s
        if not is_given_prompts(batch):
            self._pacer.observe_guessing(max(row.num_guesses for row in batch.draft_rows), self._guessing_s)
        return with_guesses(batch, guesses)

    def _start(self, launched: Launched) -> None:
        launched.start()
        self.counters.num_steps += 1
        self.counters.num_drafted_tokens += launched.batch.num_drafted_tokens

    def _commit(self, in_flight: _InFlight) -> list[EngineEvent]:
        """Wait for a step and book what it chose."""
        events: list[EngineEvent] = []
        launched = in_flight.step
        output = launched.read()
        num_true: Counter[int] = Counter()
        """By segment, guesses that came true."""
        began_s = max(in_flight.started_s, self._last_read_s)
        wall_s = in_flight.wall_s(self._last_read_s, self._observe(launched.batch, began_s))
        for sample, chosen in zip(launched.batch.samples, output.chosen, strict=True):
            seq = self._sequences.get(sample.seq_id)
            if not chosen.is_finite and (seq is None or not seq.block_table):
                # It gave its blocks up before this was known, so nobody knows any more which they were.
                self.scheduler.tables.distrust()
            if seq is None or (sample.draft is not None and not self._came_true(seq, sample)):
                continue
            if not chosen.is_finite:
                events.append(RequestBroke(seq.request_id, "the model computed values that are not finite"))
                self._end(self._requests.pop(seq.request_id), is_tainted=True)
                continue
            failure = self.grammars.advance(seq.seq_id, chosen.token_id)
            if failure is not None:
                events.append(RequestBroke(seq.request_id, f"the grammar could not be followed further: {failure}"))
                self._end(self._requests.pop(seq.request_id))
                continue
            num_true[sample.segment] += sample.draft is not None
            events.append(self._commit_token(seq, chosen, is_drafted=sample.draft is not None))
        self.drafting.learn(launched.batch, num_true, self._sequences)
        if launched.batch.num_tokens == launched.batch.num_decode_tokens + launched.batch.num_drafted_tokens:
            self.drafting.observe(launched.batch, num_true.total(), wall_s)
        return events

    def _may_draft(self, seq: Sequence) -> bool:
        """Whether the tokens of a draft can be chosen side by side: nothing but the text before decides on each."""
        is_decided_otherwise = seq.params.has_penalties or seq.is_forcible or seq.seq_id in self.grammars
        return self.can_draft and not is_decided_otherwise

    def _came_true(self, seq: Sequence, sample: Sample) -> bool:
        """Whether all guesses before `sample` were what the step chose: its token is then the next one."""
        return seq.num_output_tokens == sample.output_index and seq.token_ids[-1] == sample.draft

    def _commit_token(self, seq: Sequence, chosen: Chosen, *, is_drafted: bool = False) -> TokenEvent:
        if seq.drafts is None and self._may_draft(seq):
            self.drafting.attend(seq)
        if is_drafted:
            self.scheduler.commit_drafted_token(seq, chosen.token_id)
            self.counters.num_accepted_drafts += 1
        else:
            self.scheduler.commit_token(seq, chosen.token_id)
        request = self._requests[seq.request_id]
        request.timeline.last_token_s = self._last_read_s
        if not request.is_first_token_out:
            request.is_first_token_out = True
            request.timeline.first_token_s = self._last_read_s
            self.counters.num_prompt_tokens += request.usage.num_prompt_tokens
            self.counters.num_cached_tokens += request.usage.num_cached_tokens
        self.counters.num_generated_tokens += 1
        is_end_token = chosen.token_id in seq.eos_token_ids
        finish = None
        if is_end_token or self.grammars.is_complete(seq.seq_id):
            finish = FinishReason.STOP
        elif seq.is_at_length_limit:
            finish = FinishReason.LENGTH
        if finish is not None:
            self._finish(seq)
        return TokenEvent(seq.request_id, seq.choice, chosen, finish, is_end_token)

    def _end(self, request: RunningRequest, *, is_tainted: bool = False) -> None:
        # Forks first: one whose leader ends would otherwise be queued to start on its own.
        for seq in reversed(request.sequences):
            self._finish(seq, is_tainted=is_tainted)

    def _finish(self, seq: Sequence, *, is_tainted: bool = False) -> None:
        self.scheduler.finish(seq, is_tainted=is_tainted)
        self._sequences.pop(seq.seq_id, None)
        self.grammars.drop(seq.seq_id)

    def _observe(self, batch: Batch, started_s: float) -> float:
        """Learn from a step what it took since `started_s`; when that is over: now."""
        now_s = self._clock()
        num_prefill_tokens = batch.num_tokens - batch.num_decode_tokens - batch.num_drafted_tokens
        self._pacer.observe(
            num_decode_tokens=batch.num_decode_tokens,
            num_prefill_tokens=num_prefill_tokens,
            num_drafted_tokens=batch.num_drafted_tokens,
            step_s=now_s - started_s,
        )
        if num_prefill_tokens:
            self._note_prefill(batch, started_s, now_s)
        self._last_read_s = now_s
        return now_s

    def _note_prefill(self, batch: Batch, started_s: float, now_s: float) -> None:
        for segment in batch.segments:
            seq = self._sequences.get(segment.seq_id)
            if seq is not None and segment.start < seq.num_prompt_tokens:
                self._requests[seq.request_id].timeline.add_chunk(started_s, now_s, segment.num_tokens)

    def _tell_admitted(self, seq: Sequence, report: PrefixReport) -> None:
        request = self._requests[seq.request_id]
        if not request.is_admitted:
            request.is_admitted = True
            request.timeline.admitted_s = self._clock()
            self.on_admitted(seq.request_id, report)

    def _sequence(self, request: EngineRequest, choice: int) -> Sequence:
        return Sequence(
            seq_id=next(self._ids),
            request_id=request.request_id,
            choice=choice,
            token_ids=list(request.prompt_token_ids),
            inputs=request.inputs,
            prefix_ids=list(request.prefix_ids),
            num_prompt_tokens=len(request.prompt_token_ids),
            max_output_tokens=request.max_output_tokens,
            eos_token_ids=request.eos_token_ids,
            params=request.params[choice],
            priority=request.priority,
            is_forcible=request.is_forcible,
            arrival_s=self._clock() if request.arrival_s is None else request.arrival_s,
        )


def _num_known_outputs(seq: Sequence) -> int:
    return len(seq.token_ids) - seq.num_prompt_tokens
