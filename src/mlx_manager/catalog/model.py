"""One model that can be served, and how it is to be served. Plain values; they also cross to the worker."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import msgspec


class ModelKind(StrEnum):
    """What a model is asked for."""

    TEXT = "text"
    VISION = "vision"
    """Generates text, from images too."""
    EMBEDDING = "embedding"
    RERANKER = "reranker"


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A model folder on this machine, under the name clients ask for it by."""

    name: str
    path: str
    """The folder that holds config.json, the safetensors and the tokenizer."""
    created_unix_s: int
    """When the folder was written; `created` in /v1/models."""
    size_bytes: int
    """Bytes of all weight files."""
    architecture: str
    """`model_type` of its config.json."""
    quantization: str
    """For people: "4-bit", "bf16" and so on."""
    max_context: int | None
    """Longest context the config promises, in tokens; None when it does not say."""
    kind: ModelKind = ModelKind.TEXT
    num_parameters: int | None = None
    """Quantized ones counted as what they stand for; None where the files do not say."""
    family: str = ""
    """Which family's way of prompting and reading is told by its files; "" for one that does not chat."""
    has_tools: bool = False
    """Its chat template shows tools to the model."""
    has_thinking: bool = False
    """Its chat template knows a part of an answer in which the model thinks."""


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker serves its model. Bounds of zero or less are refused where the settings are read."""

    dtype: str = "auto"
    """auto, float32, float16 or bfloat16. auto: the model's own on Metal, float32 on a CPU."""
    kv_budget_bytes: int = 2 * 1024**3
    """The KV arena never grows past this."""
    kv_cache_bits: int = 0
    """8 or 4: keys and values are kept quantized, in so many bits an entry; 0 keeps them as they are computed."""
    max_batch_size: int = 32
    """Sequences that run at the same time."""
    max_queued_requests: int = 256
    """Requests that wait; one more is refused with 429."""
    max_step_tokens: int = 512
    """Tokens of one forward pass, decode rows and prefill together."""
    max_context: int | None = None
    """Lowers the model's own context limit."""
    default_max_tokens: int | None = None
    """Completion length where the request names none; None: whatever the context leaves."""
    max_images: int = 16
    """Images of one request."""
    max_image_bytes: int = 20 * 1024**2
    """Of one encoded file."""
    max_image_pixels: int = 50_000_000
    """Width times height of one image; more is refused before it is decoded."""
    max_request_pixels: int = 16_777_216
    """Of all images and frames of one request together; they are made smaller to fit."""
    max_video_bytes: int = 64 * 1024**2
    """Of one file."""
    max_video_length_s: float = 600.0
    """Of one video."""
    max_video_frames: int = 16
    """That a model is shown of all videos of one request."""
    max_video_pixels: int = 8_847_360
    """Width times height of one frame; more is refused before it is decoded."""
    image_cache_bytes: int = 256 * 1024**2
    """What a vision model keeps of the images that it saw last, beside those of running requests."""
    shared_prefix_decode: str = "auto"
    """Whether running rows read a beginning they share once for all of them: auto (where the check at load found it
    faster), on, off."""
    max_draft_tokens: int = 0
    """Most tokens guessed ahead of a sequence, from its own text or by the draft model; 0 guesses none."""
    draft_model: str | None = None
    """Name or folder of a smaller model of the same tokenizer that guesses ahead; None: only the text itself does."""
    draft_entry: ModelEntry | None = None
    """The model that `draft_model` names. Set by the pool before a load."""
    disk_cache_bytes: int = 0
    """Most that all models together keep of their prefix caches on disk; 0: nothing."""
    priority_ageing_s: float = 5.0
    """Seconds of waiting that lift a request by one priority."""
    template_timeout_s: float = 10.0
    """How long a chat template may compute for one conversation."""
    hostfile: str | None = None
    """Splits the model over the ranks that this file names; None: this process alone serves it."""
    state_folder: str | None = None
    """Where a worker keeps what it found out about a model between loads; None: nowhere. Set from the home folder."""

    @property
    def disk_cache_folder(self) -> Path | None:
        """Where prefix caches are on disk, if they are."""
        return Path(self.state_folder) / "prefix-cache" if self.state_folder else None
