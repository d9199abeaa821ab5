"""Videos are answered as mlx-vlm's own generation answers them: as videos, or as their frames in families without."""

from __future__ import annotations

import pytest

from tests.vision.seeing import Asked, SeeingModel, film
from tests.vision.test_equality import DOG, LEAD, QUESTION, TEXT
from tests.vision.zoo import LIBRARY_WARNINGS

pytestmark = LIBRARY_WARNINGS

FILM = film(4, 4, 70, 56)
VIDEO = Asked((FILM, f"{LEAD}What happens?"))
LATER = Asked((FILM, f"{LEAD}And who comes last?"))
OTHER = Asked((film(5, 4, 70, 56), f"{LEAD}What happens?"))
MIXED = Asked(("First ", DOG, " and then ", FILM, "Compare them."))
WITH_VIDEOS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5")


@pytest.fixture(scope="module", params=[*WITH_VIDEOS, "smolvlm"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SeeingModel:
    loaded = SeeingModel(tmp_path_factory.mktemp("models") / request.param, request.param)
    assert loaded.path.name == "paged", loaded.path.reason
    assert loaded.sight.takes_videos == (request.param in WITH_VIDEOS)
    return loaded


def test_cut_into_chunks_among_texts_and_images(model: SeeingModel) -> None:
    asked = [TEXT, VIDEO, QUESTION, OTHER]
    found = model.answers(asked, model.engine(max_step_tokens=16, max_batch_size=4), every=2)
    for each, answer in zip(asked, found, strict=True):
        assert answer.agrees_with(model.expected(each))


def test_a_second_question_about_a_video_finds_it_computed(model: SeeingModel) -> None:
    # where layers are recurrent, a prefix is found at the ends of chunks
    engine = model.engine(max_step_tokens=32)
    first = model.answer(VIDEO, engine)
    num_towered = model.sight.num_towered
    second = model.answer(LATER, engine)
    assert model.sight.num_towered == num_towered
    other = model.answer(OTHER, engine)
    places = [place for place, prefix_id in enumerate(model.request("r", LATER).prefix_ids) if prefix_id < 0]
    assert first.num_cached_tokens == 0
    assert second.num_cached_tokens > places[-1]
    assert other.num_cached_tokens <= places[0]
    assert second.agrees_with(model.expected(LATER))
    assert other.agrees_with(model.expected(OTHER))


def test_an_image_beside_a_video(model: SeeingModel) -> None:
    answer = model.answer(MIXED)
    if model.sight.takes_videos and not hasattr(model.loaded.model.language_model.model, "_deepstack_process"):
        # mlx-vlm's own code shows these families one of the two; ours has to see both
        without = [Asked(tuple(each for each in MIXED.pieces if each is not left)) for left in (DOG, FILM)]
        assert not any(answer.agrees_with(model.answer(each)) for each in without)
    else:
        assert answer.agrees_with(model.expected(MIXED))
