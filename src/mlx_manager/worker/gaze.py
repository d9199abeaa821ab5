"""Requests with images, from their files to prompts that the engine takes.

Files are decoded in threads of their own. What the device computes is done here between two steps of the engine, at
most one image at a time, so that running answers wait for no more than that.
"""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from mlx_manager.errors import GenerationFailed, InvalidRequest, MlxManagerError
from mlx_manager.ipc import RequestFailed
from mlx_manager.ir import ChatPrompt, GenerationRequest, ImageContent, Prompt
from mlx_manager.models.images import DecodedImage, ImageLimits, decode_images
from mlx_manager.models.pieces import SeeingTokenizer
from mlx_manager.models.prompt import BuiltPrompt, PromptBuilder
from mlx_manager.models.sight import Embeddings, ReadPrompt, SeenPrompt, Sight

_NUM_DECODERS = 2
_DECODE_WAIT_S = 0.005
_TOWER_ERRORS = (TypeError, ValueError, AttributeError, IndexError, KeyError, RuntimeError)
"""What a model's own code raises for an image that it cannot take."""


@dataclass(frozen=True)
class SeenRequest:
    """A request whose images have been seen."""

    request: GenerationRequest
    built: BuiltPrompt
    inputs: SeenPrompt
    prefix_ids: tuple[int, ...]


@dataclass
class _Pending:
    request: GenerationRequest
    decoding: Future[tuple[DecodedImage, ...]]
    text: str = ""
    read: ReadPrompt | None = None
    embeddings: list[Embeddings] = field(default_factory=list)


class Gaze:
    """Everything but the decoding of files is called from the thread that owns the device."""

    def __init__(self, sight: Sight, tokenizer: SeeingTokenizer, prompts: PromptBuilder, limits: ImageLimits) -> None:
        self._sight = sight
        self._tokenizer = tokenizer
        self._prompts = prompts
        self._limits = limits
        self._decoders = ThreadPoolExecutor(_NUM_DECODERS, thread_name_prefix="images")
        self._pending: dict[str, _Pending] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._pending

    def add(self, request: GenerationRequest) -> None:
        """Begin with a request that has images. Raises `InvalidRequest` for a text that spells the token of images."""
        _check_texts(request.prompt, self._sight.image_token)
        decoding = self._decoders.submit(decode_images, images_of(request.prompt), self._limits)
        self._pending[request.request_id] = _Pending(request, decoding)

    def abort(self, request_id: str) -> None:
        """Forget a request."""
        pending = self._pending.pop(request_id, None)
        if pending is not None:
            pending.decoding.cancel()

    def step(self, *, is_idle: bool) -> list[SeenRequest | RequestFailed]:
        """Go on with the first request whose files are decoded; at most one image passes the tower.

        Where `is_idle`, the engine has nothing to do, and this waits a moment for a file.
        """
        if is_idle:
            futures = [pending.decoding for pending in self._pending.values()]
            wait(futures, timeout=_DECODE_WAIT_S, return_when=FIRST_COMPLETED)
        pending = next((each for each in self._pending.values() if each.decoding.done()), None)
        if pending is None:
            return []
        try:
            seen = self._go_on(pending)
        except MlxManagerError as error:
            return [self._failed(pending, error)]
        except _TOWER_ERRORS as error:
            return [self._failed(pending, GenerationFailed(f"an image could not be embedded: {error}"))]
        if seen is None:
            return []
        del self._pending[pending.request.request_id]
        return [seen]

    def _go_on(self, pending: _Pending) -> SeenRequest | None:
        images = pending.decoding.result()
        if pending.read is None:
            prompt = pending.request.prompt
            assert isinstance(prompt, ChatPrompt)
            pending.text = self._prompts.build(self._tokenizer.marked(prompt)).text
            pending.read = self._sight.read(pending.text, images)
        read = pending.read
        if not self._sight.is_library:
            while len(pending.embeddings) < len(images):
                image = images[len(pending.embeddings)]
                known = self._sight.find(image)
                if known is None:
                    alone = read if len(images) == 1 else self._sight.read(self._tokenizer.render_image(), [image])
                    pending.embeddings.append(self._sight.look(image, alone))
                    if len(pending.embeddings) < len(images):
                        return None
                else:
                    pending.embeddings.append(known)
        inputs = self._sight.assemble(read, pending.embeddings)
        built = BuiltPrompt(read.token_ids, pending.text)
        prefix_ids = read.token_ids if self._sight.is_library else self._sight.prefix_ids(read, images, inputs)
        return SeenRequest(pending.request, built, inputs, prefix_ids)

    def _failed(self, pending: _Pending, error: MlxManagerError) -> RequestFailed:
        del self._pending[pending.request.request_id]
        return RequestFailed(pending.request.request_id, error.as_info())


def images_of(prompt: Prompt) -> tuple[ImageContent, ...]:
    """All images of a prompt, in order."""
    if not isinstance(prompt, ChatPrompt):
        return ()
    return tuple(image for message in prompt.messages for image in message.images)


def _check_texts(prompt: Prompt, image_token: str) -> None:
    assert isinstance(prompt, ChatPrompt)
    for index, message in enumerate(prompt.messages):
        if image_token and image_token in message.text:
            raise InvalidRequest(
                f"messages[{index}] says {image_token!r}, which stands for an image with this model: leave it out, or "
                "send no images.",
                param=f"messages[{index}]",
            )
