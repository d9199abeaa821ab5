"""Requests with images or videos, from their files to prompts that the engine takes.

Files are decoded in threads of their own, videos one after the other. What the device computes is done here between two
steps of the engine, at most one image at a time, so that running answers wait for no more than that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice

from mlx_manager.errors import GenerationFailed, InvalidRequest, MlxManagerError
from mlx_manager.ipc import RequestFailed
from mlx_manager.ir import ChatPrompt, GenerationRequest, ImageContent, Prompt, VideoContent
from mlx_manager.models.pieces import SeeingTokenizer
from mlx_manager.models.prompt import BuiltPrompt, PromptBuilder
from mlx_manager.models.sight import Embeddings, ReadPrompt, SeenPrompt, Sight
from mlx_manager.models.videos import DecodedVideo, Visual
from mlx_manager.worker.videos import VisualLimits, decode_visuals

_NUM_DECODERS = 2
_NUM_AHEAD = 2
"""Requests whose files are decoded before it is their turn: pictures take much more room than files, and so many
are counted in the plan of the memory."""
_DECODE_WAIT_S = 0.005
_log = logging.getLogger("mlx_manager.worker")


@dataclass(frozen=True)
class SeenRequest:
    """A request whose images and videos have been seen."""

    request: GenerationRequest
    built: BuiltPrompt
    inputs: SeenPrompt
    prefix_ids: tuple[int, ...]


CheckLength = Callable[[GenerationRequest, int], object]
"""Takes a request and the tokens of its prompt; raises where they do not fit."""


@dataclass
class _Pending:
    request: GenerationRequest
    decoding: Future[tuple[Visual, ...]] | None = None
    shown: tuple[Visual, ...] = ()
    """As the model is shown them. Set with `read`."""
    text: str = ""
    read: ReadPrompt | None = None
    embeddings: list[Embeddings] = field(default_factory=list)


class Gaze:
    """Everything but the decoding of files is called from the thread that owns the device."""

    def __init__(
        self,
        sight: Sight,
        tokenizer: SeeingTokenizer,
        prompts: PromptBuilder,
        limits: VisualLimits,
        check_length: CheckLength,
        *,
        max_context: int,
    ) -> None:
        self._sight = sight
        self._check_length = check_length
        self._max_context = max_context
        self._tokenizer = tokenizer
        self._prompts = prompts
        self._limits = limits
        self._decoders = ThreadPoolExecutor(_NUM_DECODERS, thread_name_prefix="images")
        self._video_decoders = ThreadPoolExecutor(1, thread_name_prefix="videos")
        self._pending: dict[str, _Pending] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._pending

    def add(self, request: GenerationRequest) -> None:
        """Begin with a request that shows something. Raises `InvalidRequest` for a text that spells a token of it."""
        _check_texts(request.prompt, self._sight.tokens)
        self._pending[request.request_id] = _Pending(request)
        self._decode_ahead()

    def read(self, prompt: ChatPrompt) -> tuple[int, ...]:
        """The tokens of a prompt with images, at once and without looking at them. Raises `InvalidRequest`."""
        _check_texts(prompt, self._sight.tokens)
        visuals = self._decode(prompt)
        return self._sight.read(self._render(prompt, visuals), self._sight.shown(visuals)).token_ids

    def abort(self, request_id: str) -> None:
        """Forget a request."""
        pending = self._pending.pop(request_id, None)
        if pending is not None and pending.decoding is not None:
            pending.decoding.cancel()

    def step(self, *, is_idle: bool) -> list[SeenRequest | RequestFailed]:
        """Go on with the first request whose files are decoded; at most one image passes the tower.

        Where `is_idle`, the engine has nothing to do, and this waits a moment for a file.
        """
        running = [each for each in self._pending.values() if each.decoding is not None]
        self._decode_ahead()
        if is_idle:
            futures = [each.decoding for each in running if each.decoding is not None]
            wait(futures, timeout=_DECODE_WAIT_S, return_when=FIRST_COMPLETED)
        decoded = ((each, each.decoding) for each in running if each.decoding is not None and each.decoding.done())
        pending, decoding = next(decoded, (None, None))
        if pending is None or decoding is None:
            return []
        try:
            seen = self._go_on(pending, decoding.result())
        except MlxManagerError as error:
            return [self._failed(pending, error)]
        except Exception as error:
            # The request's edge: a model's own code may raise anything, and only this request may suffer.
            _log.exception("request %s failed over its images", pending.request.request_id)
            reason = f"an image could not be embedded: {type(error).__name__}"
            return [self._failed(pending, GenerationFailed(reason))]
        if seen is None:
            return []
        del self._pending[pending.request.request_id]
        return [seen]

    def _decode_ahead(self) -> None:
        for pending in islice(self._pending.values(), _NUM_AHEAD):
            if pending.decoding is None:
                visuals = visuals_of(pending.request.prompt)
                has_videos = any(isinstance(each, VideoContent) for each in visuals)
                decoders = self._video_decoders if has_videos else self._decoders
                pending.decoding = decoders.submit(self._decode, pending.request.prompt)

    def _decode(self, prompt: Prompt) -> tuple[Visual, ...]:
        """Also refuses a text that is far too long, which is found out here because it takes a while."""
        assert isinstance(prompt, ChatPrompt)
        self._prompts.check_length(prompt, self._max_context)
        return decode_visuals(visuals_of(prompt), self._limits)

    def _render(self, prompt: ChatPrompt, visuals: tuple[Visual, ...]) -> str:
        """The text of a prompt, with places for what the model is shown of `visuals`."""
        stills = None
        if not self._sight.takes_videos:
            stills = [len(each.frames) for each in visuals if isinstance(each, DecodedVideo)]
        return self._prompts.render(self._tokenizer.marked(prompt, stills)).text

    def _go_on(self, pending: _Pending, visuals: tuple[Visual, ...]) -> SeenRequest | None:
        if pending.read is None:
            prompt = pending.request.prompt
            assert isinstance(prompt, ChatPrompt)
            pending.text = self._render(prompt, visuals)
            pending.shown = self._sight.shown(visuals)
            pending.read = self._sight.read(pending.text, pending.shown)
            # before the tower works for nothing
            self._check_length(pending.request, len(pending.read.token_ids))
        read, shown = pending.read, pending.shown
        if not self._sight.is_library:
            while len(pending.embeddings) < len(shown):
                visual = shown[len(pending.embeddings)]
                known = self._sight.find(visual)
                if known is None:
                    alone = read if len(shown) == 1 else self._read_alone(visual)
                    pending.embeddings.append(self._sight.look(visual, alone))
                    if len(pending.embeddings) < len(shown):
                        return None
                else:
                    pending.embeddings.append(known)
        inputs = self._sight.assemble(read, pending.embeddings)
        built = BuiltPrompt(read.token_ids, pending.text)
        prefix_ids = read.token_ids if self._sight.is_library else self._sight.prefix_ids(read, shown, inputs)
        return SeenRequest(pending.request, built, inputs, prefix_ids)

    def _read_alone(self, visual: Visual) -> ReadPrompt:
        is_video = isinstance(visual, DecodedVideo)
        return self._sight.read(
            self._tokenizer.render_video() if is_video else self._tokenizer.render_image(), [visual]
        )

    def _failed(self, pending: _Pending, error: MlxManagerError) -> RequestFailed:
        del self._pending[pending.request.request_id]
        return RequestFailed(pending.request.request_id, error.as_info())


def visuals_of(prompt: Prompt) -> tuple[ImageContent | VideoContent, ...]:
    """All images and videos of a prompt, in order."""
    if not isinstance(prompt, ChatPrompt):
        return ()
    return tuple(visual for message in prompt.messages for visual in message.visuals)


def _check_texts(prompt: Prompt, tokens: tuple[str, ...]) -> None:
    assert isinstance(prompt, ChatPrompt)
    for index, message in enumerate(prompt.messages):
        for token in tokens:
            if token not in message.text:
                continue
            raise InvalidRequest(
                f"messages[{index}] says {token!r}, which stands for an image with this model: leave it out, or send "
                "no images.",
                param=f"messages[{index}]",
            )
