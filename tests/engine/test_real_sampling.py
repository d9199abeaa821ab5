"""Sampled requests on the real starter model: a seed gives the same tokens alone and among others."""

from __future__ import annotations

import math

import pytest

from mlx_manager.engine.config import Lookahead
from mlx_manager.engine.requests import EngineRequest
from mlx_manager.engine.sequence import SamplingParams
from tests.engine.real_engine import ANSWER, GREEDY, Starter, drive, sampled

SAMPLED = {
    "prose": SamplingParams(seed=11, temperature=1.3, num_top_logprobs=2),
    "python": SamplingParams(seed=12, temperature=0.9, top_p=0.8),
    "german": SamplingParams(seed=13, temperature=1.1, top_k=20, min_p=0.05),
    "digits": SamplingParams(
        seed=14, repetition_penalty=1.3, presence_penalty=0.7, frequency_penalty=0.5, num_top_logprobs=0
    ),
    "300 tokens": SamplingParams(seed=15, temperature=1.5, logit_bias=((28, 5.0), (30, -100.0))),
}
NUM_TOKENS = 10


def requests(starter: Starter) -> list[EngineRequest]:
    return [sampled(starter, name, params, NUM_TOKENS) for name, params in SAMPLED.items()]


@pytest.mark.parametrize("lookahead", [Lookahead.OVERLAP, Lookahead.LAUNCH])
def test_the_same_seed_alone_among_others_and_again(starter: Starter, lookahead: Lookahead) -> None:
    alone = drive(starter)
    for request in requests(starter):
        alone.run(request)

    others = [starter.ask(name, ANSWER) for name in ("chat", "33 tokens", "chinese", "64 tokens")]
    among = drive(starter, lookahead=lookahead)
    among.run_staggered([*others[:2], *reversed(requests(starter)), *others[2:]], every=1)
    assert {name: among.tokens()[name] for name in SAMPLED} == alone.tokens()
    # The sampled rows do not touch the greedy ones either.
    for other in others:
        assert among.tokens()[other.request_id] == [starter.answers[other.request_id][:ANSWER]]
    for name, params in SAMPLED.items():
        for ours, theirs in zip(alone.chosen[name][0], among.chosen[name][0], strict=True):
            assert (ours.logprob is None) == (params.num_top_logprobs is None)
            assert theirs.logprob == pytest.approx(ours.logprob, abs=1e-3)
            assert [token for token, _ in theirs.top] == [token for token, _ in ours.top]

    # From the prefix cache, all at once.
    assert {name: among.run(*requests(starter))[name] for name in SAMPLED} == alone.tokens()


def test_choices_draw_with_their_own_seeds_and_repeat_with_them(starter: Starter) -> None:
    def run_once(first_seed: int) -> list[tuple[int, ...]]:
        request = EngineRequest(
            request_id="n",
            prompt_token_ids=starter.prompts["prose"],
            params=tuple(SamplingParams(seed=first_seed + choice, temperature=1.5) for choice in range(3)),
            max_output_tokens=NUM_TOKENS,
        )
        return drive(starter).run(request)["n"]

    first = run_once(7)
    assert len(set(first)) == 3
    assert run_once(7) == first
    # Choice i of seed s is choice 0 of seed s + i.
    assert run_once(8)[:2] == first[1:]


def test_log_probabilities_are_those_of_mlx_lm(starter: Starter) -> None:
    request = sampled(starter, "prose", SamplingParams(temperature=0.0, num_top_logprobs=3), 4)
    told = drive(starter)
    told.run(request)
    for index, chosen in enumerate(told.chosen["prose"][0]):
        top = chosen.top
        assert chosen.token_id == starter.answers["prose"][index] == top[0][0]
        assert chosen.logprob == pytest.approx(top[0][1])
        assert [logprob for _, logprob in top] == sorted((logprob for _, logprob in top), reverse=True)
        assert math.fsum(math.exp(logprob) for _, logprob in top) <= 1
        assert chosen.logprob == pytest.approx(starter.logprobs["prose"][index], abs=1e-3)


def test_penalties_and_bias_change_the_answer_as_they_say(starter: Starter) -> None:
    plain = starter.answers["digits"][:NUM_TOKENS]
    (first,) = drive(starter).run(
        sampled(starter, "digits", SamplingParams(temperature=0.0, logit_bias=((plain[0], -100.0),)), NUM_TOKENS)
    )["digits"]
    assert plain[0] not in first
    forced = SamplingParams(temperature=0.0, logit_bias=((plain[3], 100.0),))
    assert drive(starter).run(sampled(starter, "digits", forced, 4))["digits"] == [(plain[3],) * 4]
    once = SamplingParams(temperature=0.0, presence_penalty=100.0)
    (tokens,) = drive(starter).run(sampled(starter, "digits", once, 30))["digits"]
    assert len(set(tokens)) == len(tokens)
    assert drive(starter).run(sampled(starter, "digits", GREEDY, NUM_TOKENS))["digits"] == [plain]


@pytest.mark.parametrize("lookahead", Lookahead)
def test_forced_tokens_come_at_their_place_and_nobody_else_is_touched(starter: Starter, lookahead: Lookahead) -> None:
    """Forced after the second token; taken back after the fourth, when one of them may be on its way."""
    forced = (1000, 1001, 1002, 1003)
    ours = drive(starter, lookahead=lookahead)
    request = sampled(starter, "prose", SAMPLED["prose"], NUM_TOKENS, key="forced")
    ours.add(request, *(starter.ask(name, ANSWER) for name in ("chat", "chinese")))
    chosen = ours.chosen["forced"][0]
    while ours.engine.has_work:
        num_before = len(chosen)
        ours.step()
        if len(chosen) > num_before:
            if len(chosen) == 2:
                ours.engine.force("forced", 0, forced)
            elif len(chosen) == 4:
                ours.engine.unforce("forced", 0)
    tokens = [token.token_id for token in chosen]
    alone = drive(starter).run(request)["forced"][0]
    assert tokens[:3] == list(alone[:3])
    assert tokens[3:5] == list(forced[:2])
    assert len(tokens) == NUM_TOKENS
    assert not set(tokens[5:]) & set(forced)
    for name in ("chat", "chinese"):
        assert ours.tokens()[name] == [starter.answers[name][:ANSWER]]
