"""A tiny vision model loaded with the worker's own code, asked through the engine and through mlx-vlm's generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx_vlm.utils
import numpy as np
from mlx_vlm.generate import generate_step
from PIL import Image

from mlx_manager.catalog import LoadOptions
from mlx_manager.engine.config import EngineConfig
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.requests import EngineRequest, TokenEvent
from mlx_manager.engine.runner import PagedRunner
from mlx_manager.engine.sequence import SamplingParams
from mlx_manager.hub.model_folder import read_entry
from mlx_manager.ir import ChatPrompt, Content, ImageContent, Message, Role, TextContent, VideoContent
from mlx_manager.models.images import DecodedImage, digest_of
from mlx_manager.models.loading import LoadedModel
from mlx_manager.models.pieces import SeeingTokenizer
from mlx_manager.models.prompt import PromptBuilder
from mlx_manager.models.sight import Embeddings, ReadPrompt, Sight
from mlx_manager.models.videos import DecodedVideo, Visual
from mlx_manager.models.vision import load_vision_model
from mlx_manager.worker.serving_path import choose_path
from tests.vision.zoo import write_model

NUM_TOKENS = 10
_GREEDY = SamplingParams(temperature=0.0, num_top_logprobs=0)


@dataclass(frozen=True)
class Answer:
    """Chosen tokens and their log-probabilities."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    num_cached_tokens: int = 0

    def agrees_with(self, other: Answer) -> bool:
        """Whether both chose the same tokens, and gave them nearly the same probability."""
        return self.token_ids == other.token_ids and bool(np.allclose(self.logprobs, other.logprobs, atol=2e-3))


def noise(seed: int, width: int, height: int) -> DecodedImage:
    """A picture of which no two are alike."""
    picture = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))
    return DecodedImage(picture, digest_of(picture))


def film(seed: int, num_frames: int, width: int, height: int) -> DecodedVideo:
    """A video of such pictures, of which every third was taken, twelve a second."""
    frames = [noise(1000 * seed + index, width, height).picture for index in range(num_frames)]
    return DecodedVideo.of(frames, [3 * index for index in range(num_frames)], 12.0)


@dataclass(frozen=True)
class Asked:
    """One user's message: texts, images and videos in their order."""

    pieces: tuple[str | Visual, ...]

    @property
    def visuals(self) -> list[Visual]:
        return [piece for piece in self.pieces if not isinstance(piece, str)]

    @property
    def num_stills(self) -> list[int]:
        return [len(piece.frames) for piece in self.pieces if isinstance(piece, DecodedVideo)]

    @property
    def prompt(self) -> ChatPrompt:
        def content(piece: str | Visual) -> Content:
            if isinstance(piece, str):
                return TextContent(piece)
            return ImageContent() if isinstance(piece, DecodedImage) else VideoContent()

        said = Message(role=Role.USER, content=tuple(content(piece) for piece in self.pieces))
        return ChatPrompt(messages=(said,))


class SeeingModel:
    """One model on the path that the worker chooses for it."""

    def __init__(self, folder: Path, model_type: str, runner: type[PagedRunner] = PagedRunner) -> None:
        write_model(folder, model_type)
        entry = read_entry(folder, model_type)
        options = LoadOptions(dtype="float32", kv_budget_bytes=32 * 1024**2)
        self.loaded: LoadedModel = load_vision_model(entry, options, lambda stage, fraction: None)
        self.sight = cast(Sight, self.loaded.sight)
        self.path = choose_path(self.loaded, options, entry, runner)
        self._tokenizer = cast(SeeingTokenizer, self.loaded.tokenizer)
        self._prompts = PromptBuilder(self.loaded.tokenizer, self.loaded.style.template, self.loaded.vocabulary_size)
        self._reference = mlx_vlm.utils.load_model(folder, lazy=True)
        self._processor = mlx_vlm.utils.load_processor(folder, add_detokenizer=False)

    def engine(self, **changes: Any) -> Engine:
        """An engine with nothing in its cache."""
        if isinstance(self.path.runner, PagedRunner):
            self.path.runner.reset()
        config = EngineConfig(
            num_blocks=96,
            has_prefix_cache=self.path.name == "paged",
            num_checkpoints=self.path.num_checkpoints,
            window=self.path.window,
            slots=self.path.slots,
        )
        return Engine(self.path.runner, replace(config, **changes))

    def request(self, request_id: str, asked: Asked, num_choices: int = 1) -> EngineRequest:
        """What the worker would hand to its engine."""
        built = self._prompts.build(self._marked(asked))
        whole = EngineRequest(
            request_id=request_id,
            prompt_token_ids=built.token_ids,
            params=(_GREEDY,) * num_choices,
            max_output_tokens=NUM_TOKENS,
        )
        shown = self.sight.shown(asked.visuals)
        if not shown:
            return whole
        read = self.sight.read(built.text, shown)
        seen = self.sight.assemble(read, [self._look(visual, read, len(shown)) for visual in shown])
        prefix_ids = read.token_ids
        if not self.sight.is_library:
            prefix_ids = self.sight.prefix_ids(read, shown, seen)
        return replace(whole, prompt_token_ids=read.token_ids, inputs=seen, prefix_ids=prefix_ids)

    def answer(self, asked: Asked, engine: Engine | None = None) -> Answer:
        """The engine's answer to one request alone."""
        return self.answers([asked], engine or self.engine())[0]

    def answers(self, asked: Sequence[Asked], engine: Engine, every: int = 1) -> list[Answer]:
        """The engine's answers to requests of which one joins every `every` steps."""
        waiting = [self.request(str(index), each) for index, each in enumerate(asked)]
        chosen: dict[str, list[TokenEvent]] = {}
        cached: dict[str, int] = {}
        num_steps = 0
        while waiting or engine.has_work:
            if waiting and num_steps % every == 0:
                engine.add(waiting.pop(0))
            num_steps += 1
            for event in engine.step():
                assert isinstance(event, TokenEvent)
                chosen.setdefault(event.request_id, []).append(event)
                if event.finish is not None:
                    cached[event.request_id] = engine.usage(event.request_id).num_cached_tokens
                    engine.forget(event.request_id)
        engine.scheduler.check_integrity()
        return [
            Answer(
                tuple(event.chosen.token_id for event in chosen[str(index)]),
                tuple(cast(float, event.chosen.logprob) for event in chosen[str(index)]),
                cached[str(index)],
            )
            for index in range(len(asked))
        ]

    def expected(self, asked: Asked) -> Answer:
        """mlx-vlm's own greedy generation, from its own processing of the same text and images."""
        text = self._prompts.build(self._marked(asked)).text
        shown = self.sight.shown(asked.visuals)
        pictures = [each.picture for each in shown if isinstance(each, DecodedImage)]
        videos = [each for each in shown if isinstance(each, DecodedVideo)]
        if videos:
            times = [{"total_num_frames": 0, "frames_indices": each.indices, "fps": each.fps} for each in videos]
            given = mlx_vlm.utils.prepare_inputs(
                self._processor,
                images=pictures or None,
                videos=[each.pixels for each in videos],
                video_metadata=times,
                prompts=text,
            )
        elif not pictures:
            given = {"input_ids": mx.array([self._processor.tokenizer(text, add_special_tokens=False).input_ids])}
        elif "llava" in type(self._processor).__name__.lower():
            # mlx-vlm's preparation hands options of the text to the image processor, which this transformers refuses
            given = dict(self._processor(text=[text], images=pictures))
        else:
            given = mlx_vlm.utils.prepare_inputs(self._processor, images=pictures, prompts=text)
        tokens = given.pop("input_ids")
        mask = given.pop("attention_mask", mx.ones_like(tokens))
        pixels = given.pop("pixel_values", None)
        if isinstance(pixels, list | np.ndarray) and len({np.shape(each) for each in pixels}) == 1:
            pixels = mx.array(np.asarray(pixels))
        steps = generate_step(
            mx.array(np.asarray(tokens)), self._reference, pixels, mask, temperature=0.0, max_tokens=NUM_TOKENS, **given
        )
        found = [(int(token), logprobs) for (token, logprobs), _ in zip(steps, range(NUM_TOKENS), strict=False)]
        return Answer(
            tuple(token for token, _ in found), tuple(float(logprobs[token].item()) for token, logprobs in found)
        )

    def _marked(self, asked: Asked) -> ChatPrompt:
        return self._tokenizer.marked(asked.prompt, None if self.sight.takes_videos else asked.num_stills)

    def _look(self, visual: Visual, read: ReadPrompt, num_shown: int) -> Embeddings:
        known = self.sight.find(visual)
        if known is not None:
            return known
        is_video = isinstance(visual, DecodedVideo)
        text = self._tokenizer.render_video() if is_video else self._tokenizer.render_image()
        return self.sight.look(visual, read if num_shown == 1 else self.sight.read(text, [visual]))
