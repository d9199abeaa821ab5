"""A model and a KV arena in plain integers, for tests of the engine without MLX.

The model has two layers. What a layer stores for a position depends on everything before it, as keys and values do, and
is read back through the block table: one foreign, stale or missing slot changes every token behind it. With a window,
it depends on the last so many positions only, and nothing before them may be read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence as AbstractSequence

from mlx_manager.engine.batch import Batch, Sample, Segment
from mlx_manager.engine.blocks import BLOCK_SIZE, HOLE
from mlx_manager.engine.sequence import SamplingParams

POISON = 1_000_003
"""An input token for which the model computes values that are not finite."""

_NOT_FINITE = -1
_MODULUS = (1 << 61) - 1


class HostArena:
    """Applies batches as the runner does: scrubs, loads, copies (all read, then all written), then layer by layer all
    writes before any reading. Slots begin with junk, and a freed block keeps what was in it.
    """

    is_shared_while_written = False
    """Whether two segments may write into one block: each its own slots of it, layer by layer."""

    def __init__(
        self,
        num_blocks: int,
        vocabulary: int,
        *,
        has_states: bool = False,
        window: int | None = None,
        num_slots: int | None = None,
    ) -> None:
        """With `num_slots` only the first layer has the window, and so many blocks of its own."""
        self.vocabulary = vocabulary
        self.windows = (window, window if num_slots is None else None)
        self._num_slots = num_slots
        self.states: HostStates | None = HostStates() if has_states else None
        self._layers = [
            [[_mixed(layer, block, slot, 99) for slot in range(BLOCK_SIZE)] for block in range(num)]
            for layer, num in enumerate((num_blocks if num_slots is None else num_slots, num_blocks))
        ]

    def run(self, batch: Batch, previous: AbstractSequence[int | None]) -> list[int | None]:
        """The token of each sample; None where the logits were not finite. `previous` are the last step's tokens."""
        if not self.is_shared_while_written:
            _check_shape(batch, self.windows[1])
            if self._num_slots is not None:
                _check_slots(batch, self.windows[0], self._num_slots)
        self._move(batch)
        inputs = [_input_tokens(segment, previous) for segment in batch.segments]
        first = [
            [_NOT_FINITE if token == POISON else _mixed(token, segment.start + i, 7) for i, token in enumerate(tokens)]
            for segment, tokens in zip(batch.segments, inputs, strict=True)
        ]
        if self.states is not None:
            self.states.run(batch, inputs)
        self._write(0, batch.segments, first)
        second = [self._attended(0, segment) for segment in batch.segments]
        self._write(1, batch.segments, second)
        read = [self._attended(1, segment) for segment in batch.segments]
        return [
            _choice(read[sample.segment][-1 - sample.num_before_end], sample, self.vocabulary)
            for sample in batch.samples
        ]

    def holds(
        self,
        block_table: AbstractSequence[int],
        token_ids: AbstractSequence[int],
        slot_table: AbstractSequence[int] | None = None,
    ) -> bool:
        """Whether the tables lead to exactly what the model stores for `token_ids`."""
        tables = (block_table if slot_table is None else slot_table, block_table)
        return all(
            self._layers[layer][tables[layer][position // BLOCK_SIZE]][position % BLOCK_SIZE] == content
            for position, contents in enumerate(stored_contents(token_ids, self.windows))
            for layer, content in enumerate(contents)
            if tables[layer][position // BLOCK_SIZE] != HOLE
        )

    def block_holds(self, block: int, contents: AbstractSequence[tuple[int, int]], slot: int | None) -> bool:
        """Whether the first slots of `block` hold `contents`; `slot` is the first layer's, None where it has none."""
        places = (block if self._num_slots is None else slot, block)
        return all(
            self._layers[layer][place][index] == content
            for index, both in enumerate(contents)
            for layer, (place, content) in enumerate(zip(places, both, strict=True))
            if place is not None
        )

    def clear(self) -> None:
        """Zero everything."""
        for stored in self._layers:
            stored[:] = [[0] * BLOCK_SIZE for _ in stored]

    def block(self, block: int) -> list[list[int]]:
        """What every layer holds in the slots of `block`."""
        return [stored[block] for stored in self._layers]

    def _move(self, batch: Batch) -> None:
        for layer, stored in enumerate(self._layers):
            is_slotted = layer == 0 and self._num_slots is not None
            for block in batch.slot_scrubs if is_slotted else batch.scrubs:
                stored[block] = [0] * BLOCK_SIZE
            for block, content in batch.loads:
                stored[block] = json.loads(content[layer])
            copies = batch.slot_copies if is_slotted else batch.copies
            read = [list(stored[source]) for source, _ in copies]
            for (_, target), slots in zip(copies, read, strict=True):
                stored[target] = slots

    def _write(self, layer: int, segments: AbstractSequence[Segment], rows: AbstractSequence[list[int]]) -> None:
        for segment, contents in zip(segments, rows, strict=True):
            for position, content in enumerate(contents, segment.start):
                block = segment.table(self.windows[layer])[position // BLOCK_SIZE]
                self._layers[layer][block][position % BLOCK_SIZE] = content

    def _attended(self, layer: int, segment: Segment) -> list[int]:
        """What the positions of `segment` read. A decode row reads whole blocks, and a masked NaN is still a NaN."""
        stored, window = self._layers[layer], self.windows[layer]
        if window is not None:
            table = segment.table(window)
            first = max(0, segment.start + 1 - window)
            seen = [stored[table[place // BLOCK_SIZE]][place % BLOCK_SIZE] for place in range(first, segment.end)]
            if segment.is_decode and any(_NOT_FINITE in stored[block] for block in table[first // BLOCK_SIZE :]):
                return [_NOT_FINITE] * segment.num_tokens
            return _window_sums(seen, first, window)[segment.start - first :]
        slots = [slot for block in segment.block_table for slot in stored[block]]
        if segment.is_decode and _NOT_FINITE in slots:
            return [_NOT_FINITE] * segment.num_tokens
        return _folded(slots[: segment.end])[segment.start :]


class HostStates:
    """Recurrent states, of which a sequence has one at a time, and the copies kept of them."""

    def __init__(self) -> None:
        self._states: dict[int, tuple[int, ...]] = {}
        self._copies: dict[int, tuple[int, ...]] = {}

    @property
    def num_copies(self) -> int:
        """Copies that are kept."""
        return len(self._copies)

    def run(self, batch: Batch, inputs: AbstractSequence[list[int]]) -> None:
        """Apply a batch as the runner does. A state is simply the tokens it was made from."""
        for seq_id in batch.ended:
            self._states.pop(seq_id, None)
        for checkpoint, state in batch.state_loads:
            self._copies[checkpoint] = tuple(json.loads(state[0]))
        for seq_id, checkpoint in batch.restores:
            self._states[seq_id] = self._copies[checkpoint]
        for segment, tokens in zip(batch.segments, inputs, strict=True):
            before = () if segment.start == 0 else self._states[segment.seq_id]
            assert len(before) == segment.start, "a state that stands somewhere else"
            self._states[segment.seq_id] = (*before, *tokens)
        for sample in batch.samples:
            self._states[sample.seq_id] = self._states[batch.segments[sample.segment].seq_id]
        for seq_id, checkpoint in batch.saves:
            self._copies[checkpoint] = self._states[seq_id]
        for checkpoint in batch.dropped:
            del self._copies[checkpoint]

    def copy_of(self, checkpoint: int) -> tuple[int, ...] | None:
        """A kept copy; None where there is none."""
        return self._copies.get(checkpoint)

    def holds(self, seq_id: int, token_ids: AbstractSequence[int]) -> bool:
        """Whether the state of a sequence is that behind `token_ids`."""
        return self._states.get(seq_id, ()) == tuple(token_ids)


class Oracle:
    """The answers of the same model to one prompt, computed without any blocks."""

    def __init__(self, vocabulary: int, windows: tuple[int | None, int | None] = (None, None)) -> None:
        self._vocabulary = vocabulary
        self._windows = windows
        self._streams: dict[tuple[tuple[int, ...], SamplingParams], list[int]] = {}

    def tokens(self, prompt: tuple[int, ...], params: SamplingParams, num_output_tokens: int) -> list[int]:
        """The prompt and `num_output_tokens` behind it, no end token heeded."""
        stream = self._streams.setdefault((prompt, params), list(prompt))
        while len(stream) < len(prompt) + num_output_tokens:
            first = [_mixed(token, position, 7) for position, token in enumerate(stream)]
            last = _seen(_seen(first, self._windows[0]), self._windows[1])[-1]
            stream.append(_token(last, params, len(stream) - len(prompt), self._vocabulary))
        return stream[: len(prompt) + num_output_tokens]

    def answer(
        self, prompt: tuple[int, ...], params: SamplingParams, max_output_tokens: int, eos: frozenset[int]
    ) -> list[int]:
        """The tokens of the answer, with its end token."""
        answer = self.tokens(prompt, params, max_output_tokens)[len(prompt) :]
        ends = [index for index, token in enumerate(answer) if token in eos]
        return answer[: ends[0] + 1] if ends else answer


def stored_contents(
    token_ids: AbstractSequence[int], windows: tuple[int | None, int | None] = (None, None)
) -> list[tuple[int, int]]:
    """What both layers store for each position of `token_ids`."""
    first = [_mixed(token, position, 7) for position, token in enumerate(token_ids)]
    return list(zip(first, _seen(first, windows[0]), strict=True))


def _check_shape(batch: Batch, window: int | None) -> None:
    targets = [target for _, target in batch.copies]
    assert len(set(targets)) == len(targets), "two copies into one block"
    written: set[int] = set()
    for segment in batch.segments:
        assert len(segment.block_table) == -(-segment.end // BLOCK_SIZE), "the table ends where the segment does"
        num_read = len(segment.block_table) - (
            0 if window is None else max(0, segment.start + 1 - window) // BLOCK_SIZE
        )
        assert HOLE not in segment.block_table[-num_read:], "a hole where the window is"
        held = [block for block in segment.block_table if block != HOLE]
        assert len(set(held)) == len(held), "a table holds a block twice"
        assert all(0 <= block < batch.num_blocks for block in held), "the arena has no such block"
        own = set(segment.block_table[segment.start // BLOCK_SIZE :])
        assert not own & written, "two segments write one block"
        written |= own
    assert len({segment.seq_id for segment in batch.segments}) == len(batch.segments), "a sequence is in a step twice"


def _check_slots(batch: Batch, window: int | None, num_slots: int) -> None:
    assert window is not None
    assert len(batch.slot_copies) == len(batch.copies)
    targets = [target for _, target in batch.slot_copies]
    assert len(set(targets)) == len(targets), "two copies into one slot"
    assert batch.num_slots <= num_slots
    written: set[int] = set()
    for segment in batch.segments:
        table = segment.table(window)
        assert len(table) == len(segment.block_table)
        first = max(0, segment.start + 1 - window) // BLOCK_SIZE
        held = [slot for slot in table if slot != HOLE]
        assert HOLE not in table[first:], "a hole where the window is"
        assert len(set(held)) == len(held), "a table holds a slot twice"
        assert all(0 <= slot < batch.num_slots for slot in held), "the arena has no such slot"
        own = set(table[segment.start // BLOCK_SIZE :])
        assert not own & written, "two segments write one slot"
        written |= own


def _input_tokens(segment: Segment, previous: AbstractSequence[int | None]) -> list[int]:
    if segment.source_row is None:
        return list(segment.token_ids)
    newest = previous[segment.source_row]
    return [*segment.token_ids[:-1], 0 if newest is None else newest]


def _choice(read: int, sample: Sample, vocabulary: int) -> int | None:
    return None if read == _NOT_FINITE else _token(read, sample.params, sample.output_index, vocabulary)


def _token(read: int, params: SamplingParams, output_index: int, vocabulary: int) -> int:
    draw = 0 if params.is_greedy else _mixed(params.seed, output_index, 3)
    return (_mixed(read, draw, 5) >> 20) % vocabulary


def _folded(contents: AbstractSequence[int]) -> list[int]:
    """For each position a number that depends on it and all before it."""
    state, folded = 1, []
    for content in contents:
        state = _NOT_FINITE if _NOT_FINITE in (state, content) else (state * 6364136223846793005 + content) % _MODULUS
        folded.append(state)
    return folded


def _seen(contents: AbstractSequence[int], window: int | None) -> list[int]:
    return _folded(contents) if window is None else _window_sums(contents, 0, window)


def _window_sums(contents: AbstractSequence[int], first: int, window: int) -> list[int]:
    """For each position from `first` on a number that depends on it and those before it, of the last `window` known.

    It is not finite where one of these is not.
    """
    parts = [_mixed(content, place) for place, content in enumerate(contents, first)]
    total, sums, last_not_finite = 0, [], -window
    for index, part in enumerate(parts):
        total += part - (parts[index - window] if index >= window else 0)
        last_not_finite = index if contents[index] == _NOT_FINITE else last_not_finite
        sums.append(_NOT_FINITE if index - last_not_finite < window else total % _MODULUS)
    return sums


def _mixed(*numbers: int) -> int:
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state = (state ^ number) * 0xBF58476D1CE4E5B9 % _MODULUS
        state ^= state >> 29
    return state % _MODULUS
