"""What goes along with a message: pictures, videos and text files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from mlx_manager.errors import InvalidRequest
from mlx_manager.ir import Content, ImageContent, TextContent, VideoContent

SHOWN_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
"""What a browser is given to show; of others only the name is shown."""
_MOST_TEXT_BYTES = 512 * 1024
_MOST_IMAGE_BYTES = 20 * 1024**2
_MOST_VIDEO_BYTES = 64 * 1024**2
MOST_BYTES = _MOST_VIDEO_BYTES
"""Of any file."""


@dataclass(frozen=True)
class Attachment:
    """One file. `media_type` begins with image/ or video/, and is text/plain for every text."""

    name: str
    media_type: str
    content: bytes

    @property
    def is_image(self) -> bool:
        """Whether it is a picture."""
        return self.media_type.startswith("image/")

    @property
    def is_video(self) -> bool:
        """Whether it is a video: its frames are taken out where the model is."""
        return self.media_type.startswith("video/")

    @cached_property
    def digest(self) -> str:
        """What it is kept by: SHA-256 in hexadecimal digits."""
        return hashlib.sha256(self.content).hexdigest()

    def as_content(self) -> Content:
        """For a prompt."""
        if self.is_image:
            return ImageContent(data=self.content, media_type=self.media_type)
        if self.is_video:
            return VideoContent(data=self.content, media_type=self.media_type)
        return TextContent(f"File {self.name}:\n```\n{self.content.decode('utf-8')}\n```")


def attach(name: str, media_type: str, content: bytes) -> Attachment:
    """A file that somebody chose. Raises `InvalidRequest` for one that cannot go along, and says why.

    What is inside of a picture or a video is looked at where the model is.
    """
    for kind, most in (("image", _MOST_IMAGE_BYTES), ("video", _MOST_VIDEO_BYTES)):
        if media_type.startswith(f"{kind}/"):
            if len(content) > most:
                raise InvalidRequest(f"{name} is too large: a file of the kind {kind} may have {most // 1024**2} MiB.")
            return Attachment(name, media_type, content)
    if media_type.startswith("audio/"):
        raise InvalidRequest(f"{name}: sound cannot go along with a message. Attach pictures, videos or text files.")
    if len(content) > _MOST_TEXT_BYTES:
        raise InvalidRequest(f"{name} is too large: a text file may have {_MOST_TEXT_BYTES // 1024} KiB.")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest(f"{name} is neither a picture, nor a video, nor a text file in UTF-8.") from None
    return Attachment(name, "text/plain", content)
