"""Videos as the HTTP dialects send them, as a file or as a list of frames, to `ir.VideoContent`."""

from __future__ import annotations

from collections.abc import Sequence

from mlx_manager.errors import InvalidRequest
from mlx_manager.ir import VideoContent
from mlx_manager.protocols.data_urls import parse_url
from mlx_manager.protocols.images import parse_image_url


def parse_video_url(url: str, *, at: str) -> VideoContent:
    """The video that `url` holds (`data:video/mp4;base64,…`) or names (`https://…`). `at` is the field, for errors.

    Raises `InvalidRequest`, and `UnsupportedParameter` for other schemes.
    """
    media_type, content = parse_url(url, kind="video", example="video/mp4", at=at)
    return VideoContent(url=url) if content is None else VideoContent(data=content, media_type=media_type)


def parse_frames(urls: Sequence[str], *, at: str) -> VideoContent:
    """The video whose frames are the pictures that `urls` hold or name, in order. Raises as `parse_image_url` does."""
    if not urls:
        raise InvalidRequest(f"{at} has no frames: send at least one, or the file of the video.", param=at)
    return VideoContent(frames=tuple(parse_image_url(url, None, at=f"{at}[{i}]") for i, url in enumerate(urls)))
