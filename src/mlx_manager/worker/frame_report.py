"""What a worker and the process that takes frames out of a video for it tell each other."""

from __future__ import annotations

import msgspec


class FrameLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says."""

    max_length_s: float
    max_frames: int
    max_pixels: int
    """Larger frames are refused."""
    max_shown_pixels: int
    """Larger frames are made smaller."""
    max_cpu_s: int


class Frames(msgspec.Struct, frozen=True, kw_only=True, tag="frames"):
    """What follows the line: frames of `height` by `width` by 3 bytes each, one for each of `indices`."""

    width: int
    height: int
    indices: tuple[int, ...]
    fps: float


class Refusal(msgspec.Struct, frozen=True, tag="refusal"):
    """Why there are none, as the end of a sentence about the video."""

    reason: str


FrameReport = Frames | Refusal
