"""The scheduler: which sequences take part in the next step, with which tokens and blocks. No tensors here.

Each step decodes every running sequence and fills what is left of the token budget with prefill. Sequences enter by
turn (see `queue`), find their prefix in the cache, and share its blocks. When blocks run out, the running sequence
whose turn is last gives its blocks up and goes back to the queue; it resumes through the prefix cache.

The pipeline: a step may be scheduled before the tokens of the one before it are known. Such a token is on the device
only; its sequence has `num_sampling` above 0 and its `source_row` says where.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mlx_manager.engine.batch import Batch, Sample, Segment
from mlx_manager.engine.block_store import BlockStore
from mlx_manager.engine.blocks import BLOCK_SIZE, HOLE, BlockPool, OutOfBlocks, num_blocks_for
from mlx_manager.engine.checkpoints import CheckpointBook
from mlx_manager.engine.draft_watch import DraftSource
from mlx_manager.engine.drafting import Drafting, with_draft
from mlx_manager.engine.finding import PrefixFinder
from mlx_manager.engine.pacing import StepPacer
from mlx_manager.engine.prefix_miss import Lookup, explain
from mlx_manager.engine.queue import WaitingQueue
from mlx_manager.engine.residency import Residency
from mlx_manager.engine.sequence import Sequence, Status
from mlx_manager.engine.step import Step
from mlx_manager.engine.tables import BlockTables
from mlx_manager.engine.windows import Window
from mlx_manager.ir import PrefixReport


class Scheduler:
    """Owns every sequence, and the tables of their blocks. `pacer` bounds the prefill of each step.

    With `has_prefix_cache` false nothing is shared or kept (for runners that keep their caches elsewhere).
    Blocks and states that had to go are handed to the `store` (`Batch.spills`), and found there again.
    """

    def __init__(
        self,
        *,
        num_blocks: int,
        max_batch_size: int,
        pacer: StepPacer,
        ageing_s: float,
        has_prefix_cache: bool = True,
        checkpoints: CheckpointBook | None = None,
        window: Window | None = None,
        store: BlockStore | None = None,
    ) -> None:
        self.tables = BlockTables(
            num_blocks, has_prefix_cache=has_prefix_cache, checkpoints=checkpoints, window=window, store=store
        )
        self.waiting = WaitingQueue(ageing_s)
        self.running: list[Sequence] = []
        self.num_preemptions = 0
        self.on_admit: Callable[[Sequence, PrefixReport], None] = lambda seq, report: None
        """Told each sequence when it is admitted for the first time, and what the prefix cache had of it."""
        self._drafting: Drafting | None = None
        """None where nothing is guessed ahead."""
        self._pacer = pacer
        self._max_batch_size = max_batch_size
        self._finder = PrefixFinder(self.tables, pacer)

    def guess_by(self, drafting: Drafting) -> None:
        """Let tokens be guessed ahead, from the first sequence on."""
        self._drafting = drafting
        self.tables.draft_ledger = drafting.ledger

    def keep_in_slots(self, residency: Residency) -> None:
        """Let layers with windows have an arena of their own, from the first sequence on.

        Raises `ValueError` where every layer has a window, or more is kept than here: blocks in a store are whole.
        """
        tables = self.tables
        if tables.window is not None or tables.store is not None or not tables.has_prefix_cache:
            raise ValueError("slots are for layers with windows beside others, and for a prefix cache in memory alone")
        tables.residency = residency

    # -- what the engine asks for ------------------------------------------------------------------------------

    @property
    def blocks(self) -> BlockPool:
        """The books of the blocks."""
        return self.tables.blocks

    @property
    def num_restored_tokens(self) -> int:
        """Prompt tokens whose blocks came from the store."""
        return self._finder.num_restored_tokens

    @property
    def has_work(self) -> bool:
        """Whether anything runs, waits, or has ended without the runner knowing yet."""
        return bool(self.running or self.tables.has_news) or len(self.waiting) > 0

    @property
    def is_endless(self) -> bool:
        """Whether one sequence can be of any length, because its windows pass over what it holds."""
        return self.tables.window is not None and self.tables.window.max_held_blocks <= self.blocks.num_blocks

    def add(self, seq: Sequence) -> None:
        """Queue a sequence; its `forks`, if any, follow it when its prompt is prefilled."""
        for fork in seq.forks:
            fork.status = Status.FORKING
        self.waiting.push(seq)

    def schedule(self) -> Batch:
        """Put the next step together and book it as launched. An empty batch means that nothing can run now."""
        step = Step()
        if self._drafting is not None:
            self._drafting.begin_step()
        self.tables.loading.clear()
        self.tables.give_back_passed_blocks(self.running)
        self._schedule_decodes(step)
        self._schedule_prefills(step)
        checkpoints, residency = self.tables.checkpoints, self.tables.residency
        return Batch(
            segments=tuple(step.segments),
            samples=tuple(step.samples),
            copies=tuple(step.copies),
            scrubs=self.tables.take_scrubs(),
            ended=self.tables.take_ended(),
            saves=tuple(step.saves),
            restores=tuple(step.restores),
            dropped=checkpoints.take_dropped() if checkpoints is not None else (),
            num_blocks=self.blocks.num_touched,
            spills=self.tables.take_spills(),
            loads=tuple(step.loads),
            draft_rows=tuple(step.draft_rows),
            state_spills=self.tables.take_state_spills(),
            state_loads=tuple(step.state_loads),
            num_slots=0 if residency is None else residency.num_touched,
            slot_copies=tuple(step.slot_copies.values()),
            slot_scrubs=() if residency is None else residency.take_scrubs(),
        )

    def commit_token(self, seq: Sequence, token_id: int) -> None:
        """Tell the sequence the token that a step chose for it; its now full blocks become findable."""
        seq.num_sampling -= 1
        seq.append(token_id)
        if seq.drafts is not None:
            seq.drafts.text.observe()
        self.tables.enter_full_blocks(seq)
        self.tables.keep_checkpoints(seq)

    def commit_drafted_token(self, seq: Sequence, token_id: int) -> None:
        """Tell the sequence one more token of the same step: the guess before it was what the step chose there."""
        seq.num_computed_tokens += 1
        seq.num_sampling += 1
        self.commit_token(seq, token_id)

    def expects_drafts(self) -> bool:
        """Whether a guess is worth its row in the next step, so that the tokens before it are better read first."""
        return self._drafting is not None and self._drafting.expects(self.running, len(self.running))

    def finish(self, seq: Sequence, *, is_tainted: bool = False) -> None:
        """Take a sequence out, whatever it was doing. Its blocks stay cached, or are zeroed when `is_tainted`."""
        if seq.status is Status.FINISHED:
            return
        if seq.status is Status.RUNNING:
            self.running.remove(seq)
        elif seq.status is Status.WAITING:
            self.waiting.remove(seq)
        self.tables.let_go(seq, is_tainted=is_tainted)
        seq.status = Status.FINISHED
        for fork in seq.forks:
            # A leader that ends before its prompt is prefilled leaves its forks without a start: they start over.
            if fork.status is Status.FORKING:
                fork.status = Status.WAITING
                self.waiting.push(fork)
        seq.forks = []

    def trim(self) -> None:
        """Forget everything that is cached, as if nothing had ever run. Raises `ValueError` while there is work."""
        if self.has_work:
            raise ValueError("sequences run or wait, or their end has not been told")
        self.tables.trim()

    def check_integrity(self) -> None:
        """Prove that the books balance: every reference has a block table that holds it. Raises `AssertionError`."""
        self.tables.check_integrity(self.running, self.waiting)

    # -- decode ------------------------------------------------------------------------------------------------

    def _schedule_decodes(self, step: Step) -> None:
        for seq in sorted(self.running, key=self.waiting.turn_of):
            if seq.status is not Status.RUNNING or seq.is_prefilling or not seq.wants_more:
                continue
            if self._make_room(seq, 1, step):
                self._take(seq, 1, step)
                if self._drafting is not None:
                    self._add_drafts(seq, self._drafting, step)

    def _add_drafts(self, seq: Sequence, drafting: Drafting, step: Step) -> None:
        """Append guesses to the segment just taken, where they pay and there are blocks that nobody has to give up."""
        if seq.num_sampling > 1:
            return
        num_left = seq.max_output_tokens - seq.num_output_tokens
        num_rows_left = self._pacer.max_step_tokens - sum(segment.num_tokens for segment in step.segments)
        draft = drafting.draft(seq, len(self.running), min(num_left, num_rows_left - len(self.running)))
        if draft is None:
            return
        end = seq.num_computed_tokens + len(draft.token_ids)
        if num_blocks_for(end) - len(seq.block_table) > self.tables.num_free:
            return
        while len(seq.block_table) < num_blocks_for(end):
            seq.block_table.append(self.tables.allocate())
        if draft.source is DraftSource.MODEL and self.tables.draft_ledger is not None:
            row = drafting.ask_model(self.tables.draft_ledger, seq, len(step.segments) - 1, len(draft.token_ids))
            step.draft_rows.append(row)
            if not row.num_guesses:
                return
        segment, samples = with_draft(step.segments.pop(), step.samples.pop(), draft, seq.block_table)
        if self.tables.residency is not None:
            segment = replace(segment, slot_table=self.tables.slot_table(seq, num_blocks_for(end)))
        step.segments.append(segment)
        step.samples += samples
        step.written.update(seq.block_table[segment.start // BLOCK_SIZE : num_blocks_for(end)])

    def _make_room(self, seq: Sequence, num_tokens: int, step: Step) -> bool:
        """Give the next positions of `seq` blocks it may write. While there are none, preempt whose turn is last.

        False when that was `seq` itself.
        """
        while True:
            try:
                self.tables.prepare_blocks(seq, seq.num_computed_tokens + num_tokens, step)
                return True
            except OutOfBlocks:
                victim = self._victim(step)
                self._preempt(victim or seq, step)
                if victim is None or victim is seq:
                    return False

    def _victim(self, step: Step) -> Sequence | None:
        """The running sequence whose turn is last, of those that are not in the step yet."""
        candidates = [seq for seq in self.running if seq.seq_id not in step.scheduled]
        return max(candidates, key=self.waiting.turn_of, default=None)

    def _preempt(self, seq: Sequence, step: Step) -> None:
        """Send a sequence that is not in the step back to the queue."""
        copied = {to for _, to in step.copies} & set(seq.block_table)
        if copied:
            # The copy will not be made, so what it would have brought does not count as computed.
            first = min(seq.block_table.index(block) for block in copied)
            seq.num_computed_tokens = min(seq.num_computed_tokens, first * BLOCK_SIZE)
            step.drop_copies(copied)
        step.restores = [restore for restore in step.restores if restore[0] != seq.seq_id]
        self.running.remove(seq)
        self.tables.let_go(seq, is_tainted=False)
        seq.status = Status.WAITING
        self.waiting.push(seq)
        self.num_preemptions += 1

    # -- prefill -----------------------------------------------------------------------------------------------

    def _schedule_prefills(self, step: Step) -> None:
        """Share the budget out by turn, among those that prefill already and those that wait."""
        prefilling = [seq for seq in self.running if seq.is_prefilling and seq.seq_id not in step.scheduled]
        budget = self._pacer.prefill_budget(len(step.segments), len(prefilling) + len(self.waiting))
        budget -= sum(segment.num_drafted for segment in step.segments)
        may_admit = True
        for seq in sorted([*prefilling, *self.waiting], key=self.waiting.turn_of):
            if budget <= 0:
                return
            if seq.status is Status.WAITING and may_admit and self._is_ready(seq, step):
                # Whoever finds no room holds back all whose turn is later, so that small requests cannot starve it.
                may_admit = self._has_place(1 + len(seq.forks)) and self._admit(seq, step)
            if seq.status is Status.RUNNING:
                budget -= self._take_chunk(seq, budget, step)

    def _is_ready(self, seq: Sequence, step: Step) -> bool:
        """Whether a waiting sequence can start: all its tokens are known, and nobody is about to compute its prefix."""
        return seq.num_sampling == 0 and not self._finder.is_being_computed(seq, step)

    def _has_place(self, num_rows: int) -> bool:
        """Whether the batch has places for a request of `num_rows` choices; one larger than the batch runs alone."""
        num_taken = sum(1 + len(seq.forks) for seq in self.running)
        return num_taken + num_rows <= max(self._max_batch_size, num_rows)

    def _admit(self, seq: Sequence, step: Step) -> bool:
        """Move `seq` from the queue into the batch, on top of what the prefix cache holds of it. False: no room now."""
        hits = self._finder.find_prefix(seq)
        num_holes = hits.count(HOLE)
        held = hits[num_holes:]
        num_needed = self.tables.num_missing_blocks(seq.num_tokens, hits, num_holes)
        num_unreferenced_hits = sum(1 for block in held if self.blocks.num_references(block) == 0)
        # What running sequences still need for the tokens they have, and one block each to go on with, so that
        # admitting does not preempt at once.
        num_reserved = sum(
            1 + self.tables.num_missing_blocks(other.num_tokens, other.block_table, other.num_holes)
            for other in self.running
        )
        if self.running and num_needed + num_reserved > self.blocks.num_available - num_unreferenced_hits:
            return False
        if num_needed > self.blocks.num_available - num_unreferenced_hits:
            return False
        residency = self.tables.residency
        num_passed = 0 if residency is None else residency.first_pinned(len(hits) * BLOCK_SIZE)
        if residency is not None and not self._has_slots(residency, seq, hits, num_passed):
            return False
        self.waiting.remove(seq)
        for index, block in enumerate(hits):
            if block != HOLE:
                self.tables.acquire(block, is_pinned=index >= num_passed)
        seq.num_passed_blocks = num_passed
        if hits and self.tables.checkpoints is not None:
            step.restores.append((seq.seq_id, self.tables.checkpoints.use(seq.block_keys[len(hits) - 1])))
        seq.block_table, seq.num_holes = hits, num_holes
        seq.num_entered_blocks = len(seq.block_table)
        seq.num_computed_tokens = len(seq.block_table) * BLOCK_SIZE
        self._finder.restore(seq, step)
        if not seq.restoring_to:
            self._finder.copy_partial_hit(seq, step)
        if not seq.has_started:
            seq.num_cached_tokens = max(seq.num_computed_tokens, seq.restoring_to * BLOCK_SIZE)
            seq.has_started = True
            self._tell_admitted(seq)
        seq.status = Status.RUNNING
        self.running.append(seq)
        for key in seq.block_keys[seq.num_entered_blocks : (seq.num_tokens - 1) // BLOCK_SIZE]:
            self.tables.computing.setdefault(key, seq.seq_id)
        return True

    def _has_slots(self, residency: Residency, seq: Sequence, hits: list[int], num_passed: int) -> bool:
        """The same for the windowed layers' slots."""
        num_needed = residency.num_missing(seq.num_tokens, len(hits), num_passed)
        num_needed += sum(1 for block in hits[num_passed:] if not residency.is_pinned(block))
        num_reserved = sum(
            1 + residency.num_missing(other.num_tokens, len(other.block_table), other.num_passed_blocks)
            for other in self.running
        )
        return num_needed + num_reserved <= residency.num_available

    def _tell_admitted(self, seq: Sequence) -> None:
        prompt = seq.prefix_ids[: seq.num_prompt_tokens]
        lookup = Lookup(seq.num_cached_tokens, seq.num_found_blocks, self.tables.has_prefix_cache)
        report = explain(prompt, lookup, self.tables.memory)
        if self.tables.has_prefix_cache:
            self.tables.memory.begin(seq.seq_id, prompt)
        self.on_admit(seq, report)

    def _take_chunk(self, seq: Sequence, budget: int, step: Step) -> int:
        """Prefill up to `budget` tokens of `seq`; returns how many: 0 while blocks of it come from the store."""
        if seq.restoring_to and seq.seq_id not in step.restored:
            self._finder.restore(seq, step)
        if seq.restoring_to:
            return 0
        num_tokens = min(budget, seq.num_uncomputed_tokens)
        if self.tables.checkpoints is not None:
            num_tokens = _up_to_boundary(seq, num_tokens)
        if not self._make_room(seq, num_tokens, step):
            return 0
        self._take(seq, num_tokens, step)
        return num_tokens

    # -- both --------------------------------------------------------------------------------------------------

    def _take(self, seq: Sequence, num_tokens: int, step: Step) -> None:
        """Book `num_tokens` positions of `seq` as part of the step, and a sample behind them if they reach the end."""
        start = seq.num_computed_tokens
        end = start + num_tokens
        is_on_device = end > len(seq.token_ids)
        step.segments.append(
            Segment(
                seq_id=seq.seq_id,
                start=start,
                token_ids=(0,) if is_on_device else tuple(seq.token_ids[start:end]),
                source_row=seq.source_row if is_on_device else None,
                block_table=tuple(seq.block_table[: num_blocks_for(end)]),
                inputs=seq.inputs,
                slot_table=self.tables.slot_table(seq, num_blocks_for(end)),
                first_id=seq.prefix_ids[0],
            )
        )
        step.scheduled.add(seq.seq_id)
        if self.tables.draft_ledger is not None:
            self.tables.draft_ledger.written(seq.block_table, start, end)
        step.written.update(seq.block_table[start // BLOCK_SIZE : num_blocks_for(end)])
        is_complete = end == seq.num_tokens
        seq.num_computed_tokens = end
        self.tables.enter_full_blocks(seq)
        if self.tables.checkpoints is not None and end % BLOCK_SIZE == 0:
            checkpoint = self.tables.checkpoints.new_id()
            step.saves.append((seq.seq_id, checkpoint))
            seq.pending_checkpoints.append((end // BLOCK_SIZE, checkpoint))
            self.tables.keep_checkpoints(seq)
            step.saved_keys.update(seq.block_keys[end // BLOCK_SIZE - 1 : end // BLOCK_SIZE])
        if is_complete:
            self._add_sample(seq, step)
            self._start_forks(seq, step)

    def _add_sample(self, seq: Sequence, step: Step) -> None:
        step.samples.append(
            Sample(
                seq_id=seq.seq_id,
                segment=len(step.segments) - 1,
                params=seq.params,
                output_index=seq.num_output_tokens,
                history=tuple(seq.token_ids) if seq.params.has_penalties else None,
                num_prompt_tokens=seq.num_prompt_tokens,
                forced_token=seq.forced_token,
            )
        )
        seq.source_row = len(step.samples) - 1
        seq.num_sampling += 1

    def _start_forks(self, leader: Sequence, step: Step) -> None:
        """The leader's prompt is computed: its forks share its blocks and choose their first tokens from its logits."""
        for fork in leader.forks:
            if fork.status is not Status.FORKING:
                continue
            for index in range(leader.num_holes, len(leader.block_table)):
                self.tables.acquire(leader.block_table[index], is_pinned=index >= leader.num_passed_blocks)
            fork.block_table, fork.num_holes = list(leader.block_table), leader.num_holes
            fork.num_passed_blocks = leader.num_passed_blocks
            fork.block_keys = list(leader.block_keys)
            fork.num_entered_blocks = leader.num_entered_blocks
            fork.num_computed_tokens = leader.num_computed_tokens
            fork.status = Status.RUNNING
            self.running.append(fork)
            self._add_sample(fork, step)
        leader.forks = []


def _up_to_boundary(seq: Sequence, num_tokens: int) -> int:
    """Cut a chunk of `num_tokens` where a copy of the state is worth most: the last block border before the prompt's
    end, else the last one inside the chunk."""
    start, end = seq.num_computed_tokens, seq.num_computed_tokens + num_tokens
    last_border = (seq.num_tokens - 1) // BLOCK_SIZE * BLOCK_SIZE
    if start < last_border < end:
        return last_border - start
    border = end // BLOCK_SIZE * BLOCK_SIZE
    return border - start if border > start and end < seq.num_tokens else num_tokens
