"""Greedy answers over HTTP beside mlx-lm's own, token for token: alone, again, all at once, forked, preempted.

    python -m benchmarks.equality [MODEL_FOLDER] [--tokens 48]

With the BLAS preloaded; `make equality` runs it on the starter model. Writes
benchmarks/results/<date>-<machine>-equality.{json,md} and ends with 1 where an answer differs, or nothing was
preempted. An answer is asked up to the first token that rounding could decide: where the two likeliest are within 0.001
(natural logarithm).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import mlx.core as mx
from mlx_lm import stream_generate

from benchmarks.figures import RESULTS, Table, write_tables
from benchmarks.folders import import_starter
from benchmarks.grammar_cost import load_model
from benchmarks.servers import RIVALS, end_in_order, running
from mlx_manager.models.loading import LoadedModel
from mlx_manager.models.tokens import Vocabulary
from mlx_manager.pool.blas import find_openblas, runs_on_linux_cpu
from tests.engine.real_prompts import build_prompts

_MIN_MARGIN = 1e-3
_FORKS = 3
_CROWDED_BUDGET = 24 * 1024**2
"""Of keys and values: 17 blocks of the starter model, so that answers have to give way to each other."""
_CROWDED_PROMPT = 300
"""Tokens of the longest prompt that is asked there."""


@dataclass(frozen=True)
class Expected:
    """A prompt, and what mlx-lm answers."""

    prompt: tuple[int, ...]
    text: str
    finish_reason: str
    num_tokens: int
    """To ask for."""


@dataclass(frozen=True)
class Outcome:
    """What came of asking all prompts in one way."""

    num_answers: int
    num_cached_tokens: int
    different: tuple[str, ...]
    """Names of the prompts that had an answer of another text or end."""


def expect(loaded: LoadedModel, prompt: tuple[int, ...], num_tokens: int) -> Expected | None:
    """What mlx-lm answers with up to `num_tokens`; None where rounding could decide its first token."""
    tokens: list[int] = []
    for response in stream_generate(loaded.model, loaded.tokenizer, list(prompt), max_tokens=num_tokens):
        best_two = mx.topk(response.logprobs, 2)
        if float(mx.max(best_two) - mx.min(best_two)) <= _MIN_MARGIN:
            break
        tokens.append(int(response.token))
    if not tokens:
        return None
    has_ended = tokens[-1] in loaded.eos_token_ids
    decoder = Vocabulary(loaded.tokenizer).decoder()
    text = "".join(decoder.add(token) for token in (tokens[:-1] if has_ended else tokens)) + decoder.flush()
    return Expected(prompt, text, "stop" if has_ended else "length", len(tokens))


async def ask_all(
    client: httpx.AsyncClient, model: str, expected: Mapping[str, Expected], *, at_once: bool, num_choices: int = 1
) -> Outcome:
    """Ask every prompt by its token ids, one after the other or all at once. Raises `httpx.HTTPStatusError`."""

    async def ask(one: Expected) -> dict[str, Any]:
        body = {"model": model, "prompt": list(one.prompt), "max_tokens": one.num_tokens, "temperature": 0}
        answer = await client.post("/v1/completions", json=body | {"n": num_choices})
        answered: dict[str, Any] = answer.raise_for_status().json()
        return answered

    if at_once:
        answers: Sequence[dict[str, Any]] = await asyncio.gather(*map(ask, expected.values()))
    else:
        answers = [await ask(one) for one in expected.values()]
    different = [
        name
        for (name, one), answer in zip(expected.items(), answers, strict=True)
        if any((each["text"], each["finish_reason"]) != (one.text, one.finish_reason) for each in answer["choices"])
        or len(answer["choices"]) != num_choices
    ]
    cached = [(answer["usage"].get("prompt_tokens_details") or {}).get("cached_tokens") or 0 for answer in answers]
    return Outcome(num_choices * len(answers), sum(cached), tuple(different))


def main() -> None:
    """Ask in every way, write it down, and end with 1 where an answer differs."""
    end_in_order()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", help="an MLX model folder (the starter model)")
    parser.add_argument("--tokens", type=int, default=48, help="most tokens of an answer (48)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mlx-manager-equality-") as name:
        folder = Path(name)
        model = arguments.model or import_starter(folder)
        loaded = load_model(model)
        found = {
            name: expect(loaded, prompt, arguments.tokens) for name, prompt in build_prompts(loaded.tokenizer).items()
        }
        expected = {name: one for name, one in found.items() if one is not None}
        rows = _ask_in_every_way(model, folder, expected)
    lengths = [len(one.prompt) for one in expected.values()]
    num_tokens = sum(one.num_tokens for one in expected.values())
    notes = [
        f"{model.name}, {loaded.dtype} on both sides; {len(expected)} prompts of {min(lengths)} to {max(lengths)} "
        f"tokens; {num_tokens} tokens of answers, at most {arguments.tokens} each",
        "asked over HTTP as token ids at /v1/completions; beside `mlx_lm.stream_generate`, by text and end",
    ]
    titles = ("asked", "answers", "the same", "prompt tokens cached", "preemptions", "differing prompts")
    table = Table("Greedy answers beside mlx-lm's", titles, rows)
    write_tables([table], arguments.output, "equality", title="The same answers as mlx-lm", notes=notes)
    if any(row[1] != row[2] for row in rows):
        sys.exit("an answer differs from mlx-lm's")
    if rows[-1][4] == 0:
        sys.exit("nothing was preempted: ask for more tokens")


def _ask_in_every_way(model: Path, folder: Path, expected: Mapping[str, Expected]) -> list[list[float | str | None]]:
    ours = next(rival for rival in RIVALS if rival.name == "ours")
    openblas = find_openblas() if runs_on_linux_cpu() else None
    rows: list[list[float | str | None]] = []

    short = {name: one for name, one in expected.items() if len(one.prompt) <= _CROWDED_PROMPT}

    async def ask(url: str, ways: Mapping[str, tuple[bool, int]], expected: Mapping[str, Expected]) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=None, trust_env=False) as client:
            for way, (at_once, num_choices) in ways.items():
                outcome = await ask_all(client, model.name, expected, at_once=at_once, num_choices=num_choices)
                (stats,) = [one["stats"] for one in (await client.get("/health")).json()["models"] if one["stats"]]
                num_same = outcome.num_answers - num_choices * len(outcome.different)
                named = ", ".join(outcome.different) or "none"
                rows.append(
                    [way, outcome.num_answers, num_same, outcome.num_cached_tokens, stats["num_preemptions"], named]
                )

    in_order = {
        "one after the other": (False, 1),
        "again, from the prefix cache": (False, 1),
        "again, at once": (True, 1),
    }
    at_once = {"at once, new": (True, 1), "forked in three, at once": (True, _FORKS)}
    crowded = {"at once in a small cache": (True, 1), "forked in three, at once, in a small cache": (True, _FORKS)}
    for ways, asked, flags in (
        (in_order, expected, ()),
        (at_once, expected, ()),
        (crowded, short, ("--kv-budget", str(_CROWDED_BUDGET))),
    ):
        with running(ours, model, folder, openblas, ("--no-use-spare", *flags)) as url:
            asyncio.run(ask(url, ways, asked))
    return rows


if __name__ == "__main__":
    main()
