"""Encoded image files to pictures, within bounds, apart from everything that computes with them.

Only the header is read before the size is judged; only formats that photographs and screenshots come in are opened.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from mlx_manager.errors import InvalidRequest
from mlx_manager.ir import ImageContent

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF")
_FORMAT_NAMES = "PNG, JPEG, WebP, GIF, BMP or AVIF"
_LOW_DETAIL_SIDE = 512
"""The longest side at `detail: low`, as OpenAI has it."""
_BACKGROUND = (255, 255, 255)
"""Behind what is transparent: paper, which is what transparent pictures are mostly drawn for."""
_DIGEST_BYTES = 16
_STRIP_ROWS = 256
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
    """Of one image; more is refused."""
    max_request_pixels: int
    """Of all together; they are made smaller to fit."""


@dataclass(frozen=True)
class DecodedImage:
    """A picture as a model's processor takes it: RGB, upright, opaque."""

    picture: Image.Image
    digest: bytes
    """Of the pixels and the size; 16 bytes."""


def decode_images(
    images: tuple[ImageContent, ...], limits: ImageLimits, shown_pixels: int, large: AbstractContextManager[object]
) -> tuple[DecodedImage, ...]:
    """All images of a request, each of at most `shown_pixels`. Raises `InvalidRequest` that names the one that cannot
    be taken.

    `large` is held while one that has more pixels is decoded, so that only one at a time is in memory whole.
    """
    if len(images) > limits.max_images:
        raise InvalidRequest(
            f"The request has {len(images)} images, and {limits.max_images} are taken (setting max_images): send "
            "fewer.",
            param="messages",
        )
    return tuple(
        _decode(image, f"image {index + 1} of {len(images)}", limits, shown_pixels, large)
        for index, image in enumerate(images)
    )


def share_pixels(images: Iterable[ImageContent], max_pixels: int) -> int:
    """The most pixels that one of `images` may have so that all together have at most `max_pixels`; none is made
    smaller than it has to be. Told from the headers of the files; those without one count for nothing."""
    left, sizes = max_pixels, sorted(map(_num_pixels, images))
    for index, size in enumerate(sizes):
        share = left // (len(sizes) - index)
        if size > share:
            return max(share, 1)
        left -= size
    return max_pixels


def _num_pixels(image: ImageContent) -> int:
    try:
        with Image.open(io.BytesIO(image.data), formats=_FORMATS) as opened:
            pixels = opened.width * opened.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, UnidentifiedImageError, *_DAMAGE):
        return 0
    return min(pixels, _LOW_DETAIL_SIDE**2) if image.detail == "low" else pixels


def _decode(
    image: ImageContent, name: str, limits: ImageLimits, shown_pixels: int, large: AbstractContextManager[object]
) -> DecodedImage:
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
            if width * height > shown_pixels:
                with large:
                    picture = ImageOps.exif_transpose(_shrunk(opened, shown_pixels))
            else:
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
    for top in range(0, picture.height, _STRIP_ROWS):
        # a copy of a part at a time
        strip = (0, top, picture.width, min(top + _STRIP_ROWS, picture.height))
        digest.update(picture.crop(strip).tobytes())
    return digest.digest()


def _shrunk(opened: ImageFile, most_pixels: int) -> Image.Image:
    """The picture in RGB and in fewer pixels, not turned yet. Beside the decoded file it takes no copy of that size,
    but where it is to become hardly smaller."""
    # JPEG is decoded smaller at once
    scale = (most_pixels / (opened.width * opened.height)) ** 0.5
    size = (max(1, int(opened.width * scale)), max(1, int(opened.height * scale)))
    opened.draft("RGB", size)
    opened.load()
    factor = max(1, min(opened.width // size[0], opened.height // size[1]))
    small = Image.new("RGB", (-(-opened.width // factor), -(-opened.height // factor)))
    for top in range(0, opened.height, _STRIP_ROWS * factor):
        strip = _as_rgb(opened.crop((0, top, opened.width, min(top + _STRIP_ROWS * factor, opened.height))))
        small.paste(strip.reduce(factor), (0, top // factor))
    exif = opened.getexif().tobytes()
    opened.close()
    small = small.resize(size, Image.Resampling.BICUBIC)
    small.info["exif"] = exif
    return small


def _as_rgb(picture: Image.Image) -> Image.Image:
    """Any mode as opaque RGB: palettes, transparency, CMYK, grey of 1 to 32 bits."""
    picture.load()
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _as_grey(picture)
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        paper = Image.new("RGB", layer.size, _BACKGROUND)
        paper.paste(layer, mask=layer)
        return paper
    return picture.convert("RGB")


def _as_grey(picture: Image.Image) -> Image.Image:
    """Grey of 16 bits or more, scaled to 8: Pillow's own conversion would cut everything above 255 off."""
    values = np.asarray(picture).astype(np.float64)
    most = 65_535.0 if picture.mode.startswith("I") else max(1.0, float(values.max(initial=0.0)))
    return Image.fromarray(np.clip(values * (255.0 / most), 0, 255).astype(np.uint8))


def _refusal(name: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{name[0].upper()}{name[1:]} {reason}.", param="messages")
