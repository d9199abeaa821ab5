"""The scheduler: which sequences take part in the next step, with which tokens and blocks. No tensors here.

Each step decodes every running sequence and fills what is left of the token budget with prefill. Sequences enter by
turn (see `queue`), find their prefix in the cache, and share its blocks. When blocks run out, the running sequence
whose turn is last gives its blocks up and goes back to the queue; it resumes through the prefix cache.

The pipeline: a step may be scheduled before the tokens of the one before it are known. Such a token is on the device
only; its sequence has `num_sampling` above 0 and its `source_row` says where.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from mlx_manager.engine.batch import Batch, DraftRow, Sample, Segment
from mlx_manager.engine.block_store import BlockStore, StoredBlock, StoredState
from mlx_manager.engine.blocks import BLOCK_SIZE, HOLE, BlockPool, OutOfBlocks, num_blocks_for
from mlx_manager.engine.checkpoints import CheckpointBook
from mlx_manager.engine.draft_ledger import DraftLedger
from mlx_manager.engine.draft_watch import DraftSource
from mlx_manager.engine.drafting import Drafting, with_draft
from mlx_manager.engine.pacing import StepPacer
from mlx_manager.engine.prefix import ROOT_KEY, PrefixIndex, chain_keys
from mlx_manager.engine.prefix_miss import Lookup, PrefixMemory, explain
from mlx_manager.engine.queue import WaitingQueue
from mlx_manager.engine.restore import Restored, Restorer
from mlx_manager.engine.sequence import Sequence, Status
from mlx_manager.engine.windows import Window
from mlx_manager.ir import PrefixReport


@dataclass
class _Step:
    """The step being put together."""

    segments: list[Segment] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)
    scheduled: set[int] = field(default_factory=set)
    """Ids of the sequences in the step."""
    saves: list[tuple[int, int]] = field(default_factory=list)
    restores: list[tuple[int, int]] = field(default_factory=list)
    saved_keys: set[bytes] = field(default_factory=set)
    """Prefix keys of `saves`: copies are made after the step, so nothing in it can go on from these."""
    loads: list[tuple[int, StoredBlock]] = field(default_factory=list)
    state_loads: list[tuple[int, StoredState]] = field(default_factory=list)
    restored: set[int] = field(default_factory=set)
    """Ids of the sequences that some of `loads` are for."""
    written: set[int] = field(default_factory=set)
    """Blocks that this step writes: copies are made before, so nothing in these can be copied yet."""
    draft_rows: list[DraftRow] = field(default_factory=list)


class Scheduler:
    """Owns every sequence, the block pool and the prefix index. `pacer` bounds the prefill of each step.

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
        self.prefix = PrefixIndex()
        self.blocks = BlockPool(num_blocks, on_evict=self._forget_block)
        is_resumable = has_prefix_cache and (checkpoints is None or checkpoints.max_checkpoints > 0)
        self._store = store if is_resumable else None
        """Where more is kept than here; None where nothing is, or nothing of it could be gone on from."""
        self._spills: list[tuple[int, bytes]] = []
        self._state_spills: list[tuple[int, bytes]] = []
        self._loading: set[int] = set()
        """Blocks that the step being put together takes from the store: nothing is in them yet."""
        self.waiting = WaitingQueue(ageing_s)
        self.running: list[Sequence] = []
        self.num_preemptions = 0
        self.num_restored_tokens = 0
        """Prompt tokens whose blocks came from the store."""
        self.drafting: Drafting | None = None
        """None where nothing is guessed ahead. Set by the owner, before the first sequence."""
        self._pacer = pacer
        self._max_batch_size = max_batch_size
        self._has_prefix_cache = has_prefix_cache
        self.on_admit: Callable[[Sequence, PrefixReport], None] = lambda seq, report: None
        """Told each sequence when it is admitted for the first time, and what the prefix cache had of it."""
        self._memory = PrefixMemory()
        self._checkpoints = checkpoints
        """Where the model has recurrent layers; None where it has none."""
        self._computing: dict[bytes, int] = {}
        """Keys of full prompt blocks that a running sequence is about to compute, and its id."""
        self._window = window if has_prefix_cache else None
        """Where every attention layer has a window; None where one has none, and all blocks are kept."""
        self._restorer = None if self._store is None else Restorer(self._store, checkpoints, self._window)
        if checkpoints is not None and self._store is not None:
            checkpoints.on_evict = self._spill_state
        self._unproven: set[int] = set()
        """Blocks of prompts behind a window, given back before any token showed that what is in them is finite."""
        self._scrubs: list[int] = []
        self._ended: list[int] = []

    @property
    def _draft_ledger(self) -> DraftLedger | None:
        return None if self.drafting is None else self.drafting.ledger

    # -- what the engine asks for ------------------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        """Whether anything runs, waits, or has ended without the runner knowing yet."""
        return bool(self.running or self._ended or self._scrubs) or len(self.waiting) > 0

    @property
    def is_endless(self) -> bool:
        """Whether one sequence can be of any length, because its windows pass over what it holds."""
        return self._window is not None and self._window.max_held_blocks <= self.blocks.num_blocks

    def add(self, seq: Sequence) -> None:
        """Queue a sequence; its `forks`, if any, follow it when its prompt is prefilled."""
        for fork in seq.forks:
            fork.status = Status.FORKING
        self.waiting.push(seq)

    def schedule(self) -> Batch:
        """Put the next step together and book it as launched. An empty batch means that nothing can run now."""
        step = _Step()
        if self.drafting is not None:
            self.drafting.begin_step()
        self._loading.clear()
        self._give_back_passed_blocks()
        self._schedule_decodes(step)
        self._schedule_prefills(step)
        scrubs, self._scrubs = tuple(self._scrubs), []
        ended, self._ended = tuple(self._ended), []
        return Batch(
            segments=tuple(step.segments),
            samples=tuple(step.samples),
            copies=tuple(step.copies),
            scrubs=scrubs,
            ended=ended,
            saves=tuple(step.saves),
            restores=tuple(step.restores),
            dropped=self._checkpoints.take_dropped() if self._checkpoints is not None else (),
            num_blocks=self.blocks.num_touched,
            spills=self._take_spills(),
            loads=tuple(step.loads),
            draft_rows=tuple(step.draft_rows),
            state_spills=self._take_state_spills(),
            state_loads=tuple(step.state_loads),
        )

    def unspilled(self, num_most: int) -> list[tuple[int, bytes]]:
        """Up to `num_most` (block, key) of cached blocks that the store has never had, oldest first."""
        if self._store is None:
            return []
        keyed = ((block, self.prefix.full_key(block)) for block in self.blocks.cached)
        missing = ((block, key) for block, key in keyed if key is not None and self._store.wants(key))
        return list(itertools.islice(missing, num_most))

    def unspilled_states(self, num_most: int) -> list[tuple[int, bytes]]:
        """Up to `num_most` (checkpoint, key) of copies of states that the store has never had, used last first."""
        if self._store is None or self._checkpoints is None:
            return []
        kept = self._checkpoints.lasting()
        missing = ((checkpoint, key) for key, checkpoint in kept if self._store.wants_state(key))
        return list(itertools.islice(missing, num_most))

    def commit_token(self, seq: Sequence, token_id: int) -> None:
        """Tell the sequence the token that a step chose for it; its now full blocks become findable."""
        seq.num_sampling -= 1
        seq.append(token_id)
        if seq.drafts is not None:
            seq.drafts.text.observe()
        self._enter_full_blocks(seq)
        self._keep_checkpoints(seq)

    def commit_drafted_token(self, seq: Sequence, token_id: int) -> None:
        """Tell the sequence one more token of the same step: the guess before it was what the step chose there."""
        seq.num_computed_tokens += 1
        seq.num_sampling += 1
        self.commit_token(seq, token_id)

    def expects_drafts(self) -> bool:
        """Whether a guess is worth its row in the next step, so that the tokens before it are better read first."""
        return self.drafting is not None and self.drafting.expects(self.running, len(self.running))

    def finish(self, seq: Sequence, *, is_tainted: bool = False) -> None:
        """Take a sequence out, whatever it was doing. Its blocks stay cached, or are zeroed when `is_tainted`."""
        if seq.status is Status.FINISHED:
            return
        if seq.status is Status.RUNNING:
            self.running.remove(seq)
        elif seq.status is Status.WAITING:
            self.waiting.remove(seq)
        self._let_go(seq, is_tainted=is_tainted)
        seq.status = Status.FINISHED
        for fork in seq.forks:
            # A leader that ends before its prompt is prefilled leaves its forks without a start: they start over.
            if fork.status is Status.FORKING:
                fork.status = Status.WAITING
                self.waiting.push(fork)
        seq.forks = []

    def distrust(self) -> None:
        """Forget every cached block, and zero whatever no sequence holds: somebody left values that are not finite."""
        self.blocks.forget_cached()
        self._spills.clear()
        self._state_spills.clear()
        self._scrubs.extend(self.blocks.recycled())

    def trim(self) -> None:
        """Forget everything that is cached, as if nothing had ever run. Raises `ValueError` while there is work."""
        if self.has_work:
            raise ValueError("sequences run or wait, or their end has not been told")
        self.blocks.reset()
        if self._draft_ledger is not None:
            self._draft_ledger.forget()
        self._spills.clear()
        self._state_spills.clear()
        self._unproven.clear()
        if self._checkpoints is not None:
            self._checkpoints.forget_all()
            self._checkpoints.take_dropped()

    def check_integrity(self) -> None:
        """Prove that the books balance: every reference has a block table that holds it. Raises `AssertionError`."""
        self.blocks.check_integrity()
        counts: dict[int, int] = {}
        for seq in [*self.running, *self.waiting]:
            if any((block == HOLE) != (index < seq.num_holes) for index, block in enumerate(seq.block_table)):
                raise AssertionError(f"the holes of sequence {seq.seq_id} are not where it says")
            for block in seq.block_table[seq.num_holes :]:
                counts[block] = counts.get(block, 0) + 1
        for block in range(self.blocks.num_blocks):
            if self.blocks.num_references(block) != counts.get(block, 0):
                raise AssertionError(f"block {block} is referenced by nobody's table, or by more than its count says")
        running = {seq.seq_id for seq in self.running}
        if not set(self._computing.values()) <= running:
            raise AssertionError("a block is announced by a sequence that does not run")

    # -- decode ------------------------------------------------------------------------------------------------

    def _schedule_decodes(self, step: _Step) -> None:
        for seq in sorted(self.running, key=self.waiting.turn_of):
            if seq.status is not Status.RUNNING or seq.is_prefilling or not seq.wants_more:
                continue
            if self._make_room(seq, 1, step):
                self._take(seq, 1, step)
                if self.drafting is not None:
                    self._add_drafts(seq, self.drafting, step)

    def _add_drafts(self, seq: Sequence, drafting: Drafting, step: _Step) -> None:
        """Append guesses to the segment just taken, where they pay and there are blocks that nobody has to give up."""
        if seq.num_sampling > 1:
            return
        num_left = seq.max_output_tokens - seq.num_output_tokens
        num_rows_left = self._pacer.max_step_tokens - sum(segment.num_tokens for segment in step.segments)
        draft = drafting.draft(seq, len(self.running), min(num_left, num_rows_left - len(self.running)))
        if draft is None:
            return
        end = seq.num_computed_tokens + len(draft.token_ids)
        if num_blocks_for(end) - len(seq.block_table) > self.blocks.num_free:
            return
        while len(seq.block_table) < num_blocks_for(end):
            seq.block_table.append(self._allocate())
        if draft.source is DraftSource.MODEL and self._draft_ledger is not None:
            row = drafting.ask_model(self._draft_ledger, seq, len(step.segments) - 1, len(draft.token_ids))
            step.draft_rows.append(row)
            if not row.num_guesses:
                return
        segment, samples = with_draft(step.segments.pop(), step.samples.pop(), draft, seq.block_table)
        step.segments.append(segment)
        step.samples += samples
        step.written.update(seq.block_table[segment.start // BLOCK_SIZE : num_blocks_for(end)])

    def _make_room(self, seq: Sequence, num_tokens: int, step: _Step) -> bool:
        """Give the next positions of `seq` blocks it may write. While there are none, preempt whose turn is last.

        False when that was `seq` itself.
        """
        while True:
            try:
                self._prepare_blocks(seq, seq.num_computed_tokens + num_tokens, step)
                return True
            except OutOfBlocks:
                victim = self._victim(step)
                self._preempt(victim or seq, step)
                if victim is None or victim is seq:
                    return False

    def _victim(self, step: _Step) -> Sequence | None:
        """The running sequence whose turn is last, of those that are not in the step yet."""
        candidates = [seq for seq in self.running if seq.seq_id not in step.scheduled]
        return max(candidates, key=self.waiting.turn_of, default=None)

    def _preempt(self, seq: Sequence, step: _Step) -> None:
        """Send a sequence that is not in the step back to the queue."""
        copied = {to for _, to in step.copies} & set(seq.block_table)
        if copied:
            # The copy will not be made, so what it would have brought does not count as computed.
            first = min(seq.block_table.index(block) for block in copied)
            seq.num_computed_tokens = min(seq.num_computed_tokens, first * BLOCK_SIZE)
            step.copies = [copy for copy in step.copies if copy[1] not in copied]
        step.restores = [restore for restore in step.restores if restore[0] != seq.seq_id]
        self.running.remove(seq)
        self._let_go(seq, is_tainted=False)
        seq.status = Status.WAITING
        self.waiting.push(seq)
        self.num_preemptions += 1

    # -- prefill -----------------------------------------------------------------------------------------------

    def _schedule_prefills(self, step: _Step) -> None:
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

    def _is_ready(self, seq: Sequence, step: _Step) -> bool:
        """Whether a waiting sequence can start: all its tokens are known, and nobody is about to compute its prefix."""
        return seq.num_sampling == 0 and not self._is_being_computed(seq, step)

    def _has_place(self, num_rows: int) -> bool:
        """Whether the batch has places for a request of `num_rows` choices; one larger than the batch runs alone."""
        num_taken = sum(1 + len(seq.forks) for seq in self.running)
        return num_taken + num_rows <= max(self._max_batch_size, num_rows)

    def _is_being_computed(self, seq: Sequence, step: _Step) -> bool:
        """Whether a running sequence is about to compute the next block of `seq`: then `seq` had better wait.

        So it had when this step makes a copy of a state that `seq` could go on from.
        """
        if not self._has_prefix_cache or not (self._computing or step.saved_keys):
            return False
        chain_keys(seq.prefix_ids, seq.block_keys)
        keys = seq.block_keys[: (seq.num_tokens - 1) // BLOCK_SIZE]
        if not step.saved_keys.isdisjoint(keys):
            return True
        num_found = len(self._find_blocks(keys))
        return num_found < len(keys) and keys[num_found] in self._computing

    def _admit(self, seq: Sequence, step: _Step) -> bool:
        """Move `seq` from the queue into the batch, on top of what the prefix cache holds of it. False: no room now."""
        hits = self._find_prefix(seq)
        num_holes = hits.count(HOLE)
        held = hits[num_holes:]
        num_needed = self._num_missing_blocks(seq.num_tokens, hits, num_holes)
        num_unreferenced_hits = sum(1 for block in held if self.blocks.num_references(block) == 0)
        # What running sequences still need for the tokens they have, and one block each to go on with, so that
        # admitting does not preempt at once.
        num_reserved = sum(
            1 + self._num_missing_blocks(other.num_tokens, other.block_table, other.num_holes) for other in self.running
        )
        if self.running and num_needed + num_reserved > self.blocks.num_available - num_unreferenced_hits:
            return False
        if num_needed > self.blocks.num_available - num_unreferenced_hits:
            return False
        self.waiting.remove(seq)
        for block in held:
            self.blocks.acquire(block)
        if hits and self._checkpoints is not None:
            step.restores.append((seq.seq_id, self._checkpoints.use(seq.block_keys[len(hits) - 1])))
        seq.block_table, seq.num_holes = hits, num_holes
        seq.num_entered_blocks = len(seq.block_table)
        seq.num_computed_tokens = len(seq.block_table) * BLOCK_SIZE
        self._restore(seq, step)
        if not seq.restoring_to:
            self._copy_partial_hit(seq, step)
        if not seq.has_started:
            seq.num_cached_tokens = max(seq.num_computed_tokens, seq.restoring_to * BLOCK_SIZE)
            seq.has_started = True
            self._tell_admitted(seq)
        seq.status = Status.RUNNING
        self.running.append(seq)
        for key in seq.block_keys[seq.num_entered_blocks : (seq.num_tokens - 1) // BLOCK_SIZE]:
            self._computing.setdefault(key, seq.seq_id)
        return True

    def _restore(self, seq: Sequence, step: _Step) -> None:
        """Go on behind more blocks than there are, where the store has them and fetching is faster than computing."""
        if self._restorer is None:
            return
        num_promised, seq.restoring_to = seq.restoring_to * BLOCK_SIZE, 0
        keys = seq.block_keys[: (seq.num_tokens - 1) // BLOCK_SIZE]
        num_held = len(seq.block_table)
        restored = self._restorer.restore(keys, num_held, self.prefix.find, self._pacer.prefill_token_s)
        num_new = 0 if restored is None else restored.num_blocks - max(restored.first_block, num_held)
        if restored is None or num_new > self.blocks.num_available:
            if num_promised and seq.num_cached_tokens == num_promised:
                # It was counted as cached, and is computed after all.
                seq.num_cached_tokens = seq.num_computed_tokens
            return
        before = seq.block_table[seq.num_holes :]
        seq.num_holes = restored.first_block
        seq.block_table = [HOLE] * restored.first_block + self._restored_table(seq, restored, step)
        for block in before:
            self.blocks.release(block, keep=True)
        seq.num_entered_blocks = restored.num_blocks
        seq.num_computed_tokens = restored.num_blocks * BLOCK_SIZE
        seq.num_found_blocks = max(seq.num_found_blocks, restored.num_in_store)
        if restored.num_in_store > restored.num_blocks:
            seq.restoring_to = restored.num_in_store
        step.restored.add(seq.seq_id)
        self.num_restored_tokens += (restored.num_blocks - num_held) * BLOCK_SIZE
        if self._checkpoints is not None:
            key = keys[restored.num_blocks - 1]
            checkpoint = self._checkpoints.use(key) if restored.state is None else self._checkpoints.new_id()
            step.restores = [one for one in step.restores if one[0] != seq.seq_id] + [(seq.seq_id, checkpoint)]
            if restored.state is not None:
                step.state_loads.append((checkpoint, restored.state))
                self._checkpoints.keep(key, checkpoint)

    def _restored_table(self, seq: Sequence, restored: Restored, step: _Step) -> list[int]:
        """The blocks of `restored`, referenced: those of the arena, and new ones for what was fetched."""
        found = [self.prefix.find(key) for key in seq.block_keys[restored.first_block : restored.num_blocks]]
        for block in found:
            # All before the first one is allocated, which could evict them.
            if block is not None:
                self.blocks.acquire(block)
        table = []
        for index, known in enumerate(found, restored.first_block):
            block = self._allocate() if known is None else known
            if known is None:
                parent = seq.block_keys[index - 1] if index else ROOT_KEY
                self.prefix.enter(block, parent, seq.prefix_ids_of_block(index))
                step.loads.append((block, restored.blocks[index]))
                self._loading.add(block)
                self._retract(seq.block_keys[index], seq)
            table.append(block)
        return table

    def _forget_block(self, block: int) -> None:
        key = self.prefix.full_key(block)
        if self._store is not None and key is not None and key not in self._store and block not in self._loading:
            self._spills.append((block, key))
        self.prefix.forget(block)

    def _spill_state(self, key: bytes, checkpoint: int) -> None:
        if self._store is not None and not self._store.has_state(key):
            self._state_spills.append((checkpoint, key))

    def _take_state_spills(self) -> tuple[tuple[int, bytes], ...]:
        spills, self._state_spills = tuple(self._state_spills), []
        return spills

    def _take_spills(self) -> tuple[tuple[int, bytes], ...]:
        spills, self._spills = tuple(self._spills), []
        return spills

    def _tell_admitted(self, seq: Sequence) -> None:
        prompt = seq.prefix_ids[: seq.num_prompt_tokens]
        lookup = Lookup(seq.num_cached_tokens, seq.num_found_blocks, self._has_prefix_cache)
        report = explain(prompt, lookup, self._memory)
        if self._has_prefix_cache:
            self._memory.begin(seq.seq_id, prompt)
        self.on_admit(seq, report)

    def _find_prefix(self, seq: Sequence) -> list[int]:
        """The full blocks that the cache holds of `seq`, leaving at least its last token to compute.

        Behind the window of a model that has one everywhere, they are holes, whether they are still there or not.
        """
        if not self._has_prefix_cache:
            return []
        chain_keys(seq.prefix_ids, seq.block_keys)
        keys = seq.block_keys[: (seq.num_tokens - 1) // BLOCK_SIZE]
        hits = self._find_blocks(keys)
        seq.num_found_blocks = len(hits)
        if self._checkpoints is None:
            return hits
        if self._window is not None:
            return self._find_blocks(keys, self._checkpoints)
        del hits[self._checkpoints.deepest(keys[: len(hits)]) :]
        return hits

    def _find_blocks(self, keys: list[bytes], checkpoints: CheckpointBook | None = None) -> list[int]:
        """The blocks of the longest prefix of `keys` that can be read on behind; `checkpoints` asks for a state too."""
        if self._window is not None:
            may_resume = (
                (lambda depth: True) if checkpoints is None else (lambda depth: checkpoints.has(keys[depth - 1]))
            )
            return self._window.resume([self.prefix.find(key) for key in keys], may_resume)
        blocks = []
        for key in keys:
            block = self.prefix.find(key)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def _num_missing_blocks(self, num_tokens: int, block_table: list[int], num_holes: int) -> int:
        """Blocks that a sequence with this table still has to be given, at once, until `num_tokens` were computed."""
        num_missing = max(0, num_blocks_for(num_tokens) - len(block_table))
        if self._window is None:
            return num_missing
        return min(num_missing, max(0, self._window.max_held_blocks - (len(block_table) - num_holes)))

    def _copy_partial_hit(self, seq: Sequence, step: _Step) -> None:
        """Start the first block that was not found from one that begins alike, if there is one."""
        if not self._has_prefix_cache or self._checkpoints is not None:
            # A state stands at a block's end, never inside one.
            return
        num_hits = len(seq.block_table)
        parent = seq.block_keys[num_hits - 1] if num_hits else ROOT_KEY
        wanted = seq.prefix_ids[num_hits * BLOCK_SIZE : seq.num_tokens - 1][:BLOCK_SIZE]
        hit = self.prefix.find_partial(parent, wanted, exclude=step.written | self._unproven)
        if hit is None:
            return
        # Held while the copy's own block is allocated, so that it is not the one evicted for it.
        self.blocks.acquire(hit.block)
        block = self._allocate() if self.blocks.num_available > 0 else None
        self.blocks.release(hit.block, keep=True)
        if block is None:
            return
        step.copies.append((hit.block, block))
        seq.block_table.append(block)
        seq.num_computed_tokens += hit.num_tokens

    def _take_chunk(self, seq: Sequence, budget: int, step: _Step) -> int:
        """Prefill up to `budget` tokens of `seq`; returns how many: 0 while blocks of it come from the store."""
        if seq.restoring_to and seq.seq_id not in step.restored:
            self._restore(seq, step)
        if seq.restoring_to:
            return 0
        num_tokens = min(budget, seq.num_uncomputed_tokens)
        if self._checkpoints is not None:
            num_tokens = _up_to_boundary(seq, num_tokens)
        if not self._make_room(seq, num_tokens, step):
            return 0
        self._take(seq, num_tokens, step)
        return num_tokens

    # -- both --------------------------------------------------------------------------------------------------

    def _prepare_blocks(self, seq: Sequence, end: int, step: _Step) -> None:
        """Make positions `num_computed_tokens` to `end - 1` of `seq` writable. Raises `OutOfBlocks`, books unharmed."""
        first = seq.num_computed_tokens // BLOCK_SIZE
        if first < len(seq.block_table) and self.blocks.num_references(seq.block_table[first]) > 1:
            shared = seq.block_table[first]
            own = self._allocate()
            step.copies.append((shared, own))
            seq.block_table[first] = own
            self.blocks.release(shared, keep=shared in self.prefix)
        while len(seq.block_table) < num_blocks_for(end):
            seq.block_table.append(self._allocate())

    def _allocate(self) -> int:
        """A block to write. Raises `OutOfBlocks`."""
        block = self.blocks.allocate()
        if block in self._unproven:
            self._unproven.discard(block)
            self._scrubs.append(block)
        if self._draft_ledger is not None:
            self._draft_ledger.allocated(block)
        return block

    def _give_back_passed_blocks(self) -> None:
        """Release the blocks that every layer's window has passed. They stay findable, as those of ended sequences do.

        Only between steps: until the next one is scheduled, the last one reads them.
        """
        if self._window is None:
            return
        for seq in self.running:
            end = min(self._window.first_block(seq.num_computed_tokens), seq.num_entered_blocks)
            for index in range(seq.num_holes, end):
                block = seq.block_table[index]
                if index * BLOCK_SIZE < seq.num_prompt_tokens:
                    self._unproven.add(block)
                self.blocks.release(block, keep=block in self.prefix)
                seq.block_table[index] = HOLE
            seq.num_holes = max(seq.num_holes, end)

    def _take(self, seq: Sequence, num_tokens: int, step: _Step) -> None:
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
            )
        )
        step.scheduled.add(seq.seq_id)
        if self._draft_ledger is not None:
            self._draft_ledger.written(seq.block_table, start, end)
        step.written.update(seq.block_table[start // BLOCK_SIZE : num_blocks_for(end)])
        is_complete = end == seq.num_tokens
        seq.num_computed_tokens = end
        self._enter_full_blocks(seq)
        if self._checkpoints is not None and end % BLOCK_SIZE == 0:
            checkpoint = self._checkpoints.new_id()
            step.saves.append((seq.seq_id, checkpoint))
            seq.pending_checkpoints.append((end // BLOCK_SIZE, checkpoint))
            self._keep_checkpoints(seq)
            step.saved_keys.update(seq.block_keys[end // BLOCK_SIZE - 1 : end // BLOCK_SIZE])
        if is_complete:
            self._add_sample(seq, step)
            self._start_forks(seq, step)

    def _add_sample(self, seq: Sequence, step: _Step) -> None:
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

    def _start_forks(self, leader: Sequence, step: _Step) -> None:
        """The leader's prompt is computed: its forks share its blocks and choose their first tokens from its logits."""
        for fork in leader.forks:
            if fork.status is not Status.FORKING:
                continue
            for block in leader.block_table[leader.num_holes :]:
                self.blocks.acquire(block)
            fork.block_table, fork.num_holes = list(leader.block_table), leader.num_holes
            fork.block_keys = list(leader.block_keys)
            fork.num_entered_blocks = leader.num_entered_blocks
            fork.num_computed_tokens = leader.num_computed_tokens
            fork.status = Status.RUNNING
            self.running.append(fork)
            self._add_sample(fork, step)
        leader.forks = []

    def _enter_full_blocks(self, seq: Sequence) -> None:
        """Make the blocks of `seq` findable that are computed, full, and whose tokens the host knows."""
        if not self._has_prefix_cache:
            return
        num_full = min(seq.num_computed_tokens, len(seq.token_ids)) // BLOCK_SIZE
        if num_full > seq.num_entered_blocks:
            chain_keys(seq.prefix_ids, seq.block_keys)
        while seq.num_entered_blocks < num_full:
            index = seq.num_entered_blocks
            parent = seq.block_keys[index - 1] if index else ROOT_KEY
            self.prefix.enter(seq.block_table[index], parent, seq.prefix_ids_of_block(index))
            self._retract(seq.block_keys[index], seq)
            seq.num_entered_blocks += 1

    def _keep_checkpoints(self, seq: Sequence) -> None:
        """Make the copies of the state of `seq` findable whose tokens the host knows."""
        while self._checkpoints is not None and seq.pending_checkpoints:
            num_blocks, checkpoint = seq.pending_checkpoints[0]
            if num_blocks * BLOCK_SIZE > len(seq.token_ids):
                return
            chain_keys(seq.prefix_ids, seq.block_keys)
            has_one_before = (num_blocks - 1) * BLOCK_SIZE > seq.num_prompt_tokens
            left_behind = seq.block_keys[num_blocks - 2] if has_one_before else None
            self._checkpoints.keep(seq.block_keys[num_blocks - 1], checkpoint, left_behind)
            del seq.pending_checkpoints[0]

    def _forget_contents(self, seq: Sequence) -> None:
        """What `seq` computed is not to be trusted: nobody finds it any more, and what only `seq` holds is zeroed."""
        if self._store is not None:
            self._store.forget(seq.block_keys)
        if self._checkpoints is not None:
            for key in seq.block_keys:
                self._checkpoints.forget(key)
        for block in seq.block_table[seq.num_holes :]:
            if self.blocks.num_references(block) == 1:
                self.prefix.forget(block)
                self._scrubs.append(block)
        if seq.num_holes:
            # Nobody knows any more which blocks it gave back.
            self.distrust()

    def _let_go(self, seq: Sequence, *, is_tainted: bool) -> None:
        """Release every block of `seq`, entering its last, partly filled one first so that it can be copied from."""
        if is_tainted:
            self._forget_contents(seq)
        elif self._has_prefix_cache:
            self._enter_full_blocks(seq)
            num_known = min(seq.num_computed_tokens, len(seq.token_ids))
            if seq.block_table:
                self._memory.end(seq.seq_id, seq.prefix_ids[:num_known], seq.num_prompt_tokens)
            index, num_in_last = divmod(num_known, BLOCK_SIZE)
            if num_in_last and index < len(seq.block_table) and self.blocks.num_references(seq.block_table[index]) == 1:
                parent = seq.block_keys[index - 1] if index else ROOT_KEY
                self.prefix.enter(seq.block_table[index], parent, seq.prefix_ids_of_block(index)[:num_in_last])
        # Last blocks first, so that the beginning of a prefix outlives its end.
        for block in reversed(seq.block_table[seq.num_holes :]):
            self.blocks.release(block, keep=block in self.prefix)
        for key in seq.block_keys:
            self._retract(key, seq)
        if seq.block_table:
            self._ended.append(seq.seq_id)
        for _, checkpoint in seq.pending_checkpoints:
            if self._checkpoints is not None:
                self._checkpoints.discard(checkpoint)
        seq.pending_checkpoints = []
        seq.block_table = []
        seq.num_holes = 0
        seq.num_computed_tokens = 0
        seq.num_entered_blocks = 0
        seq.restoring_to = 0
        seq.source_row = None

    def _retract(self, key: bytes, seq: Sequence) -> None:
        if self._computing.get(key) == seq.seq_id:
            del self._computing[key]


def _up_to_boundary(seq: Sequence, num_tokens: int) -> int:
    """Cut a chunk of `num_tokens` where a copy of the state is worth most: the last block border before the prompt's
    end, else the last one inside the chunk."""
    start, end = seq.num_computed_tokens, seq.num_computed_tokens + num_tokens
    last_border = (seq.num_tokens - 1) // BLOCK_SIZE * BLOCK_SIZE
    if start < last_border < end:
        return last_border - start
    border = end // BLOCK_SIZE * BLOCK_SIZE
    return border - start if border > start and end < seq.num_tokens else num_tokens
