"""The runner: turns a frozen `Batch` into one packed forward pass on the device. The only caller of the model."""

from __future__ import annotations

from collections.abc import Sequence as AbstractSequence
from dataclasses import replace
from typing import Any, Protocol

import mlx.core as mx
import numpy as np
from mlx import nn

from mlx_manager.engine.arena import Arena, LayerShape
from mlx_manager.engine.attach import RowSelection, select_rows, wrap_attention
from mlx_manager.engine.attention import DecodeAttention, PagedAttention, PassPlan
from mlx_manager.engine.batch import Batch, StepOutput
from mlx_manager.engine.sampler import Samples, choose


class Launched:
    """A step under way on the device."""

    def __init__(self, batch: Batch, samples: Samples | None) -> None:
        self.batch = batch
        self.samples = samples

    def read(self) -> StepOutput:
        """Wait for the step and return the tokens it chose."""
        return StepOutput(() if self.samples is None else self.samples.read())


class Runner(Protocol):
    """Whatever can run a batch."""

    def launch(self, batch: Batch, previous: Launched | None) -> Launched:
        """Start a step without waiting for it. `previous` is the step before, whose tokens this one may need."""
        ...

    @property
    def arena_bytes(self) -> int:
        """Bytes that the KV cache holds on the device."""
        ...


class PagedRunner:
    """Runs any model of plain attention layers over the arena. Owns the arena; hooks the model once (see `attach`)."""

    def __init__(self, model: nn.Module, layers: list[LayerShape], max_blocks: int, attention: DecodeAttention) -> None:
        wrap_attention(model)
        self._model = model
        self._selection: RowSelection | None = select_rows(model)
        self._arena = Arena(layers, max_blocks)
        self.attention = PagedAttention(self._arena, [layer.window for layer in layers], attention)

    @property
    def arena_bytes(self) -> int:
        """Bytes that the arena holds on the device."""
        return self._arena.nbytes

    def launch(self, batch: Batch, previous: Launched | None) -> Launched:
        """Start a step without waiting for it."""
        self._move_blocks(batch)
        previous_tokens = None if previous is None or previous.samples is None else previous.samples.tokens
        samples = None
        if batch.segments:
            # Where nothing is sampled one row is computed to the end all the same, and ignored.
            sampled = tuple(sample.segment for sample in batch.samples)
            logits = self._forward(batch, sampled or (0,), previous_tokens)
            if batch.samples:
                samples = choose(logits, batch.samples, batch.segments, previous_tokens)
        mx.async_eval(*self._arena.arrays(), *([] if samples is None else samples.arrays()))
        return Launched(batch, samples)

    def logits(self, batch: Batch) -> mx.array:
        """The logits behind each segment, [segments, vocabulary], instead of samples. Not evaluated yet."""
        self._move_blocks(batch)
        return self._forward(batch, tuple(range(len(batch.segments))), None)

    def _move_blocks(self, batch: Batch) -> None:
        self._arena.reserve(batch.num_blocks)
        if batch.scrubs:
            self._arena.scrub(batch.scrubs)
        if batch.copies:
            self._arena.copy(batch.copies)

    def _forward(self, batch: Batch, wanted: tuple[int, ...], previous_tokens: mx.array | None) -> mx.array:
        """The logits behind the segments `wanted`, which may repeat, [wanted, vocabulary]."""
        plan = PassPlan(batch.segments)
        rows = [plan.last_rows[segment] for segment in wanted]
        picked = None if rows == list(range(plan.num_rows)) else mx.array(rows)
        if self._selection is not None:
            self._selection.rows = picked
        self.attention.begin(plan)
        try:
            logits: Any = self._model(_input_ids(batch, plan, previous_tokens), cache=self.attention.views)
        finally:
            self.attention.end()
            if self._selection is not None:
                self._selection.rows = None
        if self._selection is None and picked is not None:
            logits = logits[picked]
        result: mx.array = logits[:, -1]
        return result


def _input_ids(batch: Batch, plan: PassPlan, previous_tokens: mx.array | None) -> mx.array:
    """[rows, 1] input tokens: the host's, and those of the previous step that the host has not read yet."""
    host = np.fromiter((t for s in batch.segments for t in s.token_ids), dtype=np.int32, count=plan.num_rows)
    sources = np.full(plan.num_rows, -1, dtype=np.int32)
    for row, segment in zip(plan.last_rows, batch.segments, strict=True):
        if segment.source_row is not None:
            sources[row] = segment.source_row
    if previous_tokens is None or (sources < 0).all():
        return mx.array(host)[:, None]
    if (sources == np.arange(plan.num_rows)).all() and plan.num_rows == previous_tokens.shape[0]:
        return previous_tokens[:, None]
    newest = previous_tokens[mx.array(np.maximum(sources, 0))]
    return mx.where(mx.array(sources >= 0), newest, mx.array(host))[:, None]


class _ShapeProbe:
    """A cache that stores nothing and remembers what it was asked to store."""

    offset = 0

    def __init__(self) -> None:
        self.shape: LayerShape | None = None

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self.shape = LayerShape(keys.shape[1], keys.shape[-1], values.shape[-1], keys.dtype)
        return keys, values

    def make_mask(self, *args: Any, **kwargs: Any) -> None:
        """One token sees itself: no mask."""


def probe_layers(model: nn.Module, windows: AbstractSequence[int | None]) -> list[LayerShape]:
    """What each attention layer stores per token, found by passing one token through the model.

    `windows` is what each layer sees, one entry per cache the model makes. Raises `ValueError` when a layer does not
    store keys and values through its cache, and whatever the model's own code raises when it wants more than that.
    """
    probes = [_ShapeProbe() for _ in windows]
    mx.eval(model(mx.array([[0]]), cache=probes))
    shapes = []
    for probe, window in zip(probes, windows, strict=True):
        if probe.shape is None:
            raise ValueError("a layer of this model keeps no keys and values")
        shapes.append(replace(probe.shape, window=window))
    return shapes
