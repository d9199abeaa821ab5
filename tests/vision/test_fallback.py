"""A vision model whose images the paged path does not carry is served through mlx-vlm's own, one at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx import nn

from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.batch import Segment
from mlx_manager.engine.plan import PassPlan
from mlx_manager.engine.probe import ModelCaches
from mlx_manager.engine.runner import PagedRunner, PassArguments, no_arguments
from tests.vision.seeing import SeeingModel
from tests.vision.test_equality import OTHER, QUESTION, SEVERAL, TEXT
from tests.vision.test_video_equality import VIDEO
from tests.vision.zoo import LIBRARY_WARNINGS, UNPAGED

pytestmark = LIBRARY_WARNINGS


class _Faulty(PagedRunner):
    """A runner whose model is given something else than it should."""

    def __init__(
        self,
        model: nn.Module,
        caches: ModelCaches,
        max_blocks: int,
        attention: DecodeAttention,
        arguments: PassArguments = no_arguments,
    ) -> None:
        self._right = arguments
        super().__init__(model, caches, max_blocks, attention, self.wrong)

    def wrong(self, segments: list[Segment], plan: PassPlan, tokens: mx.array) -> dict[str, Any]:
        raise NotImplementedError

    def right(self, segments: list[Segment], plan: PassPlan, tokens: mx.array) -> dict[str, Any]:
        return self._right(segments, plan, tokens)


class Blind(_Faulty):
    """Leaves the images of a prompt out."""

    def wrong(self, segments: list[Segment], plan: PassPlan, tokens: mx.array) -> dict[str, Any]:
        given = self.right(segments, plan, tokens)
        return {name: value for name, value in given.items() if name == "position_ids"}


class Flat(_Faulty):
    """Counts positions as if images were text."""

    def wrong(self, segments: list[Segment], plan: PassPlan, tokens: mx.array) -> dict[str, Any]:
        as_text = [replace(segment, inputs=None) for segment in segments]
        return self.right(segments, plan, tokens) | self.right(as_text, plan, tokens)


class Shallow(_Faulty):
    """Leaves out what is added behind the first layers."""

    def wrong(self, segments: list[Segment], plan: PassPlan, tokens: mx.array) -> dict[str, Any]:
        given = self.right(segments, plan, tokens)
        return {name: value for name, value in given.items() if name != "deepstack_visual_embeds"}


@pytest.mark.parametrize(
    ("model_type", "runner"),
    [("llava", Blind), ("qwen2_5_vl", Flat), ("qwen3_vl", Shallow), ("qwen3_vl", Flat), ("gemma3", Blind)],
)
def test_a_planted_fault_is_found_and_the_library_answers(
    tmp_path: Path, model_type: str, runner: type[PagedRunner]
) -> None:
    model = SeeingModel(tmp_path / model_type, model_type, runner)
    assert model.path.name == "sequential"
    assert "with an image differ from the library's" in model.path.reason
    asked = [QUESTION, TEXT, SEVERAL, VIDEO, OTHER]
    engine = model.engine(max_batch_size=1, max_step_tokens=2048)
    for each, answer in zip(asked, model.answers(asked, engine), strict=True):
        assert answer.agrees_with(model.expected(each))


@pytest.mark.parametrize("model_type", UNPAGED)
def test_what_the_paged_path_does_not_carry_is_left_to_the_library(tmp_path: Path, model_type: str) -> None:
    model = SeeingModel(tmp_path / model_type, model_type)
    assert model.path.name == "sequential"
    asked = [QUESTION, TEXT, SEVERAL, VIDEO, OTHER]
    engine = model.engine(max_batch_size=1, max_step_tokens=2048)
    for each, answer in zip(asked, model.answers(asked, engine), strict=True):
        assert answer.agrees_with(model.expected(each))
