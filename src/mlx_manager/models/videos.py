"""A video as a model's processor takes it: its chosen frames and when they were. `worker.videos` reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mlx_manager.models.images import DecodedImage, digest_of

_DIGEST_BYTES = 16


@dataclass(frozen=True)
class VideoLimits:
    """How much one request may send."""

    max_bytes: int
    max_length_s: float
    max_frames: int
    """Of all its videos together."""
    max_pixels: int
    """Of one frame."""


@dataclass(frozen=True)
class DecodedVideo:
    """Frames of one size, RGB, in order."""

    frames: tuple[Image.Image, ...]
    indices: tuple[int, ...]
    """Which of the frames of the file they are."""
    fps: float
    """Frames a second that the file has."""
    digest: bytes
    """Of all that is above; 16 bytes."""

    @classmethod
    def of(cls, frames: Sequence[Image.Image], indices: Sequence[int], fps: float) -> DecodedVideo:
        """A video of these frames."""
        digest = hashlib.blake2b(f"video:{fps}:{list(indices)}:".encode(), digest_size=_DIGEST_BYTES)
        for frame in frames:
            digest.update(digest_of(frame))
        return cls(tuple(frames), tuple(indices), fps, digest.digest())

    @property
    def stills(self) -> tuple[DecodedImage, ...]:
        """The frames as images of their own."""
        return tuple(DecodedImage(frame, digest_of(frame)) for frame in self.frames)

    @property
    def pixels(self) -> np.ndarray:
        """[frames, 3, height, width], 8 bits each."""
        return np.stack([np.asarray(frame).transpose(2, 0, 1) for frame in self.frames])


Visual = DecodedImage | DecodedVideo
"""What a model is shown at one place of a prompt."""
