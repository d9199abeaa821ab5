"""Images and the chunks of prompts take turns: neither keeps the other from its first token for long."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from mlx_manager.catalog import LoadOptions
from mlx_manager.ipc import FromWorker, StepDone
from mlx_manager.ir import (
    ChatPrompt,
    Content,
    Finished,
    GenerationRequest,
    ImageContent,
    Message,
    Role,
    Sampling,
    TextContent,
)
from mlx_manager.worker.serving import Serving
from tests.vision.seeing import SeeingModel, noise
from tests.vision.zoo import LIBRARY_WARNINGS

pytestmark = LIBRARY_WARNINGS

NUM_STEP_TOKENS = 24
QUESTION = TextContent("And what is it that you can see in there, when you look at every corner of it?")


class Turns:
    """A model being served in small steps, and how many images it had seen when each request had its first token."""

    def __init__(self, folder: Path) -> None:
        self.model = SeeingModel(folder, "llava")
        engine = self.model.engine(max_step_tokens=NUM_STEP_TOKENS, max_batch_size=8)
        self.serving = Serving(self.model.loaded, engine, LoadOptions())
        self.serving.publish = self._take
        self.num_seen: dict[str, int] = {}

    def submit(self, request_id: str, *content: Content) -> None:
        request = GenerationRequest(
            request_id=request_id,
            model="llava",
            prompt=ChatPrompt(messages=(Message(role=Role.USER, content=content),)),
            sampling=Sampling(max_tokens=1, temperature=0.0, ignore_eos=True),
        )
        assert self.serving.submit(request) is None

    def run(self) -> dict[str, int]:
        self.num_seen.clear()
        num_before = self.model.sight.num_towered
        while self.serving.has_work:
            self.serving.step()
        return {request_id: num_seen - num_before for request_id, num_seen in self.num_seen.items()}

    def _take(self, message: FromWorker) -> None:
        assert isinstance(message, StepDone)
        for delta in message.deltas:
            if any(isinstance(event, Finished) for event in delta.events):
                self.num_seen.setdefault(delta.request_id, self.model.sight.num_towered)


@pytest.fixture(scope="module")
def turns(tmp_path_factory: pytest.TempPathFactory) -> Turns:
    return Turns(tmp_path_factory.mktemp("models") / "llava")


def picture(seed: int) -> ImageContent:
    buffer = io.BytesIO()
    noise(seed, 56, 56).picture.save(buffer, "PNG")
    return ImageContent(data=buffer.getvalue())


def test_a_prompt_in_chunks_waits_for_no_other_image(turns: Turns) -> None:
    for number in range(4):
        turns.submit(f"r{number}", picture(number), QUESTION)
    # in which order their files are decoded is left to two threads
    assert sorted(turns.run().values()) == [1, 2, 3, 4]


def test_an_image_waits_for_no_long_prompt(turns: Turns) -> None:
    turns.submit("text", TextContent("word " * 120))
    turns.submit("image", picture(9), QUESTION)
    assert turns.run() == {"text": 1, "image": 1}
