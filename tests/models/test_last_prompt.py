"""Served through the library's own cache, a conversation goes on where it stopped, with the library's answers."""

from __future__ import annotations

import pytest

from mlx_manager.engine.batch import Chosen
from mlx_manager.engine.config import EngineConfig, Lookahead
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.requests import EngineRequest
from mlx_manager.engine.sequence import SamplingParams
from mlx_manager.engine.sequential import SequentialRunner
from mlx_manager.engine.verify import goes_on_alike
from tests.models.examine import difference, library_answer, prompts, run_requests
from tests.models.zoo import VOCABULARY_SIZE, build

# plain caches, lists of them, chunks that lose their beginning, recurrent states
MODELS = ["afm7", "deepseek_v32", "llama4", "lfm2"]
NUM_TOKENS = 8


@pytest.mark.parametrize("lookahead", [Lookahead.NONE, Lookahead.OVERLAP])
@pytest.mark.parametrize("model_type", MODELS)
def test_a_turn_goes_on_with_the_last(model_type: str, lookahead: Lookahead) -> None:
    model = build(model_type)
    first = prompts()[-1]
    answered = library_answer(model, first)
    turn = (*first, *answered.tokens[:NUM_TOKENS], 7, 9, 11)
    other = (*first[:40], 3, 5, 8, 13, *first[44:60])
    asked = {"first": first, "next turn": turn, "goes another way": other, "the same": other, "shorter": other[:50]}
    runner = SequentialRunner(model, kept_bytes=2**30)
    config = EngineConfig(num_blocks=64, max_step_tokens=32, has_prefix_cache=False, lookahead=lookahead)
    engine = Engine(runner, config)
    reused = {}
    for name, prompt in asked.items():
        before = runner.num_reused_tokens
        expected = library_answer(model, prompt)
        found = ask(engine, name, prompt)
        assert difference(found, expected) == "", name
        reused[name] = runner.num_reused_tokens - before
    # the last token of an answer was never run
    assert reused["next turn"] == len(first) + NUM_TOKENS - 1
    if model_type in ("llama4", "lfm2"):
        assert reused["goes another way"] == reused["the same"] == 0
    else:
        assert (reused["goes another way"], reused["the same"], reused["shorter"]) == (40, len(other) - 1, 49)
    engine.trim()
    assert runner.arena_bytes == 0


def test_what_is_kept_is_for_those_who_share_it_and_gives_way() -> None:
    model, prompt = build("afm7"), prompts()[-1]
    for kept_bytes, salts, is_reused in ((2**30, (5, 5), True), (2**30, (5, 6), False), (1, (5, 5), False)):
        runner = SequentialRunner(model, kept_bytes=kept_bytes)
        engine = Engine(runner, EngineConfig(num_blocks=64, has_prefix_cache=False))
        for index, salt in enumerate(salts):
            ask(engine, str(index), prompt, prefix_ids=(salt, *prompt[1:]))
        assert (runner.num_reused_tokens == len(prompt) - 1) is is_reused
        assert runner.num_reused_tokens == (len(prompt) - 1 if is_reused else 0)


def ask(engine: Engine, name: str, prompt: tuple[int, ...], prefix_ids: tuple[int, ...] = ()) -> list[Chosen]:
    request = EngineRequest(
        request_id=name,
        prompt_token_ids=prompt,
        params=(SamplingParams(temperature=0.0, num_top_logprobs=16),),
        max_output_tokens=NUM_TOKENS,
        prefix_ids=prefix_ids,
    )
    return run_requests(engine, [request])[(name, 0)]


@pytest.mark.parametrize("model_type", [*MODELS, "phi3small"])
def test_a_model_whose_library_takes_pieces_differently_is_found_out(model_type: str) -> None:
    assert goes_on_alike(build(model_type), VOCABULARY_SIZE) is (model_type != "phi3small")
