"""Whether `mx.compile` makes the choice of tokens, or decode attention, faster: plain and compiled in turn.

    python -m benchmarks.compiled [--rows 8] [--vocabulary 49152] [--blocks 32] [--repeats 40]

With the BLAS preloaded. The pieces are those that a decode step runs: drawing by temperature and top-p, penalties, and
one layer's attention over blocks, softmax and mask alone and with its products. Writes
benchmarks/results/<date>-<machine>-compiled.{json,md}. On a CPU, compiling needs a C++ compiler beside MLX.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import mlx.core as mx

from benchmarks.figures import RESULTS, Table, write_tables
from mlx_manager.engine.blocks import BLOCK_SIZE

_HEADS, _KV_HEADS, _DIM = 9, 3, 64
"""Of SmolLM2-135M."""
_MASKED = -1e30

Piece = tuple[Callable[..., mx.array], list[mx.array]]


def draw(logits: mx.array, temperature: mx.array, top_p: mx.array, draws: mx.array) -> mx.array:
    """A token for each row by temperature and top-p, as `sampler` draws it."""
    scaled = logits / temperature
    descending = -mx.sort(-scaled, axis=-1)
    probabilities = mx.softmax(descending, axis=-1, precise=True)
    before = mx.cumsum(probabilities, axis=-1) - probabilities
    num_kept = mx.maximum((before < top_p).sum(axis=-1, keepdims=True), 1)
    threshold = mx.take_along_axis(descending, num_kept - 1, axis=-1)
    scaled = mx.where(scaled >= threshold, scaled, -mx.inf)
    return weighted(scaled, draws)


def weighted(scaled: mx.array, draws: mx.array) -> mx.array:
    """A token for each row by its weights alone."""
    weights = mx.exp(scaled - scaled.max(axis=-1, keepdims=True))
    cumulative = mx.cumsum(weights, axis=-1)
    return mx.argmax(cumulative > mx.minimum(draws * cumulative[:, -1:], cumulative[:, -1:] * (1 - 1e-6)), axis=-1)


def penalize(logits: mx.array, seen: mx.array, counts: mx.array, penalties: mx.array) -> mx.array:
    """Repetition, frequency and presence penalties, as `sampler` applies them."""
    repeated = mx.where(logits > 0, logits / penalties[:, :1], logits * penalties[:, :1])
    adjusted = mx.where(seen, repeated, logits) - counts * penalties[:, 1:2]
    return adjusted - (counts > 0) * penalties[:, 2:]


def soften(scores: mx.array, mask: mx.array) -> mx.array:
    """Mask and softmax of decode attention."""
    return mx.softmax(scores + mask, axis=-1, precise=True)


def attend(queries: mx.array, keys: mx.array, values: mx.array, indices: mx.array, mask: mx.array) -> mx.array:
    """One layer's decode attention over the blocks of each row, products included."""
    rows, width = mask.shape[0], indices.shape[2]
    repeats = _HEADS // _KV_HEADS
    place = mx.arange(rows * _KV_HEADS).reshape(rows, _KV_HEADS, 1)
    scores = mx.gather_mm(
        queries, keys.swapaxes(-1, -2), lhs_indices=mx.broadcast_to(place, indices.shape), rhs_indices=indices
    )
    scores = scores.swapaxes(2, 3).reshape(rows, _KV_HEADS, repeats, width * BLOCK_SIZE)
    weights = soften(scores, mask).reshape(rows, _KV_HEADS, repeats, width, BLOCK_SIZE).swapaxes(2, 3)
    weights = weights.reshape(-1, repeats, BLOCK_SIZE)
    each = mx.arange(weights.shape[0]).reshape(indices.shape)
    return mx.gather_mm(weights, values, lhs_indices=each, rhs_indices=indices).sum(axis=2)


def _pieces(rows: int, vocabulary: int, blocks: int) -> dict[str, Piece]:
    logits = mx.random.normal((rows, vocabulary)) * 3
    column = mx.ones((rows, 1))
    seen = mx.random.uniform(shape=(rows, vocabulary)) < 0.01
    penalties = mx.array([[1.1, 0.2, 0.3]] * rows)
    keys, values = (mx.random.normal((rows * blocks * _KV_HEADS, BLOCK_SIZE, _DIM)) for _ in range(2))
    tables = mx.arange(rows * blocks).reshape(rows, 1, blocks) * _KV_HEADS + mx.arange(_KV_HEADS)[None, :, None]
    mask = mx.zeros((rows, 1, 1, blocks * BLOCK_SIZE))
    mask[..., -5:] = _MASKED
    scores = mx.random.normal((rows, _KV_HEADS, _HEADS // _KV_HEADS, blocks * BLOCK_SIZE))
    queries = mx.random.normal((rows * _KV_HEADS, _HEADS // _KV_HEADS, _DIM))
    return {
        "draw by temperature and top-p": (draw, [logits, 0.8 * column, 0.9 * column, 0.37 * column]),
        "draw by weights alone": (weighted, [logits, 0.37 * column]),
        "penalties": (penalize, [logits, seen, seen.astype(mx.float32), penalties]),
        "mask and softmax of attention": (soften, [scores, mask]),
        "attention of a layer": (attend, [queries, keys, values, tables, mask]),
    }


def _seconds(function: Callable[..., mx.array], arguments: list[mx.array]) -> float:
    started_s = time.perf_counter()
    mx.eval(function(*arguments))
    return time.perf_counter() - started_s


def main() -> None:
    """Measure every piece both ways, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=49_152)
    parser.add_argument("--blocks", type=int, default=32, help="blocks of 32 tokens of each row (32)")
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args()
    rows: list[list[float | str | None]] = []
    for name, (plain, inputs) in _pieces(arguments.rows, arguments.vocabulary, arguments.blocks).items():
        mx.eval(inputs)
        compiled = mx.compile(plain)
        first_s = _seconds(compiled, inputs)
        pairs = [(_seconds(plain, inputs), _seconds(compiled, inputs)) for _ in range(arguments.repeats)]
        plain_s, compiled_s = (median(times) for times in zip(*pairs, strict=True))
        ratio = median(ours / theirs for theirs, ours in pairs)
        rows.append([name, 1000 * plain_s, 1000 * compiled_s, ratio, 1000 * first_s])
    titles = ("piece", "plain, ms", "compiled, ms", "compiled over plain", "first call (compiles), ms")
    notes = [
        f"{arguments.rows} rows, a vocabulary of {arguments.vocabulary}, {arguments.blocks} blocks of a row; float32, "
        f"medians of {arguments.repeats} runs of each in turn",
    ]
    table = Table("Pieces of a decode step", titles, rows)
    write_tables([table], arguments.output, "compiled", title="What mx.compile brings", notes=notes)


if __name__ == "__main__":
    main()
