"""Videos to frames, within bounds of size, length and time, each in a process of its own (`worker.frames`)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from PIL import Image

from mlx_manager.catalog import LoadOptions
from mlx_manager.errors import InvalidRequest
from mlx_manager.ir import ImageContent, VideoContent
from mlx_manager.models.images import ImageLimits, decode_images, share_pixels
from mlx_manager.models.videos import DecodedVideo, VideoLimits, Visual
from mlx_manager.worker.frame_report import FrameLimits, FrameReport, Refusal

_TIMEOUT_S = 30.0
_LISTED_FPS = 2.0
"""Of frames that a client cut out itself and says nothing about: as many a second as are taken out of a file."""
_QUIET = {
    # what FFmpeg may open besides the file: nothing
    "OPENCV_FFMPEG_CAPTURE_OPTIONS": "protocol_whitelist;file",
    "OPENCV_FFMPEG_LOGLEVEL": "-8",
    "OPENCV_LOG_LEVEL": "SILENT",
    "OPENBLAS_NUM_THREADS": "1",
}


_MOST_FRAME_PIXELS = 1920 * 1088
"""Larger frames are made smaller: processors of models make them smaller still."""


@dataclass(frozen=True)
class VisualLimits:
    """How much one request may send."""

    images: ImageLimits
    videos: VideoLimits
    large: AbstractContextManager[object]
    """Held while something is decoded that is larger than it will be shown: one of all requests at a time."""

    @classmethod
    def of(cls, options: LoadOptions) -> VisualLimits:
        """Those that a model is loaded with."""
        images = ImageLimits(
            max_images=options.max_images,
            max_image_bytes=options.max_image_bytes,
            max_image_pixels=options.max_image_pixels,
            max_request_pixels=options.max_request_pixels,
        )
        videos = VideoLimits(
            max_bytes=options.max_video_bytes,
            max_length_s=options.max_video_length_s,
            max_frames=options.max_video_frames,
            max_pixels=options.max_video_pixels,
        )
        return cls(images, videos, threading.Lock())


def decode_visuals(sent: Sequence[ImageContent | VideoContent], limits: VisualLimits) -> tuple[Visual, ...]:
    """All images and videos of a request, in order. Raises `InvalidRequest` that names the one that cannot be taken."""
    images = tuple(piece for piece in sent if isinstance(piece, ImageContent))
    videos = [piece for piece in sent if isinstance(piece, VideoContent)]
    share = _Share.of(images, videos, limits)
    pictures = iter(decode_images(images, limits.images, share.image_pixels, limits.large))
    films = iter(_decode_videos(videos, limits, share))
    return tuple(next(pictures) if isinstance(piece, ImageContent) else next(films) for piece in sent)


@dataclass(frozen=True)
class _Share:
    """What each image and frame may have of the pixels of a request."""

    image_pixels: int
    """Of one image, or one listed frame."""
    frame_pixels: int
    """Of a frame taken out of a file."""
    max_frames_each: int
    """Of one file."""

    @classmethod
    def of(cls, images: Sequence[ImageContent], videos: Sequence[VideoContent], limits: VisualLimits) -> _Share:
        most = limits.images.max_request_pixels
        num_listed = sum(len(video.frames) for video in videos)
        pictures = [*images, *(frame for video in videos for frame in video.frames)]
        # no more headers are read than pictures are taken
        pictures = pictures[: limits.images.max_images + limits.videos.max_frames]
        num_files = sum(not video.frames for video in videos)
        max_frames_each = (limits.videos.max_frames - num_listed) // max(1, num_files)
        num_taken = max(0, max_frames_each) * num_files
        frame_pixels = max(1, min(_MOST_FRAME_PIXELS, most // max(1, num_taken + len(pictures))))
        return cls(share_pixels(pictures, most - num_taken * frame_pixels), frame_pixels, max_frames_each)


def _decode_videos(sent: Sequence[VideoContent], within: VisualLimits, share: _Share) -> list[DecodedVideo]:
    limits = within.videos
    num_listed = sum(len(video.frames) for video in sent)
    num_files = sum(not video.frames for video in sent)
    if num_listed + num_files > limits.max_frames:
        nouns = ((num_listed, "frames"), (num_files, "files"))
        listed = " and ".join(f"{number} {noun} of videos" for number, noun in nouns if number)
        raise InvalidRequest(
            f"The request has {listed}, and {limits.max_frames} frames are taken (setting max_video_frames): send "
            "fewer.",
            param="messages",
        )
    decoded = []
    for index, video in enumerate(sent):
        name = f"Video {index + 1} of {len(sent)}"
        if video.frames:
            decoded.append(_of_frames(video.frames, name, within, share))
        else:
            decoded.append(_of_file(video.data, name, limits, share))
    return decoded


def _of_frames(frames: tuple[ImageContent, ...], name: str, limits: VisualLimits, share: _Share) -> DecodedVideo:
    try:
        images = replace(limits.images, max_images=len(frames))
        pictures = decode_images(frames, images, share.image_pixels, limits.large)
    except InvalidRequest as error:
        raise InvalidRequest(f"{name}: {error.message.replace('Image ', 'frame ', 1)}", param="messages") from None
    sizes = sorted({picture.picture.size for picture in pictures})
    if len(sizes) > 1:
        shown = " and ".join(f"{width} by {height}" for width, height in sizes[:2])
        raise InvalidRequest(f"{name} has frames of {shown}: send frames of one size.", param="messages")
    return DecodedVideo.of([picture.picture for picture in pictures], range(len(pictures)), _LISTED_FPS)


def _of_file(content: bytes, name: str, limits: VideoLimits, share: _Share) -> DecodedVideo:
    if not content:
        raise InvalidRequest(f"{name} has not been fetched: send it as a data URL.", param="messages")
    if len(content) > limits.max_bytes:
        most = f"{limits.max_bytes} are taken (setting max_video_bytes)"
        raise InvalidRequest(f"{name} has {len(content)} bytes, and {most}: send a smaller one.", param="messages")
    asked = FrameLimits(
        max_length_s=limits.max_length_s,
        max_frames=share.max_frames_each,
        max_pixels=limits.max_pixels,
        max_shown_pixels=share.frame_pixels,
        max_cpu_s=int(_TIMEOUT_S),
    )
    with tempfile.NamedTemporaryFile(prefix="mlx-manager-video-") as file:
        file.write(content)
        file.flush()
        told, pixels = _run(file.name, asked, name)
    if isinstance(told, Refusal):
        raise InvalidRequest(f"{name} {told.reason}.", param="messages")
    shape = (len(told.indices), told.height, told.width, 3)
    frames = np.frombuffer(pixels, np.uint8, count=int(np.prod(shape))).reshape(shape)
    return DecodedVideo.of([Image.fromarray(frame) for frame in frames], told.indices, told.fps)


def _run(path: str, asked: FrameLimits, name: str) -> tuple[FrameReport, bytes]:
    """What the process said of the file, and the pixels behind it."""
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"} | _QUIET
    limits = msgspec.json.encode(asked).decode()
    # -P: as for workers, no file of the working directory is imported in a library's place
    command = (sys.executable, "-P", "-m", "mlx_manager.worker.frames", path, limits)
    try:
        ended = subprocess.run(command, env=environment, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise InvalidRequest(
            f"{name} takes longer than {_TIMEOUT_S:g} s to read: send a shorter or smaller one.", param="messages"
        ) from None
    if ended.returncode:
        why = signal.Signals(-ended.returncode).name if ended.returncode < 0 else f"exit code {ended.returncode}"
        raise InvalidRequest(f"{name} is damaged: its decoder ended with {why}.", param="messages")
    line, _, pixels = ended.stdout.partition(b"\n")
    return msgspec.json.decode(line, type=FrameReport), pixels
