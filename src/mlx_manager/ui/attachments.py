"""What goes along with a message: pictures and text files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from mlx_manager.errors import InvalidRequest
from mlx_manager.ir import Content, ImageContent, TextContent

SHOWN_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
"""What a browser is given to show; of others only the name is shown."""
_MOST_TEXT_BYTES = 512 * 1024
_MOST_IMAGE_BYTES = 20 * 1024**2
MOST_BYTES = _MOST_IMAGE_BYTES
"""Of any file."""


@dataclass(frozen=True)
class Attachment:
    """One file. `media_type` begins with image/ for a picture, and is text/plain for every text."""

    name: str
    media_type: str
    content: bytes

    @property
    def is_image(self) -> bool:
        """Whether it takes a model that sees."""
        return self.media_type.startswith("image/")

    @cached_property
    def digest(self) -> str:
        """What it is kept by: SHA-256 in hexadecimal digits."""
        return hashlib.sha256(self.content).hexdigest()

    def as_content(self) -> Content:
        """For a prompt."""
        if self.is_image:
            return ImageContent(data=self.content, media_type=self.media_type)
        return TextContent(f"File {self.name}:\n```\n{self.content.decode('utf-8')}\n```")


def attach(name: str, media_type: str, content: bytes) -> Attachment:
    """A file that somebody chose. Raises `InvalidRequest` for one that cannot go along, and says why."""
    if media_type.startswith("image/"):
        if len(content) > _MOST_IMAGE_BYTES:
            raise InvalidRequest(f"{name} is too large: a picture may have {_MOST_IMAGE_BYTES // 1024**2} MiB.")
        return Attachment(name, media_type, content)
    if media_type.startswith(("video/", "audio/")):
        raise InvalidRequest(f"{name}: videos and sound cannot go along with a message. Attach pictures or text files.")
    if len(content) > _MOST_TEXT_BYTES:
        raise InvalidRequest(f"{name} is too large: a text file may have {_MOST_TEXT_BYTES // 1024} KiB.")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest(f"{name} is neither a picture nor a text file in UTF-8.") from None
    return Attachment(name, "text/plain", content)
