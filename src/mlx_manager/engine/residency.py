"""Models that mix windows with full attention: which blocks their windowed layers still have. No tensors here.

    block of the table  17   4  23   9      the full layers have all of them
    slot                 -   -   2   0      the windowed layers have those that a window may still read

The windowed layers have an arena of their own, of fewer places (decision 0007, as vLLM's hybrid cache manager keeps
one pool per kind of layer). A running sequence pins the blocks inside its window; the others stay where they are until
their slot is needed, oldest first, so that a prompt that goes on behind them is still a hit.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from collections.abc import Sequence as AbstractSequence

from mlx_manager.engine.blocks import BLOCK_SIZE, HOLE, OutOfBlocks, num_blocks_for
from mlx_manager.engine.sequence import Sequence
from mlx_manager.engine.windows import Window


class Residency:
    """Gives blocks slots, 0 to `num_slots - 1`, of the windowed layers' arena, and takes them back."""

    def __init__(self, num_slots: int, window: Window) -> None:
        if num_slots < window.max_held_blocks:
            raise ValueError(f"a sequence holds up to {window.max_held_blocks} slots, and there are {num_slots}")
        self.num_slots = num_slots
        self.window = window
        """The longest of the windows."""
        self.scrubs: list[int] = []
        """Slots to zero with the next step."""
        self._slots: dict[int, int] = {}
        """By block."""
        self._num_pins: Counter[int] = Counter()
        """By block, how many running sequences have it inside their window."""
        self._idle: OrderedDict[int, None] = OrderedDict()
        """Blocks with a slot that nobody pins, oldest first."""
        self._recycled: list[int] = []
        self._first_fresh = 0
        self._unproven: set[int] = set()
        """Slots of prompts that were passed before any token showed that what is in them is finite."""

    @property
    def num_available(self) -> int:
        """Slots that `admit` can hand out, one after the other."""
        return len(self._recycled) + self.num_slots - self._first_fresh + len(self._idle)

    @property
    def num_touched(self) -> int:
        """Slots 0 to this - 1 have been handed out at some time; the arena has to hold these."""
        return self._first_fresh

    def slot(self, block: int) -> int:
        """Where the windowed layers have `block`. Raises `KeyError` where they do not."""
        return self._slots[block]

    def has(self, block: int) -> bool:
        """Whether the windowed layers have `block`."""
        return block in self._slots

    def is_pinned(self, block: int) -> bool:
        """Whether a running sequence has `block` inside its window."""
        return block in self._num_pins

    def is_copyable(self, block: int) -> bool:
        """Whether `block` has a slot whose contents are known to be finite."""
        return block in self._slots and self._slots[block] not in self._unproven

    def table(self, seq: Sequence, num_blocks: int) -> tuple[int, ...]:
        """The slots of the first `num_blocks` blocks of a sequence, holes where its windows have passed."""
        held = seq.block_table[seq.num_passed_blocks : num_blocks]
        return (HOLE,) * seq.num_passed_blocks + tuple(self._slots[block] for block in held)

    def first_pinned(self, num_tokens: int) -> int:
        """The first block that a sequence reads behind `num_tokens` computed ones."""
        return self.window.first_block(num_tokens)

    def num_missing(self, num_tokens: int, num_blocks: int, num_passed_blocks: int) -> int:
        """Slots that a sequence with so many blocks still has to be given to compute `num_tokens`, at once."""
        num_missing = max(0, num_blocks_for(num_tokens) - num_blocks)
        return min(num_missing, max(0, self.window.max_held_blocks - (num_blocks - num_passed_blocks)))

    def resumable(self, blocks: AbstractSequence[int], may_resume: Callable[[int], bool]) -> int:
        """The deepest number of `blocks` that a sequence can go on behind: all that its windows read have a slot."""
        return len(self.window.resume([block if block in self._slots else None for block in blocks], may_resume))

    def admit(self, block: int) -> None:
        """Give a block that is about to be written a slot, pinned once. Raises `OutOfBlocks`."""
        slot = self._slots.get(block)
        if slot is None:
            slot = self._slots[block] = self._take()
        else:
            del self._idle[block]
        if slot in self._unproven:
            self._unproven.discard(slot)
            self.scrubs.append(slot)
        self._num_pins[block] = 1

    def pin(self, block: int) -> None:
        """One more running sequence has `block`, which has a slot, inside its window."""
        if block not in self._num_pins:
            del self._idle[block]
        self._num_pins[block] += 1

    def unpin(self, block: int, *, is_unproven: bool = False) -> None:
        """One running sequence fewer; the block keeps its slot until that is needed."""
        if is_unproven:
            self._unproven.add(self._slots[block])
        self._num_pins[block] -= 1
        if self._num_pins[block] == 0:
            del self._num_pins[block]
            self._idle[block] = None

    def drop(self, block: int) -> None:
        """Nobody can find `block` any more: its slot is the first to be handed out. Nothing happens without one."""
        if block in self._idle:
            del self._idle[block]
            self._recycled.append(self._slots.pop(block))

    def pass_blocks(self, running: Iterable[Sequence]) -> None:
        """Unpin what every window of a sequence has passed. Only between steps, as for `give_back_passed_blocks`."""
        for seq in running:
            end = min(self.first_pinned(seq.num_computed_tokens), len(seq.block_table))
            for index in range(seq.num_passed_blocks, end):
                self.unpin(seq.block_table[index], is_unproven=index * BLOCK_SIZE < seq.num_prompt_tokens)
            seq.num_passed_blocks = max(seq.num_passed_blocks, end)

    def scrub(self, block: int) -> None:
        """Zero the slot of `block`, if it has one."""
        if block in self._slots:
            self.scrubs.append(self._slots[block])

    def distrust(self) -> None:
        """Forget whatever is not pinned, and zero it: somebody left values that are not finite."""
        for block in list(self._idle):
            self.drop(block)
        self._unproven.difference_update(self._recycled)
        self.scrubs.extend(self._recycled)

    def reset(self) -> None:
        """Forget that any slot was ever handed out. Nothing is pinned."""
        self._slots.clear()
        self._idle.clear()
        self._recycled.clear()
        self._unproven.clear()
        self.scrubs.clear()
        self._first_fresh = 0

    def take_scrubs(self) -> tuple[int, ...]:
        """Slots to zero, once each."""
        scrubs, self.scrubs = tuple(dict.fromkeys(self.scrubs)), []
        return scrubs

    def check_integrity(self, sequences: Iterable[Sequence]) -> None:
        """Prove that every pin is a running sequence's and every slot is in one state. Raises `AssertionError`."""
        pins = Counter(block for seq in sequences for block in seq.block_table[seq.num_passed_blocks :])
        if pins != self._num_pins:
            raise AssertionError("a block is pinned by nobody, or by more sequences than its count says")
        if self._num_pins.keys() | self._idle.keys() != self._slots.keys() or self._num_pins.keys() & self._idle.keys():
            raise AssertionError("a block with a slot is neither pinned nor idle, or both")
        slots = [*self._slots.values(), *self._recycled]
        if sorted(slots) != list(range(self._first_fresh)):
            raise AssertionError("a slot was lost or doubled")

    def _take(self) -> int:
        if self._recycled:
            return self._recycled.pop()
        if self._first_fresh < self.num_slots:
            self._first_fresh += 1
            return self._first_fresh - 1
        if not self._idle:
            raise OutOfBlocks
        block, _ = self._idle.popitem(last=False)
        return self._slots.pop(block)
