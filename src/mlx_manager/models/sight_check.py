"""The check at load of a vision model: an image in a prompt, then a video, paged and the library's own way."""

from __future__ import annotations

from typing import cast

import mlx.core as mx
import numpy as np
from PIL import Image

from mlx_manager.engine.runner import PagedRunner
from mlx_manager.engine.verdict import MODEL_ERRORS, Verdict
from mlx_manager.engine.verify import ProbePrompt, check_inputs
from mlx_manager.errors import InvalidRequest
from mlx_manager.models.images import DecodedImage, digest_of
from mlx_manager.models.language import LanguagePart
from mlx_manager.models.loading import LoadedModel
from mlx_manager.models.pieces import SeeingTokenizer
from mlx_manager.models.sight import SeenPrompt, Sight
from mlx_manager.models.videos import DecodedVideo, Visual

_WIDTH, _HEIGHT = 72, 56
_NUM_FRAMES = 4
_SEED = 5


def check_sight(loaded: LoadedModel, runner: PagedRunner) -> Verdict:
    """Compare logits behind an image, and behind a video. Nothing else may run on `runner` meanwhile."""
    sight, tokenizer = cast(Sight, loaded.sight), cast(SeeingTokenizer, loaded.tokenizer)
    pixels = np.random.default_rng(_SEED).integers(0, 255, (_NUM_FRAMES, _HEIGHT, _WIDTH, 3), dtype=np.uint8)
    frames = [Image.fromarray(frame) for frame in pixels]
    verdict = _check(loaded, runner, DecodedImage(frames[0], digest_of(frames[0])), tokenizer.render_image())
    if verdict.is_equal and sight.takes_videos:
        video = DecodedVideo.of(frames, range(_NUM_FRAMES), 2.0)
        behind_video = _check(loaded, runner, video, tokenizer.render_video())
        verdict = verdict if behind_video.is_equal else behind_video
    return verdict


def _check(loaded: LoadedModel, runner: PagedRunner, visual: Visual, text: str) -> Verdict:
    sight, language = cast(Sight, loaded.sight), cast(LanguagePart, loaded.model)
    noun = "video" if isinstance(visual, DecodedVideo) else "image"
    try:
        probe = _probe(sight, language, visual, text)
    except (*MODEL_ERRORS, InvalidRequest) as error:
        return Verdict.of_error(error, f"its {noun}s cannot be embedded apart")
    if runner.max_blocks <= probe.num_blocks:
        reason = f"the KV budget has no room for the {len(probe.token_ids)} tokens of a {noun}"
        return Verdict(False, 0.0, reason, is_final=False)
    return check_inputs(language, runner, probe, loaded.vocabulary_size, noun=noun)


def _probe(sight: Sight, language: LanguagePart, visual: Visual, text: str) -> ProbePrompt:
    read = sight.read(text, [visual])
    seen = sight.assemble(read, [sight.look(visual, read)])
    cache = language.make_cache()
    logits, later = sight.begin(read.token_ids, SeenPrompt((), read=read), cache)
    behind = logits[0, -1]
    token = mx.argmax(behind)
    after = language.language_model(token.reshape(1, 1), cache=cache, **later).logits[0, -1]
    mx.eval(behind, after)
    middle = read.places[len(read.places) // 2]
    return ProbePrompt((*read.token_ids, int(np.array(token))), seen, middle, (behind, after))
