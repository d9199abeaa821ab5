"""What the prefix cache and the store have of a sequence, put into its block table. No tensors here."""

from __future__ import annotations

from mlx_manager.engine.blocks import BLOCK_SIZE, HOLE, OutOfBlocks
from mlx_manager.engine.checkpoints import CheckpointBook
from mlx_manager.engine.pacing import StepPacer
from mlx_manager.engine.prefix import ROOT_KEY, chain_keys
from mlx_manager.engine.restore import Restored, Restorer
from mlx_manager.engine.sequence import Sequence
from mlx_manager.engine.step import Step
from mlx_manager.engine.tables import BlockTables


class PrefixFinder:
    """Finds the beginnings of sequences among what `tables` keep, and fetches more of them where that is faster."""

    def __init__(self, tables: BlockTables, pacer: StepPacer) -> None:
        self._tables = tables
        self._pacer = pacer
        self._restorer = None if tables.store is None else Restorer(tables.store, tables.checkpoints, tables.window)
        self.num_restored_tokens = 0
        """Prompt tokens whose blocks came from the store."""

    def find_prefix(self, seq: Sequence) -> list[int]:
        """The full blocks that the cache holds of `seq`, leaving at least its last token to compute.

        Behind the window of a model that has one everywhere, they are holes, whether they are still there or not.
        """
        if not self._tables.has_prefix_cache:
            return []
        chain_keys(seq.prefix_ids, seq.block_keys)
        keys = seq.block_keys[: (seq.num_tokens - 1) // BLOCK_SIZE]
        hits = self._find_blocks(keys)
        seq.num_found_blocks = len(hits)
        if self._tables.checkpoints is None:
            return hits
        if self._tables.window is not None or self._tables.residency is not None:
            return self._find_blocks(keys, self._tables.checkpoints)
        del hits[self._tables.checkpoints.deepest(keys[: len(hits)]) :]
        return hits

    def is_being_computed(self, seq: Sequence, step: Step) -> bool:
        """Whether a running sequence is about to compute the next block of `seq`: then `seq` had better wait.

        So it had when this step makes a copy of a state that `seq` could go on from.
        """
        if not self._tables.has_prefix_cache or not (self._tables.computing or step.saved_keys):
            return False
        chain_keys(seq.prefix_ids, seq.block_keys)
        keys = seq.block_keys[: (seq.num_tokens - 1) // BLOCK_SIZE]
        if not step.saved_keys.isdisjoint(keys):
            return True
        num_found = len(self._find_blocks(keys))
        return num_found < len(keys) and keys[num_found] in self._tables.computing

    def restore(self, seq: Sequence, step: Step) -> None:
        """Go on behind more blocks than there are, where the store has them and fetching is faster than computing."""
        if self._restorer is None:
            return
        num_promised, seq.restoring_to = seq.restoring_to * BLOCK_SIZE, 0
        keys = seq.block_keys[: (seq.num_tokens - 1) // BLOCK_SIZE]
        num_held = len(seq.block_table)
        restored = self._restorer.restore(keys, num_held, self._tables.prefix.find, self._pacer.prefill_token_s)
        num_new = 0 if restored is None else restored.num_blocks - max(restored.first_block, num_held)
        if restored is None or num_new > self._tables.blocks.num_available:
            if num_promised and seq.num_cached_tokens == num_promised:
                # It was counted as cached, and is computed after all.
                seq.num_cached_tokens = seq.num_computed_tokens
            return
        before = seq.block_table[seq.num_holes :]
        seq.num_holes = restored.first_block
        seq.block_table = [HOLE] * restored.first_block + self._restored_table(seq, restored, step)
        for block in before:
            self._tables.blocks.release(block, keep=True)
        seq.num_entered_blocks = restored.num_blocks
        seq.num_computed_tokens = restored.num_blocks * BLOCK_SIZE
        seq.num_found_blocks = max(seq.num_found_blocks, restored.num_in_store)
        if restored.num_in_store > restored.num_blocks:
            seq.restoring_to = restored.num_in_store
        step.restored.add(seq.seq_id)
        self.num_restored_tokens += (restored.num_blocks - num_held) * BLOCK_SIZE
        checkpoints = self._tables.checkpoints
        if checkpoints is not None:
            key = keys[restored.num_blocks - 1]
            checkpoint = checkpoints.use(key) if restored.state is None else checkpoints.new_id()
            step.restores = [one for one in step.restores if one[0] != seq.seq_id] + [(seq.seq_id, checkpoint)]
            if restored.state is not None:
                step.state_loads.append((checkpoint, restored.state))
                checkpoints.keep(key, checkpoint)

    def copy_partial_hit(self, seq: Sequence, step: Step) -> None:
        """Start the first block that was not found from one that begins alike, if there is one."""
        if not self._tables.has_prefix_cache or self._tables.checkpoints is not None:
            # A state stands at a block's end, never inside one.
            return
        num_hits = len(seq.block_table)
        parent = seq.block_keys[num_hits - 1] if num_hits else ROOT_KEY
        wanted = seq.prefix_ids[num_hits * BLOCK_SIZE : seq.num_tokens - 1][:BLOCK_SIZE]
        residency = self._tables.residency
        excluded = step.written | self._tables.unproven
        if residency is not None:
            excluded |= {block for block in self._tables.prefix.children(parent) if not residency.is_copyable(block)}
        hit = self._tables.prefix.find_partial(parent, wanted, exclude=excluded)
        if hit is None:
            return
        # Held while the copy's own block is allocated, so that it is not the one evicted for it.
        self._tables.acquire(hit.block, is_pinned=True)
        try:
            block = self._tables.allocate()
            self._tables.copy(hit.block, block, step)
        except OutOfBlocks:
            return
        finally:
            self._tables.release(hit.block, is_pinned=True)
        seq.block_table.append(block)
        seq.num_computed_tokens += hit.num_tokens

    def _restored_table(self, seq: Sequence, restored: Restored, step: Step) -> list[int]:
        """The blocks of `restored`, referenced: those of the arena, and new ones for what was fetched."""
        found = [self._tables.prefix.find(key) for key in seq.block_keys[restored.first_block : restored.num_blocks]]
        for block in found:
            # All before the first one is allocated, which could evict them.
            if block is not None:
                self._tables.blocks.acquire(block)
        table = []
        for index, known in enumerate(found, restored.first_block):
            block = self._tables.allocate() if known is None else known
            if known is None:
                parent = seq.block_keys[index - 1] if index else ROOT_KEY
                self._tables.prefix.enter(block, parent, seq.prefix_ids_of_block(index))
                step.loads.append((block, restored.blocks[index]))
                self._tables.loading.add(block)
                self._tables.retract(seq.block_keys[index], seq)
            table.append(block)
        return table

    def _find_blocks(self, keys: list[bytes], checkpoints: CheckpointBook | None = None) -> list[int]:
        """The blocks of the longest prefix of `keys` that can be read on behind; `checkpoints` asks for a state too."""
        may_resume = (lambda depth: True) if checkpoints is None else (lambda depth: checkpoints.has(keys[depth - 1]))
        if self._tables.window is not None:
            return self._tables.window.resume([self._tables.prefix.find(key) for key in keys], may_resume)
        blocks = []
        for key in keys:
            block = self._tables.prefix.find(key)
            if block is None:
                break
            blocks.append(block)
        if self._tables.residency is not None:
            del blocks[self._tables.residency.resumable(blocks, may_resume) :]
        return blocks
