"""Trust nothing untested: decode a few rows through the paged path and compare with the library's own cache.

Rows of different lengths, alone and mixed, that join, leave, hit a prefix and fork, all from fixed tokens. Done before
a model serves; a model that does not agree is served through the library's cache instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as AbstractSequence
from contextlib import contextmanager
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx import nn
from mlx_lm.models.cache import make_prompt_cache

from mlx_manager.engine.batch import Batch, Segment
from mlx_manager.engine.blocks import BLOCK_SIZE, num_blocks_for
from mlx_manager.engine.runner import PagedRunner
from mlx_manager.engine.verdict import MODEL_ERRORS, Verdict, is_out_of_memory

_LENGTHS = (5, 9, 66, 1)
"""Prompt tokens of the rows: two within one block, one over two borders, and a single one. As few as show it: on a CPU
the check costs what its rows cost."""
_NUM_DECODES = 3
NUM_CANARY_BLOCKS = 16
"""Blocks of the arena that `check_paged` uses: 0 to this - 1."""
_TOLERANCE = {mx.float32: 2e-3, mx.float16: 5e-2, mx.bfloat16: 2.5e-1}

_QUANTIZED_TOLERANCE = {8: 0.15, 4: 0.35}
"""By bits, of the mean difference. Measured with SmolLM2 and prompts cut in different ways: up to 0.04 and 0.27; one
block of another row read instead of the own: 0.39 and more."""


def check_paged(model: nn.Module, runner: PagedRunner, vocabulary_size: int) -> Verdict:
    """Compare logits of every row of the canary. Nothing else may run on `runner` meanwhile.

    Differences are measured against the spread (standard deviation) of the library's logits.
    """
    rows = _canary_rows(vocabulary_size)
    expected = [_library_logits(model, tokens, length) for tokens, length in zip(rows, _LENGTHS, strict=True)]
    tolerance = _TOLERANCE.get(expected[0].dtype, _TOLERANCE[mx.bfloat16])
    return _compare(runner, rows, expected, _Bound(_difference, tolerance, "the library's cache"))


def check_quantized(runner: PagedRunner, vocabulary_size: int) -> Verdict:
    """The same over a quantized arena, whose answers are its own: compared with each row alone, prefilled in one piece.

    `check_paged` has to have found the paged path right over a plain arena. Rounding moves an entry at the border of
    two levels by a whole one, and so a row may differ from itself in another batch by as much as quantization costs.
    """
    rows = _canary_rows(vocabulary_size)
    try:
        expected = [_alone(runner, tokens, length) for tokens, length in zip(rows, _LENGTHS, strict=True)]
    except MODEL_ERRORS as error:
        return Verdict.of_error(error, "quantized keys and values cannot be read here")
    bits = max(layer.bits or 0 for layer in runner.attention.arena.layers)
    bound = _Bound(_mean_difference, _QUANTIZED_TOLERANCE[bits], "those of the same row alone")
    return _compare(runner, rows, expected, bound)


def goes_on_alike(model: nn.Module, vocabulary_size: int) -> bool:
    """Whether a prompt in two pieces gives the library's logits of the same prompt in one, through the library alone.

    Where its code takes them differently, as Phi-3-small's block-sparse attention does, no cache may be gone on with.
    """
    tokens = _tokens(0, max(_LENGTHS), vocabulary_size)
    cut = len(tokens) * 2 // 3
    try:
        [whole] = _library_logits(model, tokens, len(tokens))
        cache = make_prompt_cache(model)
        mx.eval(model(mx.array([tokens[:cut]]), cache=cache))
        again: mx.array = model(mx.array([tokens[cut:]]), cache=cache)[0, -1]
        difference = _difference(again[None], whole[None])
    except MODEL_ERRORS as error:
        if is_out_of_memory(error):
            raise
        return False
    return difference <= _TOLERANCE.get(whole.dtype, _TOLERANCE[mx.bfloat16])


@dataclass(frozen=True)
class _Bound:
    """How far logits may lie from what they are compared with."""

    measure: Callable[[mx.array, mx.array], float]
    tolerance: float
    whose: str
    """What they are compared with, for people."""


def _compare(runner: PagedRunner, rows: list[tuple[int, ...]], expected: list[mx.array], bound: _Bound) -> Verdict:
    worst = 0.0
    try:
        compared = _Canary(runner, rows).run(expected)
    except MODEL_ERRORS as error:
        return Verdict.of_error(error, "the paged path does not carry this model")
    runner.reset()
    for name, logits, reference in compared:
        difference = bound.measure(logits, reference)
        worst = max(worst, difference)
        if not difference <= bound.tolerance:
            return Verdict(False, worst, f"logits of the {name} differ from {bound.whose} by {difference:.2g}")
    return Verdict(True, worst, f"logits agree with {bound.whose}, alone and mixed")


def _canary_rows(vocabulary_size: int) -> list[tuple[int, ...]]:
    return [_tokens(index, length + _NUM_DECODES, vocabulary_size) for index, length in enumerate(_LENGTHS)]


def _alone(runner: PagedRunner, tokens: tuple[int, ...], num_prompt_tokens: int) -> mx.array:
    """The logits of one row through `runner`, nothing beside it, as `_library_logits` gives the library's."""
    found = []
    for start, end in [
        (0, num_prompt_tokens),
        *((num_prompt_tokens + i, num_prompt_tokens + i + 1) for i in range(_NUM_DECODES)),
    ]:
        segment = Segment(0, start, tokens[start:end], None, tuple(range(num_blocks_for(end))))
        logits = runner.logits(Batch((segment,), (), (), (), (), (), (), (), num_blocks=NUM_CANARY_BLOCKS))
        mx.eval(logits)
        found.append(logits[0])
    runner.reset()
    return mx.stack(found)


@dataclass(frozen=True)
class ProbePrompt:
    """A prompt that holds more than tokens, for the check, with what the library makes of it."""

    token_ids: tuple[int, ...]
    """The prompt's, and one behind it."""
    inputs: object
    split: int
    """Where the prompt is cut into two chunks: in the middle of what is no token."""
    expected: tuple[mx.array, mx.array]
    """The library's logits behind the prompt, and behind the token after it; [vocabulary] each."""

    @property
    def num_blocks(self) -> int:
        """Blocks that it takes."""
        return num_blocks_for(len(self.token_ids))


def check_inputs(
    model: nn.Module, runner: PagedRunner, probe: ProbePrompt, vocabulary_size: int, *, noun: str = "image"
) -> Verdict:
    """The same for a prompt that holds more than tokens, beside a row of text. Nothing else may run on `runner`.

    `noun` says what it holds, for the reason.
    """
    table = tuple(range(num_blocks_for(len(probe.token_ids))))
    num_prompt_tokens = len(probe.token_ids) - 1
    text = _tokens(1, 9 + 1, vocabulary_size)
    expected_text = _library_logits(model, text, 9)

    def chunk(start: int, end: int) -> Segment:
        return Segment(0, start, probe.token_ids[start:end], None, table[: num_blocks_for(end)], probe.inputs)

    def beside(start: int, end: int) -> Segment:
        return Segment(1, start, text[start:end], None, (len(table),))

    def run(*segments: Segment) -> list[mx.array]:
        batch = Batch(segments, (), (), (), (), (), (), (), num_blocks=len(table) + 1)
        logits = runner.logits(batch)
        mx.eval(logits)
        return [logits[index] for index in range(len(segments))]

    try:
        run(chunk(0, probe.split))
        prompts = run(beside(0, 9), chunk(probe.split, num_prompt_tokens))
        decodes = run(chunk(num_prompt_tokens, num_prompt_tokens + 1), beside(9, 10))
    except MODEL_ERRORS as error:
        return Verdict.of_error(error, f"the paged path does not carry its {noun}s")
    runner.reset()
    found = (*prompts, *decodes)
    wanted = (expected_text[0], probe.expected[0], probe.expected[1], expected_text[1])
    worst = max(_difference(logits, reference) for logits, reference in zip(found, wanted, strict=True))
    tolerance = _TOLERANCE.get(expected_text.dtype, _TOLERANCE[mx.bfloat16])
    article = "an" if noun == "image" else "a"
    if not worst <= tolerance:
        reason = f"logits of a prompt with {article} {noun} differ from the library's by {worst:.2g}"
        return Verdict(False, worst, reason)
    return Verdict(True, worst, f"logits agree with the library's, with {article} {noun} and beside it")


class _Canary:
    """The rows and the blocks they are given: row 2 in blocks 7, 2 and 5, row 1 in 3 …, scattered on purpose."""

    _TABLES = ((0,), (3,), (7, 2, 5), (13,))
    _FORK, _FORK_TABLE = 4, (9,)
    _HITS = ((5, (7, 2, 11)), (6, (7, 2, 12)))
    _STATE_OF_SHORT, _STATE_OF_LONG = 1, 2

    def __init__(self, runner: PagedRunner, rows: list[tuple[int, ...]]) -> None:
        self._runner = runner
        self._rows = rows

    def run(self, expected: list[mx.array]) -> list[tuple[str, mx.array, mx.array]]:
        """(name, logits, the library's logits) of every comparison."""
        found = []
        short, middle, long, single = range(4)
        border = 2 * BLOCK_SIZE
        # Alone, prefilled in chunks; then the others join while it decodes.
        self._pass([self._segment(long, 0, 33)])
        self._pass([self._segment(long, 33, border)], saves=((long, self._STATE_OF_LONG),))
        [logits] = self._pass([self._segment(long, border, _LENGTHS[long])])
        found.append(("row alone", logits, expected[long][0]))
        both = self._pass([self._segment(long, _LENGTHS[long]), self._segment(middle, 0, _LENGTHS[middle])])
        found += [("row joined by another", both[0], expected[long][1]), ("joining row", both[1], expected[middle][0])]
        mixed = self._pass(
            [
                self._segment(short, 0, _LENGTHS[short]),
                self._segment(long, _LENGTHS[long] + 1),
                self._segment(middle, _LENGTHS[middle]),
                self._segment(single, 0, _LENGTHS[single]),
            ],
            saves=((short, self._STATE_OF_SHORT),),
        )
        references = [expected[short][0], expected[long][2], expected[middle][1], expected[single][0]]
        found += [("mixed row", row, reference) for row, reference in zip(mixed, references, strict=True)]
        # The middle row leaves; a fork of the short one copies its block, and both go on beside the long one.
        forked = self._pass(
            [
                self._segment(short, _LENGTHS[short]),
                self._segment(short, _LENGTHS[short], seq_id=self._FORK, table=self._FORK_TABLE),
                self._segment(long, _LENGTHS[long] + 2),
                self._segment(single, _LENGTHS[single]),
            ],
            copies=((self._TABLES[short][0], self._FORK_TABLE[0]),),
            restores=((self._FORK, self._STATE_OF_SHORT),),
        )
        references = [expected[short][1], expected[short][1], expected[long][3], expected[single][1]]
        found += [("forked row", row, reference) for row, reference in zip(forked, references, strict=True)]
        # Prefix hits: the first two blocks of the long row, read through other tables.
        hits = self._pass(
            [self._segment(long, border, _LENGTHS[long], seq_id=hit, table=table) for hit, table in self._HITS],
            restores=tuple((hit, self._STATE_OF_LONG) for hit, _ in self._HITS),
            is_last=True,
        )
        found += [("row on a shared prefix", row, expected[long][0]) for row in hits]
        with self._sharing():
            both = self._pass(
                [self._segment(long, _LENGTHS[long], seq_id=hit, table=table) for hit, table in self._HITS]
            )
        found += [("row that reads a prefix with another", row, expected[long][1]) for row in both]
        return found

    @contextmanager
    def _sharing(self) -> Iterator[None]:
        """Rows read whatever blocks they have in common together, where that can be computed here."""
        attention = self._runner.attention
        if attention.can_share:
            attention.min_shared_blocks = 1
        try:
            yield
        finally:
            attention.min_shared_blocks = None

    def _segment(
        self, row: int, start: int, end: int | None = None, *, seq_id: int | None = None, table: tuple[int, ...] = ()
    ) -> Segment:
        end = start + 1 if end is None else end
        blocks = (table or self._TABLES[row])[: num_blocks_for(end)]
        return Segment(row if seq_id is None else seq_id, start, self._rows[row][start:end], None, blocks)

    def _pass(
        self,
        segments: list[Segment],
        *,
        copies: tuple[tuple[int, int], ...] = (),
        saves: tuple[tuple[int, int], ...] = (),
        restores: tuple[tuple[int, int], ...] = (),
        is_last: bool = False,
    ) -> list[mx.array]:
        has_states = self._runner.has_states
        batch = Batch(
            segments=tuple(segments),
            samples=(),
            copies=copies,
            scrubs=(),
            ended=(),
            saves=saves if has_states else (),
            restores=restores if has_states else (),
            dropped=(self._STATE_OF_SHORT, self._STATE_OF_LONG) if is_last else (),
            num_blocks=NUM_CANARY_BLOCKS,
        )
        logits = self._runner.logits(batch)
        mx.eval(logits)
        return [logits[index] for index in range(len(segments))]


def _library_logits(model: nn.Module, tokens: AbstractSequence[int], num_prompt_tokens: int) -> mx.array:
    """The library's logits behind the prompt and behind each further token, [1 + decodes, vocabulary].

    All of them come from one pass, since a token sees only those before it: the reference never takes the steps that
    the paged path takes. Of a long prompt the rest goes first, so that no logits are computed which nobody compares.
    """
    cache = make_prompt_cache(model)
    num_before = num_prompt_tokens - 1 if num_prompt_tokens > BLOCK_SIZE else 0
    if num_before:
        model(mx.array([tokens[:num_before]]), cache=cache)
        mx.eval([layer.state for layer in cache])
    logits: mx.array = model(mx.array([tokens[num_before:]]), cache=cache)[0, num_prompt_tokens - 1 - num_before :]
    mx.eval(logits)
    return logits


def _difference(logits: mx.array, reference: mx.array) -> float:
    """The largest difference, as a part of the reference's spread; infinite where only one of the two is finite."""
    differences = _differences(logits, reference)
    return float(np.abs(differences).max()) if differences.size else float("inf")


def _mean_difference(logits: mx.array, reference: mx.array) -> float:
    """The root of the mean square of all differences, otherwise as `_difference`."""
    differences = _differences(logits, reference)
    return float(np.sqrt((differences**2).mean())) if differences.size else float("inf")


def _differences(logits: mx.array, reference: mx.array) -> npt.NDArray[np.float32]:
    """All of them, as parts of the reference's spread; none where only one of the two is finite."""
    found = np.array(logits.astype(mx.float32))
    wanted = np.array(reference.astype(mx.float32))
    is_finite = np.isfinite(wanted)
    if not is_finite.any() or (np.isfinite(found) != is_finite).any():
        return np.empty(0, dtype=np.float32)
    spread = max(float(wanted[is_finite].std()), 1e-6)
    differences: npt.NDArray[np.float32] = (found[is_finite] - wanted[is_finite]) / np.float32(spread)
    return differences


def _tokens(row: int, length: int, vocabulary_size: int) -> tuple[int, ...]:
    drawn = np.random.default_rng(1234 + row).integers(0, vocabulary_size, size=length)
    return tuple(int(token) for token in drawn)
