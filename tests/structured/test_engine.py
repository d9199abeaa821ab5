"""Grammars through the engine: the same tokens whatever else happens to the row, and nothing left behind."""

from __future__ import annotations

import json

import pytest

from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.config import EngineConfig, Lookahead
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.grammar import Constraint
from mlx_manager.engine.probe import probe_caches
from mlx_manager.engine.requests import EngineRequest, RequestBroke, TokenEvent
from mlx_manager.engine.runner import PagedRunner, Runner
from mlx_manager.engine.sequence import SamplingParams
from mlx_manager.engine.sequential import SequentialRunner
from mlx_manager.ir import FinishReason, Grammar
from mlx_manager.models.grammars import GrammarCompiler
from mlx_manager.models.loading import LoadedModel
from tests.structured.asking import of_regex, of_schema
from tests.structured.schemas import SCHEMAS

_CAPITALS = "The capital of France is Paris. The capital of Italy is Rome. The capital of Spain is Madrid."
"""Long enough to end near the end of a block."""
PROMPTS = {
    "person": ("Invent a person, in JSON:", of_schema(SCHEMAS["object: person"])),
    "integers": ("Some numbers:", of_schema(SCHEMAS["array: integers"])),
    "free": (f"{_CAPITALS} The capital of Portugal is", None),
    "words": (f"{_CAPITALS} And now a sentence:", of_regex("([a-z]{2,9} ){6}[a-z]{2,9}[.]")),
}
MAX_TOKENS = 32
Ends = dict[str, tuple[list[int], FinishReason | None]]


@pytest.fixture(scope="module")
def loaded(starter_model: LoadedModel) -> LoadedModel:
    return starter_model


@pytest.fixture(scope="module")
def compiler(loaded: LoadedModel) -> GrammarCompiler:
    return GrammarCompiler(loaded.tokenizer, loaded.vocabulary_size, loaded.eos_token_ids)


@pytest.fixture(scope="module")
def expected(loaded: LoadedModel, compiler: GrammarCompiler) -> Ends:
    return run(paged(loaded), loaded, compiler)


def paged(loaded: LoadedModel, *, num_blocks: int = 64, lookahead: Lookahead = Lookahead.NONE) -> Engine:
    runner = PagedRunner(loaded.model, probe_caches(loaded.model), num_blocks, DecodeAttention.GATHER_MM)
    return engine_of(runner, num_blocks=num_blocks, lookahead=lookahead)


def engine_of(
    runner: Runner, *, num_blocks: int = 64, lookahead: Lookahead = Lookahead.NONE, is_paged: bool = True
) -> Engine:
    config = EngineConfig(num_blocks=num_blocks, lookahead=lookahead, has_prefix_cache=is_paged)
    return Engine(runner, config)


def request(loaded: LoadedModel, name: str, text: str, num_choices: int = 1) -> EngineRequest:
    return EngineRequest(
        request_id=name,
        prompt_token_ids=tuple(loaded.tokenizer.encode(text)),
        params=(SamplingParams(temperature=0.0),) * num_choices,
        max_output_tokens=MAX_TOKENS,
        # no end token ends the free one, so that it meets the last row at the end of the blocks
        eos_token_ids=frozenset() if name == "free" else loaded.eos_token_ids,
    )


def compiled(compiler: GrammarCompiler, grammar: Grammar | None) -> Constraint | None:
    return None if grammar is None else compiler.start(grammar).result()


def run(
    engine: Engine, loaded: LoadedModel, compiler: GrammarCompiler, names: tuple[str, ...] = tuple(PROMPTS)
) -> Ends:
    """Every request of `names` joins two steps after the one before it; the tokens and ends of all."""
    ends: Ends = {}
    waiting = [(name, *PROMPTS[name]) for name in names]
    steps = 0
    while waiting or engine.has_work:
        if waiting and steps % 2 == 0:
            name, text, grammar = waiting.pop(0)
            ends[name] = ([], None)
            engine.add(request(loaded, name, text), compiled(compiler, grammar))
        steps += 1
        for event in engine.step():
            assert isinstance(event, TokenEvent)
            tokens, _ = ends[event.request_id]
            ends[event.request_id] = ([*tokens, event.chosen.token_id], event.finish)
            if event.finish is not None:
                engine.forget(event.request_id)
    engine.scheduler.check_integrity()
    assert len(engine.grammars) == 0
    return ends


def test_what_the_grammars_are_for(expected: Ends, loaded: LoadedModel) -> None:
    assert set(json.loads(loaded.tokenizer.decode(expected["person"][0]))) == {"name", "age"}
    assert {name: finish for name, (_, finish) in expected.items() if name != "free"} == {
        "person": FinishReason.STOP,
        "integers": FinishReason.STOP,
        "words": FinishReason.STOP,
    }


def test_a_pipelined_engine_chooses_the_same_tokens(
    expected: Ends, loaded: LoadedModel, compiler: GrammarCompiler
) -> None:
    assert run(paged(loaded, lookahead=Lookahead.LAUNCH), loaded, compiler) == expected


@pytest.mark.parametrize("lookahead", [Lookahead.OVERLAP, Lookahead.LAUNCH])
def test_a_preempted_row_goes_on_where_it_was(
    expected: Ends, loaded: LoadedModel, compiler: GrammarCompiler, lookahead: Lookahead
) -> None:
    engine = paged(loaded, num_blocks=3, lookahead=lookahead)
    names = ("free", "words")
    assert run(engine, loaded, compiler, names) == {name: expected[name] for name in names}
    assert engine.scheduler.num_preemptions > 0


def test_the_librarys_own_cache_is_constrained_too(
    expected: Ends, loaded: LoadedModel, compiler: GrammarCompiler
) -> None:
    assert run(engine_of(SequentialRunner(loaded.model), is_paged=False), loaded, compiler) == expected


def test_an_aborted_request_leaves_no_matcher(loaded: LoadedModel, compiler: GrammarCompiler) -> None:
    engine = paged(loaded)
    engine.add(request(loaded, "forked", "Names:", 3), compiled(compiler, of_regex("[a-z]+")))
    for _ in range(3):
        engine.step()
    assert len(engine.grammars) == 3
    engine.forget("forked", is_aborted=True)
    assert len(engine.grammars) == 0


def test_a_grammar_that_fails_ends_its_request_alone(loaded: LoadedModel, compiler: GrammarCompiler) -> None:
    engine = paged(loaded)
    broken = compiled(compiler, of_regex("[a-z]+"))
    assert broken is not None
    # a matcher in an error state, as one that has met its own limits is
    broken.matcher.consume_token(next(iter(loaded.eos_token_ids)))
    assert broken.matcher.is_error()
    engine.add(request(loaded, "broken", "Names:"), broken)
    engine.add(request(loaded, "whole", "Names:"), compiled(compiler, of_regex("[a-z]{2,3}")))
    events = []
    while engine.has_work:
        events += engine.step()
    assert [event.request_id for event in events if isinstance(event, RequestBroke)] == ["broken"]
    assert all("grammar" in event.reason for event in events if isinstance(event, RequestBroke))
    assert [event.finish for event in events if event.request_id == "whole"][-1] is FinishReason.STOP  # type: ignore[union-attr]
    assert len(engine.grammars) == 0
