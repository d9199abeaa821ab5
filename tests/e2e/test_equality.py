"""Greedy answers over HTTP are mlx-lm's, token for token. `make equality` does it with the starter model, at length."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import httpx

from benchmarks.equality import Expected, ask_all, expect
from benchmarks.grammar_cost import load_model
from tests.e2e.server_process import ServerProcess

NUM_TOKENS = 32
LENGTHS = (1, 2, 5, 9, 17, 31, 32, 33, 40, 50, 63, 64, 65, 80, 100, 127, 129, 160, 200, 300, 7, 24, 96)
FOLDER = Path(__file__).parents[1] / "data" / "tiny_tool_caller"


def test_twenty_prompts_alone_again_at_once_and_forked(caller: ServerProcess) -> None:
    loaded = load_model(FOLDER)
    random = Random(1)
    prompts = [tuple(random.randrange(10, 600) for _ in range(length)) for length in LENGTHS]
    found = {str(len(prompt)): expect(loaded, prompt, NUM_TOKENS) for prompt in prompts}
    expected: dict[str, Expected] = {name: one for name, one in found.items() if one is not None}
    assert len(expected) >= 20
    assert sum(one.num_tokens for one in expected.values()) > 150

    async def ask() -> None:
        async with httpx.AsyncClient(base_url=caller.url, timeout=60) as client:
            alone = await ask_all(client, caller.model, expected, at_once=False)
            assert (alone.num_answers, alone.different) == (len(expected), ())
            again = await ask_all(client, caller.model, expected, at_once=True)
            assert again.different == ()
            assert again.num_cached_tokens > 1000
            forked = await ask_all(client, caller.model, expected, at_once=True, num_choices=3)
            assert (forked.num_answers, forked.different) == (3 * len(expected), ())

    asyncio.run(ask())
