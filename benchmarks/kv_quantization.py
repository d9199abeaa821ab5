"""What keeping keys and values in 8 or 4 bits costs and saves, beside keeping them as they are computed.

    python -m benchmarks.kv_quantization MODEL_FOLDER [--windows 8] [--prompts 16] [--tokens 64] [--steps 16]

On real text, the Python language reference that comes with every Python: perplexity of windows of it, and how far
greedy answers to pieces of it agree with those at full precision. Then the time of a decode step of eight rows of 1,000
tokens; the ways are stepped in turn in one process. Writes
benchmarks/results/<date>-<machine>-kv-quantization.{json,md}.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from pathlib import Path
from pydoc_data import topics

import mlx.core as mx

from benchmarks.figures import RESULTS, Table, write_tables
from benchmarks.grammar_cost import load_model
from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.batch import Batch, Segment
from mlx_manager.engine.blocks import BLOCK_SIZE
from mlx_manager.engine.config import EngineConfig
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.probe import probe_caches
from mlx_manager.engine.requests import EngineRequest, TokenEvent
from mlx_manager.engine.runner import PagedRunner
from mlx_manager.engine.sequence import SamplingParams
from mlx_manager.engine.timing import time_candidates
from mlx_manager.models.loading import LoadedModel

_BITS = (0, 8, 4)
_WINDOW = 512
"""Tokens of a window of text."""
_PROMPT = 96
"""Tokens of a prompt."""
_NUM_ROWS, _CONTEXT = 8, 1000


class Kept:
    """One way to keep keys and values: an engine over its own arena, of the same model."""

    def __init__(self, loaded: LoadedModel, bits: int) -> None:
        caches = probe_caches(loaded.model)
        num_blocks = _NUM_ROWS * (_CONTEXT // BLOCK_SIZE + 8)
        self.runner = PagedRunner(loaded.model, caches, num_blocks, DecodeAttention.GATHER_MM)
        layers = caches.quantized(bits) if bits else caches.layers
        self.runner.lay_out(layers, num_blocks)
        config = loaded.config.get("text_config", loaded.config)
        times_s = time_candidates(self.runner.attention, int(config["num_attention_heads"]))
        self.runner.attention.decode_attention = min(times_s, key=lambda each: times_s[each])
        self.engine = Engine(self.runner, EngineConfig(num_blocks=num_blocks, has_prefix_cache=False))
        self.bytes_per_token = sum(layer.bytes_per_token for layer in layers)
        num_entries = sum(layer.num_kv_heads * (layer.key_dim + layer.value_dim) for layer in layers)
        self.part_of_16_bits = self.bytes_per_token / (2 * num_entries)

    def loss(self, tokens: list[int]) -> float:
        """Mean negative log-likelihood of each token behind those before it, in nats."""
        table = tuple(range(-(-len(tokens) // BLOCK_SIZE)))
        batch = Batch((Segment(0, 0, tuple(tokens), None, table),), (), (), (), (), (), (), (), num_blocks=len(table))
        logits = self.runner.logits(batch, wanted=[(0, len(tokens) - 1 - place) for place in range(len(tokens) - 1)])
        logits = logits.astype(mx.float32)
        chosen = mx.take_along_axis(logits, mx.array(tokens[1:])[:, None], axis=-1)[:, 0]
        loss = float((mx.logsumexp(logits, axis=-1) - chosen).mean())
        self.runner.reset()
        return loss

    def answer(self, prompt: list[int], num_tokens: int) -> list[int]:
        """Greedy, of just so many tokens."""
        self._add("it", prompt, num_tokens)
        tokens: list[int] = []
        while len(tokens) < num_tokens:
            tokens += [event.chosen.token_id for event in self.engine.step() if isinstance(event, TokenEvent)]
        self.engine.forget("it")
        return tokens[:num_tokens]

    def fill(self, text: list[int]) -> None:
        """Rows of 1,000 tokens that decode from now on."""
        for row in range(_NUM_ROWS):
            self._add(f"row {row}", text[row * _CONTEXT : (row + 1) * _CONTEXT - 40 * row], 200)
        running = self.engine.scheduler.running
        while len(running) < _NUM_ROWS or any(seq.is_prefilling for seq in running):
            self.engine.step()
            running = self.engine.scheduler.running

    def step_s(self) -> float:
        """Seconds of one step."""
        started_s = time.perf_counter()
        self.engine.step()
        return time.perf_counter() - started_s

    def _add(self, name: str, prompt: list[int], num_tokens: int) -> None:
        params = (SamplingParams(temperature=0.0),)
        self.engine.add(
            EngineRequest(request_id=name, prompt_token_ids=tuple(prompt), params=params, max_output_tokens=num_tokens)
        )


def measure(
    loaded: LoadedModel, num_windows: int, num_prompts: int, num_tokens: int, num_steps: int
) -> dict[str, dict[str, float | str]]:
    """By bits: what `main` writes down."""
    text = loaded.tokenizer.encode("\n\n".join(topics.topics[name] for name in sorted(topics.topics))[:400_000])
    windows = [text[start : start + _WINDOW] for start in _starts(text, num_windows, _WINDOW)]
    prompts = [text[start : start + _PROMPT] for start in _starts(text, num_prompts, _PROMPT)]
    kept = {bits: Kept(loaded, bits) for bits in _BITS}
    losses = {bits: statistics.mean(way.loss(window) for window in windows) for bits, way in kept.items()}
    answers = {bits: [way.answer(prompt, num_tokens) for prompt in prompts] for bits, way in kept.items()}
    for way in kept.values():
        way.fill(text)
    times_s: dict[int, list[float]] = {bits: [] for bits in _BITS}
    for _ in range(num_steps):
        for bits, way in kept.items():
            times_s[bits].append(way.step_s())
    figures: dict[str, dict[str, float | str]] = {}
    for bits, way in kept.items():
        agreed = [_agreed(one, other) for one, other in zip(answers[0], answers[bits], strict=True)]
        figures[str(bits or "as computed")] = {
            "bytes_per_token": way.bytes_per_token,
            "part_of_16_bits": way.part_of_16_bits,
            "decode_attention": way.runner.attention.decode_attention.value,
            "perplexity": math.exp(losses[bits]),
            "agreed_tokens_mean": statistics.mean(agreed),
            "agreed_tokens_median": statistics.median(agreed),
            "answers_equal": sum(length == num_tokens for length in agreed) / len(agreed),
            "step_s": statistics.median(times_s[bits]),
            "step_ratio": statistics.median(own / plain for own, plain in zip(times_s[bits], times_s[0], strict=True)),
        }
    return figures


def _starts(text: list[int], count: int, length: int) -> list[int]:
    return [index * ((len(text) - length) // count) for index in range(count)]


def _agreed(one: list[int], other: list[int]) -> int:
    """Leading tokens that are the same."""
    return next((index for index, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]), len(one))


def main() -> None:
    """Measure and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="an MLX model folder")
    parser.add_argument("--windows", type=int, default=8, help="windows of text of 512 tokens (8)")
    parser.add_argument("--prompts", type=int, default=16, help="prompts of 96 tokens (16)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each answer (64)")
    parser.add_argument("--steps", type=int, default=16, help="steps each way (16)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args()
    loaded = load_model(arguments.model)
    kept = measure(loaded, arguments.windows, arguments.prompts, arguments.tokens, arguments.steps)
    rows = [[bits, *figures.values()] for bits, figures in kept.items()]
    write_tables(
        [Table("By the bits of an entry", ("bits", *next(iter(kept.values()))), rows)],
        arguments.output,
        "kv-quantization",
        title="Keys and values in 8 and 4 bits",
        notes=[
            f"{arguments.model.name}, {loaded.dtype}; perplexity of {arguments.windows} windows of {_WINDOW} tokens of "
            f"the Python language reference; greedy answers of {arguments.tokens} tokens to {arguments.prompts} pieces "
            f"of {_PROMPT}, by the tokens that they have in common with those at full precision; medians of "
            f"{arguments.steps} steps of {_NUM_ROWS} rows of {_CONTEXT} tokens, in turn",
            "scales and biases are of the type computed in: in bfloat16 a token takes less of 16 bits than in float32",
        ],
    )


if __name__ == "__main__":
    main()
