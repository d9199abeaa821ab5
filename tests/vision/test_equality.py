"""Vision models answer as mlx-vlm's own generation does, in every situation of the paged engine."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_manager.engine.config import Lookahead
from tests.vision.seeing import NUM_TOKENS, Asked, SeeingModel, noise
from tests.vision.zoo import FAMILIES, LIBRARY_WARNINGS

pytestmark = LIBRARY_WARNINGS

CAT, DOG, WIDE = noise(1, 70, 56), noise(2, 70, 56), noise(3, 140, 42)
LEAD = "Take your time and look at every corner of this one. "
QUESTION = Asked((CAT, f"{LEAD}What is it?"))
OTHER = Asked((DOG, f"{LEAD}What is it?"))
LATER = Asked((CAT, f"{LEAD}And what colour does it have, and where does it stand?"))
SEVERAL = Asked(("First ", WIDE, " and then ", DOG, "Compare them."))
TEXT = Asked(("Tell me a story of a hundred and one nights, please.",))


@pytest.fixture(scope="module", params=list(FAMILIES))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SeeingModel:
    return SeeingModel(tmp_path_factory.mktemp("models") / request.param, request.param)


def test_it_is_paged(model: SeeingModel) -> None:
    assert model.path.name == "paged", model.path.reason
    assert "with an image" in model.path.reason


@pytest.mark.parametrize("asked", [QUESTION, SEVERAL, TEXT], ids=["image", "several", "text"])
def test_alone(model: SeeingModel, asked: Asked) -> None:
    answer = model.answer(asked)
    assert len(answer.token_ids) == NUM_TOKENS
    assert answer.agrees_with(model.expected(asked))


def test_in_chunks_that_cut_images(model: SeeingModel) -> None:
    assert model.answer(SEVERAL, model.engine(max_step_tokens=16, max_batch_size=4)).agrees_with(
        model.expected(SEVERAL)
    )


@pytest.mark.parametrize("every", [1, 3])
def test_among_texts_and_other_images(model: SeeingModel, every: int) -> None:
    asked = [TEXT, QUESTION, OTHER, SEVERAL, LATER]
    found = model.answers(asked, model.engine(), every)
    for each, answer in zip(asked, found, strict=True):
        assert answer.agrees_with(model.expected(each))


def test_a_second_question_about_an_image_finds_it_computed(model: SeeingModel) -> None:
    # where layers are recurrent, a prefix is found at the ends of chunks
    engine = model.engine(max_step_tokens=32)
    first = model.answer(QUESTION, engine)
    num_towered = model.sight.num_towered
    second = model.answer(LATER, engine)
    request = model.request("r", LATER)
    places = [place for place, prefix_id in enumerate(request.prefix_ids) if prefix_id < 0]
    assert first.num_cached_tokens == 0
    assert second.num_cached_tokens > places[-1]
    assert model.sight.num_towered == num_towered
    assert second.agrees_with(model.expected(LATER))


def test_another_image_of_the_same_size_finds_nothing_of_the_first(model: SeeingModel) -> None:
    engine = model.engine()
    first, second = model.answer(QUESTION, engine), model.answer(OTHER, engine)
    one, other = model.request("a", QUESTION), model.request("b", OTHER)
    places = [place for place, prefix_id in enumerate(one.prefix_ids) if prefix_id < 0]
    # the tokens are the same to the last one: only what stands at their places differs
    assert one.prompt_token_ids == other.prompt_token_ids
    assert second.num_cached_tokens <= places[0]
    assert not first.agrees_with(second)
    assert second.agrees_with(model.expected(OTHER))


@pytest.mark.parametrize(
    "changes",
    [{"lookahead": Lookahead.OVERLAP}, {"lookahead": Lookahead.LAUNCH}, {"max_draft_tokens": 4}],
    ids=["built ahead", "launched ahead", "guessed ahead"],
)
def test_ahead_of_the_tokens_that_are_known(model: SeeingModel, changes: dict[str, Any]) -> None:
    asked = [QUESTION, TEXT, SEVERAL, OTHER]
    for each, answer in zip(asked, model.answers(asked, model.engine(**changes), every=2), strict=True):
        assert answer.agrees_with(model.expected(each))


def test_choices_share_the_prompt(model: SeeingModel) -> None:
    engine = model.engine()
    engine.add(model.request("r", QUESTION, num_choices=3))
    chosen: dict[int, list[int]] = {}
    while engine.has_work:
        for event in engine.step():
            chosen.setdefault(event.choice, []).append(event.chosen.token_id)  # type: ignore[union-attr]
    assert [tuple(tokens) for tokens in chosen.values()] == [model.expected(QUESTION).token_ids] * 3


def test_a_request_that_lost_its_place_goes_on_as_before(model: SeeingModel) -> None:
    asked = [SEVERAL, QUESTION, OTHER, TEXT]
    num_blocks = [-(-(len(model.request("r", each).prompt_token_ids) + NUM_TOKENS) // 32) for each in asked]
    engine = model.engine(num_blocks=max(num_blocks) + 1)
    for each, answer in zip(asked, model.answers(asked, engine), strict=True):
        assert answer.agrees_with(model.expected(each))
