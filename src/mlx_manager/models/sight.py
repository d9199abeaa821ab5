"""What makes a language model see: images and videos to embeddings, prompts with places for them, both to a pass.

The vision tower runs once per image. Its embeddings are kept by the digest of the image, the least recently used go
first, and a request holds those of its own images until it ends. A video is one image here, where a family has videos.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn

from mlx_manager.engine.batch import Segment
from mlx_manager.engine.plan import PassPlan
from mlx_manager.engine.prefix import content_id
from mlx_manager.errors import InvalidRequest
from mlx_manager.models.families.vision import TOKEN_FIELDS, VIDEO_TOKEN_FIELD, has_bare_processor, takes_videos
from mlx_manager.models.images import DecodedImage
from mlx_manager.models.language import LanguagePart
from mlx_manager.models.videos import DecodedVideo, Visual

_TEXT_ARRAYS = ("input_ids", "attention_mask")
_TOKEN_ARRAYS = ("token_type_ids", "mm_token_type_ids")
"""What a processor says of each token; all but these and the text's own is of the images."""
_REFUSALS = (ValueError, TypeError, IndexError, KeyError, AttributeError, RuntimeError, StopIteration)
"""What a processor raises for images or a text that it cannot take."""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """One image or video as the language model takes it."""

    rows: mx.array
    """[n, hidden] what stands at the places of its tokens."""
    layers: tuple[mx.array, ...] = ()
    """[n, hidden] each: what is added to the hidden states behind the first layers (DeepStack)."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self.rows.nbytes) + sum(int(layer.nbytes) for layer in self.layers)


@dataclass(frozen=True, eq=False)
class ReadPrompt:
    """A prompt as the processor read it: the tokens, and what the tower needs of all its images."""

    token_ids: tuple[int, ...]
    places: tuple[int, ...]
    """Positions of the tokens that images stand for, in order."""
    arrays: dict[str, Any]
    """Everything else, by the names under which the library's own calls take it."""


@dataclass(frozen=True, eq=False)
class SeenPrompt:
    """What stands in a prompt besides its tokens."""

    images: tuple[tuple[np.ndarray, Embeddings], ...]
    """(positions, embeddings) of each."""
    positions: np.ndarray | None = None
    """[3, prompt] where the model has positions in three dimensions."""
    delta: int = 0
    """What is added to the index of a token behind the prompt, to have its position."""
    read: ReadPrompt | None = None
    """What the library's own path begins with; only where that is taken."""


class EmbeddingCache:
    """The embeddings of the images seen last, at most `max_bytes` of them."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._kept: OrderedDict[bytes, Embeddings] = OrderedDict()
        self.nbytes = 0

    def get(self, digest: bytes) -> Embeddings | None:
        """Those of the image with this digest, which become the last to go."""
        found = self._kept.get(digest)
        if found is not None:
            self._kept.move_to_end(digest)
        return found

    def put(self, digest: bytes, embeddings: Embeddings) -> None:
        """Keep them, if they fit at all."""
        if digest in self._kept or embeddings.nbytes > self.max_bytes:
            return
        self._kept[digest] = embeddings
        self.nbytes += embeddings.nbytes
        while self.nbytes > self.max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self.nbytes -= oldest.nbytes


class Sight:
    """The tower and the processor of one vision model. Everything is called from the thread that owns the device."""

    def __init__(self, model: nn.Module, processor: Any, language: LanguagePart, *, cache_bytes: int) -> None:
        self._model = model
        self._processor = processor
        self._language = language
        self._cache = EmbeddingCache(cache_bytes)
        self.num_towered = 0
        """Images that went through the tower."""
        config = model.config
        token_ids = [getattr(config, field, None) for field in TOKEN_FIELDS]
        self.image_token_id: int | None = next((token_id for token_id in token_ids if token_id is not None), None)
        tokenizer = getattr(processor, "tokenizer", processor)
        self._tokenizer = tokenizer
        self._adds_special_tokens = bool(tokenizer("").input_ids)
        model_type = str(getattr(config, "model_type", ""))
        self._is_bare = has_bare_processor(model_type)
        self.video_token_id: int | None = getattr(config, VIDEO_TOKEN_FIELD, None) if takes_videos(model_type) else None
        self._places = frozenset({self.image_token_id, self.video_token_id} - {None})
        self._takes_times = "video_metadata" in inspect.signature(processor.__call__).parameters

    @property
    def is_library(self) -> bool:
        """Whether prompts go the library's own way, so that nothing is embedded beforehand."""
        return self._language.is_library

    def leave_to_library(self) -> None:
        """From now on they do: the path is chosen."""
        self._language.is_library = True

    @property
    def takes_videos(self) -> bool:
        """Whether a video is shown as one; else its frames are, as images."""
        return self.video_token_id is not None

    @property
    def tokens(self) -> tuple[str, ...]:
        """How the tokens of images, and of videos, are written; they may not stand in what people say."""
        known = (self.image_token_id, self.video_token_id)
        return tuple(str(self._tokenizer.convert_ids_to_tokens(token)) for token in known if token is not None)

    def shown(self, visuals: Sequence[Visual]) -> tuple[Visual, ...]:
        """What the model is shown of them: videos as they are, or their frames."""
        if self.takes_videos:
            return tuple(visuals)
        split = (each.stills if isinstance(each, DecodedVideo) else (each,) for each in visuals)
        return tuple(still for stills in split for still in stills)

    def read(self, text: str, visuals: Sequence[Visual]) -> ReadPrompt:
        """The tokens of a rendered prompt with `visuals` in it, as `shown` has them. Raises `InvalidRequest`."""
        begins = self._adds_special_tokens and text.startswith(self._tokenizer.bos_token or "\0")
        named: dict[str, Any] = {} if self._is_bare else {"padding": True, "return_tensors": "mlx"}
        if begins:
            # the template spells them itself
            named["add_special_tokens"] = False
        images = [each.picture for each in visuals if isinstance(each, DecodedImage)]
        videos = [each for each in visuals if isinstance(each, DecodedVideo)]
        if images:
            named["images"] = images
        if videos:
            named["videos"] = [video.pixels for video in videos]
            if self._takes_times:
                # some write into the prompt when each frame was
                named["video_metadata"] = [{"frames_indices": video.indices, "fps": video.fps} for video in videos]
        try:
            given = self._processor(text=[text], **named)
        except _REFUSALS as error:
            raise InvalidRequest(
                f"The model's processor cannot take the images as they stand in the messages: {error}", param="messages"
            ) from error
        token_ids = tuple(int(token_id) for token_id in np.array(given["input_ids"]).reshape(-1))
        arrays = {name: _as_array(value) for name, value in given.items() if name not in _TEXT_ARRAYS}
        places = tuple(index for index, token_id in enumerate(token_ids) if token_id in self._places)
        return ReadPrompt(token_ids, places, {name: value for name, value in arrays.items() if value is not None})

    def forget(self) -> None:
        """Give up what is kept of images; running requests hold their own."""
        self._cache = EmbeddingCache(self._cache.max_bytes)

    def find(self, visual: Visual) -> Embeddings | None:
        """The embeddings of what was seen before and is still known."""
        return self._cache.get(visual.digest)

    def look(self, visual: Visual, read: ReadPrompt) -> Embeddings:
        """Pass one image or video through the tower. `read` is of a prompt with it alone. Raises `InvalidRequest`."""
        if not read.places:
            raise InvalidRequest("The chat template of this model leaves the image out.", param="messages")
        tokens = mx.array([[read.token_ids[place] for place in read.places]], dtype=mx.int32)
        of_image = {name: value for name, value in read.arrays.items() if name not in _TOKEN_ARRAYS}
        found = self._embed(tokens, of_image)
        layers = getattr(found, "deepstack_visual_embeds", None)
        embeddings = Embeddings(found.inputs_embeds[0], () if layers is None else tuple(layers))
        mx.eval(embeddings.rows, *embeddings.layers)
        self.num_towered += 1
        self._cache.put(visual.digest, embeddings)
        return embeddings

    def assemble(self, read: ReadPrompt, embeddings: Sequence[Embeddings]) -> SeenPrompt:
        """Put the embeddings of the images of a prompt into their places. Raises `InvalidRequest`."""
        if self._language.is_library:
            return SeenPrompt((), read=read)
        images, begin = [], 0
        for image in embeddings:
            end = begin + image.rows.shape[0]
            images.append((np.array(read.places[begin:end], dtype=np.int64), image))
            begin = end
        if begin != len(read.places):
            raise InvalidRequest(
                f"The prompt has places for {len(read.places)} embeddings, and the images have {begin}: leave "
                f"{' and '.join(map(repr, self.tokens))} out of the text, and images where this model takes none.",
                param="messages",
            )
        positions, delta = self._positions(read)
        return SeenPrompt(tuple(images), positions, delta)

    def prefix_ids(self, read: ReadPrompt, images: Sequence[Visual], seen: SeenPrompt) -> tuple[int, ...]:
        """The tokens of a prompt with each image told apart from every other."""
        ids = list(read.token_ids)
        for image, (places, _) in zip(images, seen.images, strict=True):
            for index, place in enumerate(places):
                ids[place] = content_id(image.digest, index)
        return tuple(ids)

    def arguments(self, segments: list[Segment], plan: PassPlan, tokens: mx.array) -> dict[str, Any]:
        """As `engine.runner.PassArguments` says."""
        given: dict[str, Any] = {}
        shape = (1, plan.num_rows) if plan.is_sequence else (plan.num_rows, 1)
        if self._language.has_positions:
            positions = np.concatenate([_positions_of(segment) for segment in segments], axis=1)
            given["position_ids"] = mx.array(positions.astype(np.int32)).reshape(3, *shape)
        rows, found = _rows_of_images(segments)
        if not found:
            return given
        places = mx.array(np.concatenate(rows).astype(np.int32))
        embedded, given_tokens = self._embed_text(tokens)
        given |= given_tokens
        embedded = embedded.reshape(plan.num_rows, -1)
        embedded[places] = mx.concatenate([part.rows for part in found]).astype(embedded.dtype)
        given["inputs_embeds"] = embedded.reshape(*shape, -1)
        if found[0].layers:
            given["deepstack_visual_embeds"] = [
                _scattered(places, [part.layers[layer] for part in found], embedded).reshape(*shape, -1)
                for layer in range(len(found[0].layers))
            ]
        return given

    def begin(
        self, token_ids: Sequence[int], inputs: object | None, cache: list[Any]
    ) -> tuple[mx.array, dict[str, Any]]:
        """A whole prompt the library's own way: its logits, and what every later call of it is given."""
        tokens = mx.array([list(token_ids)])
        arrays = inputs.read.arrays if isinstance(inputs, SeenPrompt) and inputs.read is not None else {}
        found = self._embed(tokens, arrays)
        named = arrays | {name: value for name, value in found.to_dict().items() if value is not None}
        embedded = named.pop("inputs_embeds")
        for pixels in ("pixel_values", "pixel_values_videos"):
            named.pop(pixels, None)
        answer = self._language.language_model(tokens, inputs_embeds=embedded, cache=cache, **named)
        later: dict[str, Any] = {}
        if answer.cross_attention_states is not None:
            later["cross_attention_states"] = answer.cross_attention_states
        return answer.logits, later

    def _embed_text(self, tokens: mx.array) -> tuple[mx.array, dict[str, mx.array]]:
        """The embeddings of `tokens` as the family scales them, and what it hands on with them."""
        if self._language.has_positions:
            return self._language.embed(tokens), {}
        found = self._model.get_input_embeddings(tokens, None)
        per_layer = getattr(found, "per_layer_inputs", None)
        return found.inputs_embeds, {} if per_layer is None else {"per_layer_inputs": per_layer}

    def _embed(self, tokens: mx.array, arrays: dict[str, Any]) -> Any:
        named = dict(arrays)
        pixels = named.pop("pixel_values", None)
        return self._model.get_input_embeddings(tokens, pixels, mask=mx.ones_like(tokens), **named)

    def _positions(self, read: ReadPrompt) -> tuple[np.ndarray | None, int]:
        if not self._language.has_positions:
            return None, 0
        grids = {name: read.arrays[name] for name in ("image_grid_thw", "video_grid_thw") if name in read.arrays}
        found, deltas = self._language.language_model.get_rope_index(mx.array([read.token_ids]), **grids)
        positions = np.array(found).reshape(-1, len(read.token_ids))
        if positions.shape[0] == 1:
            positions = np.repeat(positions, 3, axis=0)
        return positions, int(np.array(deltas).reshape(-1)[0])


def _positions_of(segment: Segment) -> np.ndarray:
    """[3, tokens] the positions of one segment."""
    indices = np.arange(segment.start, segment.end)
    seen = segment.inputs
    if not isinstance(seen, SeenPrompt) or seen.positions is None:
        return np.broadcast_to(indices, (3, len(indices)))
    num_prompt_tokens = seen.positions.shape[1]
    inside = seen.positions[:, segment.start : segment.end]
    behind = np.broadcast_to(indices[indices >= num_prompt_tokens] + seen.delta, (3, len(indices) - inside.shape[1]))
    return np.concatenate([inside, behind], axis=1)


def _rows_of_images(segments: list[Segment]) -> tuple[list[np.ndarray], list[Embeddings]]:
    """The rows of a pass that hold an image, and what they hold."""
    rows, found, first = [], [], 0
    for segment in segments:
        for places, image in segment.inputs.images if isinstance(segment.inputs, SeenPrompt) else ():
            begin, end = np.searchsorted(places, (segment.start, segment.end))
            if begin < end:
                rows.append(first + places[begin:end] - segment.start)
                part = slice(int(begin), int(end))
                found.append(Embeddings(image.rows[part], tuple(layer[part] for layer in image.layers)))
        first += segment.num_tokens
    return rows, found


def _scattered(places: mx.array, parts: list[mx.array], like: mx.array) -> mx.array:
    whole = mx.zeros_like(like)
    whole[places] = mx.concatenate(parts).astype(like.dtype)
    return whole


def _as_array(value: Any) -> Any:
    """An array of MLX, where it is one of numpy or a list of equal ones."""
    if value is None or isinstance(value, mx.array | str):
        return value
    if isinstance(value, list) and len({np.shape(entry) for entry in value}) > 1:
        return [mx.array(np.asarray(entry)) for entry in value]
    return mx.array(np.asarray(value))
