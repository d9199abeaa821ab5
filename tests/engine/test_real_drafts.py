"""With tokens guessed ahead, every answer is what it is without: greedy and seeded, alone and among others."""

from __future__ import annotations

import pytest

from mlx_manager.catalog import LoadOptions
from mlx_manager.engine.config import Lookahead
from mlx_manager.engine.sequence import SamplingParams
from mlx_manager.ipc import FromWorker, StepDone
from mlx_manager.ir import ChoiceEnd, Event, Finished, GenerationRequest, PartDelta, Sampling, TokenPrompt
from mlx_manager.worker.serving import Serving
from tests.engine.real_engine import ANSWER, LONG_ANSWER, Starter, drive, sampled
from tests.engine.real_prompts import LONG_ANSWERED


@pytest.mark.parametrize("lookahead", list(Lookahead))
def test_greedy_answers_stay_what_they_were(starter: Starter, lookahead: Lookahead) -> None:
    names = ("700 tokens", "digits", "300 tokens", "python")
    drafted = drive(starter, lookahead=lookahead, max_draft_tokens=6)
    tokens = drafted.run_staggered([starter.ask(name, ANSWER) for name in names], every=2)
    assert tokens == starter.expected(names, ANSWER)
    counters = drafted.engine.counters
    assert 0 < counters.num_accepted_drafts < counters.num_drafted_tokens


def test_preempted_and_forked_answers_stay_what_they_were(starter: Starter) -> None:
    crowded = drive(starter, num_blocks=10, max_draft_tokens=6)
    crowded.run(starter.ask("digits", LONG_ANSWER, key="costs are known"))
    tokens = crowded.run(*(starter.ask(name, LONG_ANSWER, num_choices=2) for name in LONG_ANSWERED))
    assert {name: tokens[name] for name in LONG_ANSWERED} == {
        name: [starter.answers[name][:LONG_ANSWER]] * 2 for name in LONG_ANSWERED
    }
    assert crowded.engine.counters.num_drafted_tokens > 0


def test_seeded_draws_stay_what_they_were(starter: Starter) -> None:
    params = SamplingParams(temperature=0.6, top_p=0.9, seed=7)
    said = []
    for max_draft_tokens in (0, 6):
        drawing = drive(starter, max_draft_tokens=max_draft_tokens)
        drawing.run(starter.ask("digits", LONG_ANSWER, key="costs are known"))
        tokens = drawing.run(*(sampled(starter, name, params, 24) for name in ("digits", "700 tokens", "sql")))
        said.append({name: tokens[name] for name in ("digits", "700 tokens", "sql")})
    assert said[0] == said[1]
    assert drawing.engine.counters.num_accepted_drafts > 0


def test_a_stop_string_ends_an_answer_where_it_does_without_drafts(starter: Starter) -> None:
    whole, _ = serve(starter, 0, ())
    for stop in (whole[5:8], whole[len(whole) // 2 :][:4]):
        without, _ = serve(starter, 0, (stop,))
        text, num_accepted = serve(starter, 6, (stop,))
        assert whole.startswith(without.partition(" [")[0])
        assert text == without
    assert num_accepted > 0


def serve(starter: Starter, max_draft_tokens: int, stop: tuple[str, ...]) -> tuple[str, int]:
    """What the worker makes of the answer, its ends and usage included, and how many guesses came true."""
    drafted = drive(starter, max_draft_tokens=max_draft_tokens)
    serving = Serving(starter.loaded, drafted.engine, LoadOptions())
    request = GenerationRequest(
        request_id="diary",
        model="starter",
        prompt=TokenPrompt(token_ids=starter.prompts["700 tokens"]),
        sampling=Sampling(max_tokens=LONG_ANSWER, temperature=0.0, repetition_penalty=1.0, stop=stop),
    )
    events: list[Event] = []

    def take(message: FromWorker) -> None:
        assert isinstance(message, StepDone)
        events.extend(event for delta in message.deltas for event in delta.events)

    serving.publish = take
    assert serving.submit(request) is None
    while serving.has_work:
        serving.step()
    text = "".join(event.text for event in events if isinstance(event, PartDelta))
    if stop:
        assert any(isinstance(event, ChoiceEnd) and event.stop_sequence == stop[0] for event in events)
        [usage] = [event.usage for event in events if isinstance(event, Finished)]
        text += f" [{usage.num_completion_tokens}]"
    return text, drafted.engine.counters.num_accepted_drafts
