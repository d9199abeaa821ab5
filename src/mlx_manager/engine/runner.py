"""The runner: turns a frozen `Batch` into one packed forward pass on the device. The only caller of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import mlx.core as mx
import numpy as np
from mlx import nn

from mlx_manager.engine.arena import Arena, LayerShape
from mlx_manager.engine.attach import RowSelection, select_rows, wrap_attention
from mlx_manager.engine.attention import DecodeAttention, PagedAttention
from mlx_manager.engine.batch import Batch, Segment, StepOutput
from mlx_manager.engine.block_store import StoredBlock, StoredState
from mlx_manager.engine.grammar import PendingMasks
from mlx_manager.engine.plan import PassPlan
from mlx_manager.engine.probe import ModelCaches
from mlx_manager.engine.sampler import Samples, choose
from mlx_manager.engine.states import StateStore
from mlx_manager.engine.views import PagedViews


class Launched:
    """A step that has been built; `start` puts it to work on the device."""

    def __init__(self, batch: Batch, samples: Samples | None, arrays: list[mx.array]) -> None:
        self.batch = batch
        self.samples = samples
        self._arrays = arrays
        """Everything else that the step computes."""

    def start(self) -> None:
        """Put the step to work. On a CPU backend this blocks until most of it is done."""
        mx.async_eval(*self._arrays, *([] if self.samples is None else self.samples.arrays()))
        self._arrays = []

    def read(self) -> StepOutput:
        """Wait for the step and return the tokens it chose."""
        return StepOutput(() if self.samples is None else self.samples.read())


class Runner(Protocol):
    """Whatever can run a batch."""

    def build(self, batch: Batch, previous: Launched | None, masks: PendingMasks | None = None) -> Launched:
        """Build a step without starting it. `previous` is the step before, whose tokens this one may need.

        `masks` are those of the batch's constrained samples; with masks the forward pass is started here.
        """
        ...

    def trim(self) -> None:
        """Give the memory of the KV cache back. No sequence lives, and nothing that was kept will be asked for."""
        ...

    @property
    def arena_bytes(self) -> int:
        """Bytes that the KV cache holds on the device."""
        ...


class PassArguments(Protocol):
    """What a model takes in a pass besides tokens and caches, by name: embeddings of images, positions of its own."""

    def __call__(self, segments: list[Segment], plan: PassPlan, tokens: mx.array) -> dict[str, Any]:
        """For the rows of `plan`, in the order of `segments`; `tokens` are the pass's, [rows, 1] or [1, length]."""
        ...


def no_arguments(segments: list[Segment], plan: PassPlan, tokens: mx.array) -> dict[str, Any]:
    """A text model takes tokens and caches alone."""
    return {}


class PagedRunner:
    """Runs a model over the arena. Owns the arena and the recurrent states; hooks the model once (see `attach`).

    Where all layers are attention, a step is one packed pass. Recurrent layers mix the rows of a sequence, so a model
    that has some takes a pass for all decode rows together and one for each prefill segment.
    """

    arena_class = Arena
    """Another one only where a test plants a fault that the check at load has to find."""

    def __init__(
        self,
        model: nn.Module,
        caches: ModelCaches,
        max_blocks: int,
        attention: DecodeAttention,
        arguments: PassArguments = no_arguments,
    ) -> None:
        self._arguments = arguments
        self.max_blocks = max_blocks
        self._hooks = wrap_attention(model)
        self._model = model
        self._caches = caches
        self._selection: RowSelection | None = select_rows(model)
        self._arena = self.arena_class(caches.layers, max_blocks)
        self._states = StateStore(caches.layout)
        self.attention = PagedAttention(self._arena, attention)
        self._views = PagedViews(self.attention)

    @property
    def arena_bytes(self) -> int:
        """Bytes that the arena and the recurrent states hold on the device."""
        return self._arena.nbytes + self._states.nbytes

    @property
    def has_states(self) -> bool:
        """Whether the model has recurrent layers."""
        return bool(self._caches.layout.state_sizes)

    def build(self, batch: Batch, previous: Launched | None, masks: PendingMasks | None = None) -> Launched:
        """Build a step without starting it; with masks, its forward pass is started."""
        previous_tokens = None if previous is None or previous.samples is None else previous.samples.ahead
        wanted = tuple((sample.segment, sample.num_before_end) for sample in batch.samples)
        logits = self._run(batch, wanted, previous_tokens)
        samples = None
        if logits is not None:
            allowed = None if masks is None else masks.join(logits)
            samples = choose(logits, batch.samples, batch.segments, previous_tokens, allowed)
        return Launched(batch, samples, self.arrays())

    def lay_out(self, layers: list[LayerShape], max_blocks: int, max_slots: int | None = None) -> None:
        """Begin anew with an arena of these layers, which store the same vectors in another way. No sequence lives.

        With `max_slots`, layers with a window have an arena of their own (see `residency`).
        """
        self.max_blocks = max_blocks
        self._arena = self.arena_class(layers, max_blocks, max_slots)
        self.attention.arena = self._arena
        self.reset()

    def read_blocks(self, blocks: Sequence[int]) -> list[StoredBlock]:
        """What is in blocks of the arena, on the host."""
        return self._arena.read(blocks)

    def read_state(self, checkpoint: int) -> StoredState | None:
        """A kept copy of a recurrent state, on the host; None where there is none."""
        return self._states.read(checkpoint)

    def arrays(self) -> list[mx.array]:
        """All that a step computes besides what is chosen, to be evaluated with it."""
        return [*self._arena.arrays(), *self._states.arrays()]

    def logits(
        self,
        batch: Batch,
        previous_tokens: mx.array | None = None,
        *,
        wanted: Sequence[tuple[int, int]] | None = None,
    ) -> mx.array:
        """The logits behind each segment, [segments, vocabulary], instead of samples. Not evaluated yet.

        `wanted` asks for others: (a segment, how many tokens before its last one) each.
        """
        places = [(index, 0) for index in range(len(batch.segments))] if wanted is None else wanted
        logits = self._run(batch, tuple(places), previous_tokens)
        if logits is None:
            raise ValueError("a batch without segments has no logits")
        return logits

    def reset(self) -> None:
        """Forget every sequence's state; what is in the arena is nobody's any more."""
        self._states = StateStore(self._caches.layout)

    def trim(self) -> None:
        """Give the arena, the states and their copies back to the device."""
        self.reset()
        self._arena.empty()

    def _run(
        self, batch: Batch, wanted: tuple[tuple[int, int], ...], previous_tokens: mx.array | None
    ) -> mx.array | None:
        """Move blocks and states, run every pass; the logits that are `wanted`, which may repeat.

        Each is (a segment, how many tokens before its last one).
        """
        self._arena.reserve(batch.num_blocks, batch.num_slots)
        if batch.scrubs or batch.slot_scrubs:
            self._arena.scrub(batch.scrubs, batch.slot_scrubs)
        if batch.loads:
            self._arena.load(dict(batch.loads))
        if batch.copies:
            self._arena.copy(batch.copies, batch.slot_copies)
        for seq_id in batch.ended:
            self._states.forget(seq_id)
        for checkpoint, state in batch.state_loads:
            self._states.put(checkpoint, state)
        for seq_id, checkpoint in batch.restores:
            self._states.restore(seq_id, checkpoint)
        logits: list[mx.array] = []
        places: dict[tuple[int, int], int] = {}
        for indices, is_sequence in self._passes(batch):
            sampled = list(dict.fromkeys(place for place in wanted if place[0] in indices))
            rows = self._forward(batch, indices, is_sequence, sampled, previous_tokens)
            if sampled:
                places.update({sample: len(places) + place for place, sample in enumerate(sampled)})
                logits.append(rows)
        self._keep_states(batch)
        if not wanted:
            return None
        joined = logits[0] if len(logits) == 1 else mx.concatenate(logits)
        order = [places[sample] for sample in wanted]
        return joined if order == list(range(joined.shape[0])) else joined[mx.array(order)]

    def _passes(self, batch: Batch) -> list[tuple[list[int], bool]]:
        """(segments, whether as a sequence) of every pass of the step."""
        everything = list(range(len(batch.segments)))
        if not everything:
            return []
        if not self.has_states:
            return [(everything, False)]
        decoding = [index for index in everything if _continues(batch.segments[index])]
        rest = [([index], True) for index in everything if index not in decoding]
        alike: dict[object, list[int]] = {}
        for index in decoding:
            alike.setdefault(self._states.shapes(batch.segments[index].seq_id), []).append(index)
        return [*((group, False) for group in alike.values()), *rest]

    def _forward(
        self,
        batch: Batch,
        indices: list[int],
        is_sequence: bool,
        sampled: list[tuple[int, int]],
        previous_tokens: mx.array | None,
    ) -> mx.array:
        """One pass over the segments `indices`; the logits that are `sampled` of them, as `_run` wants them.

        Where none is, the logits of one row, to be ignored.
        """
        segments = [batch.segments[index] for index in indices]
        plan = PassPlan(segments, is_sequence=is_sequence, min_shared_blocks=self.attention.min_shared_blocks)
        rows = [plan.last_rows[indices.index(index)] - num_before for index, num_before in sampled] or [0]
        seq_ids = [segment.seq_id for segment in segments]
        if is_sequence and segments[0].start == 0:
            self._states.forget(seq_ids[0])
        states = self._states.load(seq_ids) if self.has_states else []
        caches = self._caches.layout.assemble(list(self._views.layers), states)
        tokens = _input_ids(segments, plan, previous_tokens)
        tokens = tokens.reshape(1, -1) if is_sequence else tokens
        arguments = self._arguments(segments, plan, tokens)
        picked = None if rows == list(range(plan.num_rows)) else mx.array(rows)
        if self._selection is not None:
            self._selection.pick = None if picked is None else (picked, is_sequence)
        self._activate(self._views)
        self.attention.begin(plan)
        try:
            logits: Any = self._model(tokens, cache=caches, **arguments)
        finally:
            self.attention.end()
            self._views.clear()
            self._activate(None)
            if self._selection is not None:
                self._selection.pick = None
        if self.has_states:
            self._states.store(seq_ids, states)
        if self._selection is None and picked is not None:
            logits = logits[:, picked] if is_sequence else logits[picked]
        result: mx.array = logits[0] if is_sequence else logits[:, -1]
        return result

    def _activate(self, views: PagedViews | None) -> None:
        for hook in self._hooks:
            hook.active = views

    def _keep_states(self, batch: Batch) -> None:
        for sample in batch.samples:
            leader = batch.segments[sample.segment].seq_id
            if sample.seq_id != leader and leader in self._states:
                self._states.fork(sample.seq_id, leader)
        for seq_id, checkpoint in batch.saves:
            self._states.save(seq_id, checkpoint)
        for checkpoint in batch.dropped:
            self._states.drop(checkpoint)


def _continues(segment: Segment) -> bool:
    """Whether a segment is one token behind others, so that its sequence has a state to be batched."""
    return segment.num_tokens == 1 and segment.start > 0


def _input_ids(segments: list[Segment], plan: PassPlan, previous_tokens: mx.array | None) -> mx.array:
    """[rows, 1] input tokens: the host's, and those of the previous step that the host has not read yet."""
    host = np.fromiter((t for s in segments for t in s.token_ids), dtype=np.int32, count=plan.num_rows)
    sources = np.full(plan.num_rows, -1, dtype=np.int32)
    for row, segment in zip(plan.last_rows, segments, strict=True):
        if segment.source_row is not None:
            sources[row] = segment.source_row
    if previous_tokens is None or (sources < 0).all():
        return mx.array(host)[:, None]
    if plan.num_rows == previous_tokens.shape[0] and (sources == np.arange(plan.num_rows)).all():
        return previous_tokens[:, None]
    newest = previous_tokens[mx.array(np.maximum(sources, 0))]
    return mx.where(mx.array(sources >= 0), newest, mx.array(host))[:, None]
