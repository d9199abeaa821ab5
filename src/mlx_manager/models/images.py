"""Encoded image files to pictures, within bounds, apart from everything that computes with them.

Only the header is read before the size is judged; only formats that photographs and screenshots come in are opened.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mlx_manager.errors import InvalidRequest
from mlx_manager.ir import ImageContent

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF")
_FORMAT_NAMES = "PNG, JPEG, WebP, GIF, BMP or AVIF"
_LOW_DETAIL_SIDE = 512
"""The longest side at `detail: low`, as OpenAI has it."""
_BACKGROUND = (255, 255, 255)
"""Behind what is transparent: paper, which is what transparent pictures are mostly drawn for."""
_DIGEST_BYTES = 16
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, RuntimeError),
    *(struct.error, zlib.error),
)
"""What Pillow's decoders raise for files that are cut off or broken."""


@dataclass(frozen=True)
class ImageLimits:
    """How much one request may send."""

    max_images: int
    max_image_bytes: int
    max_image_pixels: int


@dataclass(frozen=True)
class DecodedImage:
    """A picture as a model's processor takes it: RGB, upright, opaque."""

    picture: Image.Image
    digest: bytes
    """Of the pixels and the size; 16 bytes."""


def decode_images(images: tuple[ImageContent, ...], limits: ImageLimits) -> tuple[DecodedImage, ...]:
    """All images of a request. Raises `InvalidRequest` that names the one that cannot be taken."""
    if len(images) > limits.max_images:
        raise InvalidRequest(
            f"The request has {len(images)} images, and {limits.max_images} are taken (setting max_images): send "
            "fewer.",
            param="messages",
        )
    return tuple(_decode(image, f"image {index + 1} of {len(images)}", limits) for index, image in enumerate(images))


def _decode(image: ImageContent, name: str, limits: ImageLimits) -> DecodedImage:
    if not image.data:
        raise _refusal(name, "has not been fetched: send it as a data URL")
    if len(image.data) > limits.max_image_bytes:
        most = f"{limits.max_image_bytes} are taken (setting max_image_bytes)"
        raise _refusal(name, f"has {len(image.data)} bytes, and {most}: send a smaller one")
    try:
        with Image.open(io.BytesIO(image.data), formats=_FORMATS) as opened:
            width, height = opened.size
            if width * height > limits.max_image_pixels:
                most = f"{limits.max_image_pixels} pixels are taken (setting max_image_pixels)"
                raise _refusal(name, f"is {width} by {height}, and {most}: send a smaller one")
            # of an animation this is the first frame
            picture = _as_rgb(ImageOps.exif_transpose(opened))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _refusal(name, f"is too large: {error}") from None
    except UnidentifiedImageError:
        raise _refusal(name, f"is in no format that is taken: send {_FORMAT_NAMES}") from None
    except _DAMAGE as error:
        raise _refusal(name, f"is damaged: {error}") from None
    if image.detail == "low":
        picture.thumbnail((_LOW_DETAIL_SIDE, _LOW_DETAIL_SIDE))
    return DecodedImage(picture, digest_of(picture))


def digest_of(picture: Image.Image) -> bytes:
    """What tells one picture from another: its size and all its pixels."""
    digest = hashlib.blake2b(f"{picture.width}x{picture.height}:".encode(), digest_size=_DIGEST_BYTES)
    digest.update(picture.tobytes())
    return digest.digest()


def _as_rgb(picture: Image.Image) -> Image.Image:
    """Any mode as opaque RGB: palettes, transparency, CMYK, grey of 1 to 32 bits."""
    picture.load()
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _as_grey(picture)
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        paper = Image.new("RGBA", layer.size, (*_BACKGROUND, 255))
        return Image.alpha_composite(paper, layer).convert("RGB")
    return picture.convert("RGB")


def _as_grey(picture: Image.Image) -> Image.Image:
    """Grey of 16 bits or more, scaled to 8: Pillow's own conversion would cut everything above 255 off."""
    values = np.asarray(picture).astype(np.float64)
    most = 65_535.0 if picture.mode.startswith("I") else max(1.0, float(values.max(initial=0.0)))
    return Image.fromarray(np.clip(values * (255.0 / most), 0, 255).astype(np.uint8))


def _refusal(name: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{name[0].upper()}{name[1:]} {reason}.", param="messages")
