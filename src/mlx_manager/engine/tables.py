"""The blocks of every sequence: given, shared, copied, kept for their contents, and given back. No tensors here.

A sequence that ends or is preempted leaves its full blocks findable in the prefix index, and its last one to be copied
from. What has to go is handed to the store, if there is one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from mlx_manager.engine.block_store import BlockStore
from mlx_manager.engine.blocks import BLOCK_SIZE, HOLE, BlockPool, OutOfBlocks, num_blocks_for
from mlx_manager.engine.checkpoints import CheckpointBook
from mlx_manager.engine.draft_ledger import DraftLedger
from mlx_manager.engine.prefix import ROOT_KEY, PrefixIndex, chain_keys
from mlx_manager.engine.prefix_miss import PrefixMemory
from mlx_manager.engine.residency import Residency
from mlx_manager.engine.sequence import Sequence
from mlx_manager.engine.step import Step
from mlx_manager.engine.windows import Window


class BlockTables:
    """Owns the block pool, the prefix index and the books of what is kept; writes the block tables of sequences."""

    def __init__(
        self,
        num_blocks: int,
        *,
        has_prefix_cache: bool,
        checkpoints: CheckpointBook | None,
        window: Window | None,
        store: BlockStore | None,
    ) -> None:
        self.residency: Residency | None = None
        """Where some attention layers have windows and an arena of their own; None: all share one. Set by the owner."""
        self.prefix = PrefixIndex()
        self.blocks = BlockPool(num_blocks, on_evict=self.forget_block)
        self.has_prefix_cache = has_prefix_cache
        self.checkpoints = checkpoints
        """Where the model has recurrent layers; None where it has none."""
        self.window = window if has_prefix_cache else None
        """Where every attention layer has a window; None where one has none, and all blocks are kept."""
        is_resumable = has_prefix_cache and (checkpoints is None or checkpoints.max_checkpoints > 0)
        self.store = store if is_resumable else None
        """Where more is kept than here; None where nothing is, or nothing of it could be gone on from."""
        if checkpoints is not None and self.store is not None:
            checkpoints.on_evict = self._spill_state
        self.memory = PrefixMemory()
        self.draft_ledger: DraftLedger | None = None
        """What the draft model has, where there is one. Set by the owner."""
        self.computing: dict[bytes, int] = {}
        """Keys of full prompt blocks that a running sequence is about to compute, and its id."""
        self.loading: set[int] = set()
        """Blocks that the step being put together takes from the store: nothing is in them yet."""
        self.unproven: set[int] = set()
        """Blocks of prompts behind a window, given back before any token showed that what is in them is finite."""
        self.scrubs: list[int] = []
        """Blocks to zero with the next step."""
        self.ended: list[int] = []
        """Ids of sequences that lost their place since the last step."""
        self._spills: list[tuple[int, bytes]] = []
        self._state_spills: list[tuple[int, bytes]] = []

    @property
    def has_news(self) -> bool:
        """Whether the runner still has to be told of something."""
        return bool(self.ended or self.scrubs or (self.residency is not None and self.residency.scrubs))

    @property
    def num_free(self) -> int:
        """Blocks that can be allocated without taking anything cached from the full layers."""
        num_free = self.blocks.num_free
        return num_free if self.residency is None else min(num_free, self.residency.num_available)

    def allocate(self) -> int:
        """A block to write. Raises `OutOfBlocks`."""
        if self.residency is not None and self.residency.num_available == 0:
            raise OutOfBlocks
        block = self.blocks.allocate()
        if self.residency is not None:
            self.residency.admit(block)
        if block in self.unproven:
            self.unproven.discard(block)
            self.scrubs.append(block)
        if self.draft_ledger is not None:
            self.draft_ledger.allocated(block)
        return block

    def acquire(self, block: int, *, is_pinned: bool) -> None:
        """One more sequence has `block`, which is used or cached; `is_pinned` where its windows may read it."""
        self.blocks.acquire(block)
        if self.residency is not None and is_pinned:
            self.residency.pin(block)

    def release(self, block: int, *, is_pinned: bool) -> None:
        """A sequence has `block` no longer, which stays cached where it can be found."""
        is_kept = block in self.prefix
        if self.residency is not None and is_pinned:
            self.residency.unpin(block)
        self.blocks.release(block, keep=is_kept)
        if self.residency is not None and not is_kept and self.blocks.num_references(block) == 0:
            self.residency.drop(block)

    def prepare_blocks(self, seq: Sequence, end: int, step: Step) -> None:
        """Make positions `num_computed_tokens` to `end - 1` of `seq` writable. Raises `OutOfBlocks`, books unharmed."""
        first = seq.num_computed_tokens // BLOCK_SIZE
        if first < len(seq.block_table) and self.blocks.num_references(seq.block_table[first]) > 1:
            shared = seq.block_table[first]
            own = self.allocate()
            self.copy(shared, own, step)
            seq.block_table[first] = own
            self.release(shared, is_pinned=True)
        while len(seq.block_table) < num_blocks_for(end):
            seq.block_table.append(self.allocate())

    def copy(self, source: int, target: int, step: Step) -> None:
        """Copy a whole block with the step. Both have their slots now, whoever gets them later."""
        step.copies.append((source, target))
        if self.residency is not None:
            step.slot_copies[target] = (self.residency.slot(source), self.residency.slot(target))

    def slot_table(self, seq: Sequence, num_blocks: int) -> tuple[int, ...] | None:
        """Where windowed layers have the first `num_blocks` blocks of `seq`, if they have an arena of their own."""
        return None if self.residency is None else self.residency.table(seq, num_blocks)

    def num_missing_blocks(self, num_tokens: int, block_table: list[int], num_holes: int) -> int:
        """Blocks that a sequence with this table still has to be given, at once, until `num_tokens` were computed."""
        num_missing = max(0, num_blocks_for(num_tokens) - len(block_table))
        if self.window is None:
            return num_missing
        return min(num_missing, max(0, self.window.max_held_blocks - (len(block_table) - num_holes)))

    def enter_full_blocks(self, seq: Sequence) -> None:
        """Make the blocks of `seq` findable that are computed, full, and whose tokens the host knows."""
        if not self.has_prefix_cache:
            return
        num_full = min(seq.num_computed_tokens, len(seq.token_ids)) // BLOCK_SIZE
        if num_full > seq.num_entered_blocks:
            chain_keys(seq.prefix_ids, seq.block_keys)
        while seq.num_entered_blocks < num_full:
            index = seq.num_entered_blocks
            parent = seq.block_keys[index - 1] if index else ROOT_KEY
            self.prefix.enter(seq.block_table[index], parent, seq.prefix_ids_of_block(index))
            self.retract(seq.block_keys[index], seq)
            seq.num_entered_blocks += 1

    def keep_checkpoints(self, seq: Sequence) -> None:
        """Make the copies of the state of `seq` findable whose tokens the host knows."""
        while self.checkpoints is not None and seq.pending_checkpoints:
            num_blocks, checkpoint = seq.pending_checkpoints[0]
            if num_blocks * BLOCK_SIZE > len(seq.token_ids):
                return
            chain_keys(seq.prefix_ids, seq.block_keys)
            has_one_before = (num_blocks - 1) * BLOCK_SIZE > seq.num_prompt_tokens
            left_behind = seq.block_keys[num_blocks - 2] if has_one_before else None
            self.checkpoints.keep(seq.block_keys[num_blocks - 1], checkpoint, left_behind)
            del seq.pending_checkpoints[0]

    def give_back_passed_blocks(self, running: Iterable[Sequence]) -> None:
        """Release the blocks that every layer's window has passed. They stay findable, as those of ended sequences do.

        Only between steps: until the next one is scheduled, the last one reads them.
        """
        if self.residency is not None:
            self.residency.pass_blocks(running)
        if self.window is None:
            return
        for seq in running:
            end = min(self.window.first_block(seq.num_computed_tokens), seq.num_entered_blocks)
            for index in range(seq.num_holes, end):
                block = seq.block_table[index]
                if index * BLOCK_SIZE < seq.num_prompt_tokens:
                    self.unproven.add(block)
                self.blocks.release(block, keep=block in self.prefix)
                seq.block_table[index] = HOLE
            seq.num_holes = max(seq.num_holes, end)

    def let_go(self, seq: Sequence, *, is_tainted: bool) -> None:
        """Release every block of `seq`, entering its last, partly filled one first so that it can be copied from."""
        if is_tainted:
            self._forget_contents(seq)
        elif self.has_prefix_cache:
            self.enter_full_blocks(seq)
            num_known = min(seq.num_computed_tokens, len(seq.token_ids))
            if seq.block_table:
                self.memory.end(seq.seq_id, seq.prefix_ids[:num_known], seq.num_prompt_tokens)
            index, num_in_last = divmod(num_known, BLOCK_SIZE)
            if num_in_last and index < len(seq.block_table) and self.blocks.num_references(seq.block_table[index]) == 1:
                parent = seq.block_keys[index - 1] if index else ROOT_KEY
                self.prefix.enter(seq.block_table[index], parent, seq.prefix_ids_of_block(index)[:num_in_last])
        # Last blocks first, so that the beginning of a prefix outlives its end.
        for index in reversed(range(seq.num_holes, len(seq.block_table))):
            self.release(seq.block_table[index], is_pinned=index >= seq.num_passed_blocks)
        for key in seq.block_keys:
            self.retract(key, seq)
        if seq.block_table:
            self.ended.append(seq.seq_id)
        for _, checkpoint in seq.pending_checkpoints:
            if self.checkpoints is not None:
                self.checkpoints.discard(checkpoint)
        seq.pending_checkpoints = []
        seq.block_table = []
        seq.num_holes = 0
        seq.num_passed_blocks = 0
        seq.num_computed_tokens = 0
        seq.num_entered_blocks = 0
        seq.restoring_to = 0
        seq.source_row = None

    def distrust(self) -> None:
        """Forget every cached block, and zero whatever no sequence holds: somebody left values that are not finite."""
        self.blocks.forget_cached()
        self._spills.clear()
        self._state_spills.clear()
        self.scrubs.extend(self.blocks.recycled())
        if self.residency is not None:
            self.residency.distrust()

    def trim(self) -> None:
        """Forget everything that is cached, as if nothing had ever run. Raises `ValueError` while a block is in use."""
        self.blocks.reset()
        if self.residency is not None:
            self.residency.reset()
        if self.draft_ledger is not None:
            self.draft_ledger.forget()
        self._spills.clear()
        self._state_spills.clear()
        self.unproven.clear()
        if self.checkpoints is not None:
            self.checkpoints.forget_all()
            self.checkpoints.take_dropped()

    def unspilled(self, num_most: int) -> list[tuple[int, bytes]]:
        """Up to `num_most` (block, key) of cached blocks that the store has never had, oldest first."""
        if self.store is None:
            return []
        missing: list[tuple[int, bytes]] = []
        settled = []
        for block in self.blocks.unsettled:
            key = self.prefix.full_key(block)
            if key is None or not self.store.wants(key):
                settled.append(block)
                continue
            missing.append((block, key))
            if len(missing) == num_most:
                break
        for block in settled:
            # So that what was kept before is not looked at anew each time. The others the store may yet refuse.
            self.blocks.settle(block)
        return missing

    def unspilled_states(self, num_most: int) -> list[tuple[int, bytes]]:
        """Up to `num_most` (checkpoint, key) of copies of states that the store has never had, used last first."""
        if self.store is None or self.checkpoints is None:
            return []
        kept = self.checkpoints.lasting()
        missing = ((checkpoint, key) for key, checkpoint in kept if self.store.wants_state(key))
        return list(itertools.islice(missing, num_most))

    def take_scrubs(self) -> tuple[int, ...]:
        """Blocks to zero, once each."""
        scrubs, self.scrubs = tuple(self.scrubs), []
        return scrubs

    def take_ended(self) -> tuple[int, ...]:
        """Sequences that lost their place, told once."""
        ended, self.ended = tuple(self.ended), []
        return ended

    def take_spills(self) -> tuple[tuple[int, bytes], ...]:
        """(block, key) of what has to go, for the store."""
        spills, self._spills = tuple(self._spills), []
        return spills

    def take_state_spills(self) -> tuple[tuple[int, bytes], ...]:
        """(checkpoint, key) of what has to go, for the store."""
        spills, self._state_spills = tuple(self._state_spills), []
        return spills

    def check_integrity(self, running: Iterable[Sequence], waiting: Iterable[Sequence]) -> None:
        """Prove that the books balance: every reference has a block table that holds it. Raises `AssertionError`."""
        running = list(running)
        self.blocks.check_integrity()
        counts: dict[int, int] = {}
        for seq in [*running, *waiting]:
            if any((block == HOLE) != (index < seq.num_holes) for index, block in enumerate(seq.block_table)):
                raise AssertionError(f"the holes of sequence {seq.seq_id} are not where it says")
            for block in seq.block_table[seq.num_holes :]:
                counts[block] = counts.get(block, 0) + 1
        for block in range(self.blocks.num_blocks):
            if self.blocks.num_references(block) != counts.get(block, 0):
                raise AssertionError(f"block {block} is referenced by nobody's table, or by more than its count says")
        if self.residency is not None:
            self.residency.check_integrity([*running, *waiting])
        if not set(self.computing.values()) <= {seq.seq_id for seq in running}:
            raise AssertionError("a block is announced by a sequence that does not run")

    def retract(self, key: bytes, seq: Sequence) -> None:
        """The block with this key is computed, or will not be by `seq`."""
        if self.computing.get(key) == seq.seq_id:
            del self.computing[key]

    def forget_block(self, block: int) -> None:
        """Make a block unfindable that is about to be handed out; the store may have what is in it."""
        key = self.prefix.full_key(block)
        if self.store is not None and key is not None and key not in self.store and block not in self.loading:
            self._spills.append((block, key))
        self.prefix.forget(block)
        if self.residency is not None:
            self.residency.drop(block)

    def _spill_state(self, key: bytes, checkpoint: int) -> None:
        if self.store is not None and not self.store.has_state(key):
            self._state_spills.append((checkpoint, key))

    def _forget_contents(self, seq: Sequence) -> None:
        """What `seq` computed is not to be trusted: nobody finds it any more, and what only `seq` holds is zeroed."""
        if self.store is not None:
            self.store.forget(seq.block_keys)
        if self.checkpoints is not None:
            for key in seq.block_keys:
                self.checkpoints.forget(key)
        for block in seq.block_table[seq.num_holes :]:
            if self.blocks.num_references(block) == 1:
                self.prefix.forget(block)
                self.scrubs.append(block)
                if self.residency is not None:
                    self.residency.scrub(block)
        if seq.num_holes or seq.num_passed_blocks:
            # Nobody knows any more which blocks it gave back, or whose slots it had.
            self.distrust()
