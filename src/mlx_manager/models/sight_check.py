"""The check at load of a vision model: one image in a prompt, on the paged path and the library's own way."""

from __future__ import annotations

from typing import cast

import mlx.core as mx
import numpy as np
from PIL import Image

from mlx_manager.engine.runner import PagedRunner
from mlx_manager.engine.verify import ProbePrompt, Verdict, check_inputs
from mlx_manager.errors import InvalidRequest
from mlx_manager.models.images import DecodedImage, digest_of
from mlx_manager.models.language import LanguagePart
from mlx_manager.models.loading import LoadedModel
from mlx_manager.models.pieces import SeeingTokenizer
from mlx_manager.models.sight import SeenPrompt, Sight

_WIDTH, _HEIGHT = 72, 56
_SEED = 5
_ERRORS = (TypeError, ValueError, AttributeError, IndexError, KeyError, RuntimeError, InvalidRequest)


def check_sight(loaded: LoadedModel, runner: PagedRunner) -> Verdict:
    """Compare logits behind an image. Nothing else may run on `runner` meanwhile."""
    sight, language = cast(Sight, loaded.sight), cast(LanguagePart, loaded.model)
    try:
        probe = _probe(sight, language, cast(SeeingTokenizer, loaded.tokenizer))
    except _ERRORS as error:
        return Verdict(False, 0.0, f"its images cannot be embedded apart: {type(error).__name__}: {error}")
    if runner.max_blocks <= probe.num_blocks:
        return Verdict(False, 0.0, f"the KV budget has no room for the {len(probe.token_ids)} tokens of an image")
    return check_inputs(language, runner, probe, loaded.vocabulary_size)


def _probe(sight: Sight, language: LanguagePart, tokenizer: SeeingTokenizer) -> ProbePrompt:
    pixels = np.random.default_rng(_SEED).integers(0, 255, (_HEIGHT, _WIDTH, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    image = DecodedImage(picture, digest_of(picture))
    read = sight.read(tokenizer.render_image(), [image])
    seen = sight.assemble(read, [sight.look(image, read)])
    cache = language.make_cache()
    logits, later = sight.begin(read.token_ids, SeenPrompt((), read=read), cache)
    behind = logits[0, -1]
    token = mx.argmax(behind)
    after = language.language_model(token.reshape(1, 1), cache=cache, **later).logits[0, -1]
    mx.eval(behind, after)
    middle = read.places[len(read.places) // 2]
    return ProbePrompt((*read.token_ids, int(np.array(token))), seen, middle, (behind, after))
