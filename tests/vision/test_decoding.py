"""Image files of every kind a client may send come out upright, opaque and RGB, or are refused by name."""

from __future__ import annotations

import io
import random
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mlx_manager.errors import InvalidRequest
from mlx_manager.ir import ImageContent
from mlx_manager.models.images import DecodedImage, ImageLimits, decode_images, share_pixels

LIMITS = ImageLimits(max_images=4, max_image_bytes=200_000, max_image_pixels=40_000, max_request_pixels=100_000)
ORIENTATION = 0x0112


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(content: bytes, detail: str | None = None) -> DecodedImage:
    [decoded] = decode_images(
        (ImageContent(data=content, detail=detail),), LIMITS, LIMITS.max_image_pixels, nullcontext()
    )
    assert decoded.picture.mode == "RGB"
    return decoded


def halves(mode: str = "RGB") -> Image.Image:
    """40 by 20: red on the left, blue on the right."""
    picture = Image.new("RGB", (40, 20), "red")
    ImageDraw.Draw(picture).rectangle((20, 0, 40, 20), fill="blue")
    return picture.convert(mode)


def is_red_then_blue(picture: Image.Image) -> bool:
    left, right = picture.getpixel((3, 10)), picture.getpixel((36, 10))
    assert isinstance(left, tuple)
    assert isinstance(right, tuple)
    return left[0] > 150 > left[2] and right[2] > 150 > right[0]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF"])
def test_every_format_that_is_taken(kind: str) -> None:
    decoded = decode(encoded(halves(), kind))
    assert decoded.picture.size == (40, 20)
    assert is_red_then_blue(decoded.picture)


def test_cmyk_has_its_colours() -> None:
    assert is_red_then_blue(decode(encoded(halves("CMYK"), "JPEG")).picture)


def test_a_rotated_photograph_stands_upright() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    decoded = decode(encoded(halves().transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif))
    assert decoded.picture.size == (40, 20)
    assert is_red_then_blue(decoded.picture)


def test_what_is_transparent_lies_on_white() -> None:
    layer = halves("RGBA")
    layer.putalpha(Image.new("L", layer.size, 0))
    for content in (encoded(layer, "PNG"), encoded(Image.new("LA", (40, 20), (0, 0)), "PNG")):
        assert decode(content).picture.getpixel((3, 10)) == (255, 255, 255)


def test_a_palette_with_a_transparent_colour() -> None:
    picture = halves("P")
    background = picture.getpixel((3, 10))
    decoded = decode(encoded(picture, "PNG", transparency=background))
    assert decoded.picture.getpixel((3, 10)) == (255, 255, 255)
    assert decoded.picture.getpixel((36, 10)) == (0, 0, 255)


def test_sixteen_bits_of_grey_are_scaled() -> None:
    ramp = Image.fromarray((np.arange(800).reshape(20, 40) * 80).astype(np.uint16))
    values = np.asarray(decode(encoded(ramp, "PNG")).picture)[..., 0].ravel()
    assert values[0] == 0
    assert 240 < values[-1] < 255
    assert (np.diff(values.astype(int)) >= 0).all()


def test_of_an_animation_the_first_frame() -> None:
    frames = [Image.new("RGB", (40, 20), colour) for colour in ("red", "green", "blue")]
    decoded = decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert decoded.picture.getpixel((5, 5)) == (255, 0, 0)


def test_low_detail_is_smaller_and_another_picture() -> None:
    wide = Image.new("RGB", (1000, 30), "red")
    full, low = decode(encoded(wide, "PNG")), decode(encoded(wide, "PNG"), detail="low")
    assert (full.picture.size, low.picture.size) == ((1000, 30), (512, 15))
    assert full.digest != low.digest


def test_the_digest_is_of_the_pixels() -> None:
    one, other = halves(), halves()
    other.putpixel((0, 0), (254, 0, 0))
    assert decode(encoded(one, "PNG")).digest == decode(encoded(one, "BMP")).digest
    assert decode(encoded(one, "PNG")).digest != decode(encoded(other, "PNG")).digest
    flat, tall = Image.new("RGB", (8, 2)), Image.new("RGB", (2, 8))
    assert decode(encoded(flat, "PNG")).digest != decode(encoded(tall, "PNG")).digest


def with_claimed_size(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims to be large: decoding it would take gigabytes."""
    content = bytearray(encoded(Image.new("RGB", (8, 8)), "PNG"))
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "truncated PNG": (lambda: encoded(noise(), "PNG")[:3000], "is damaged"),
    "truncated JPEG": (lambda: encoded(noise(), "JPEG")[:900], "is damaged"),
    "truncated WebP": (lambda: encoded(noise(), "WEBP")[:900], "is "),
    "AVIF without its picture": (
        lambda: encoded(noise(), "AVIF").partition(b"mdat")[0] + b"mdat" + bytes(9000),
        "is damaged",
    ),
    "text": (lambda: b"<html>not found</html>", "send PNG, JPEG"),
    "a format with scripts": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "send PNG, JPEG"),
    "too many pixels": (lambda: encoded(Image.new("1", (401, 100)), "PNG"), "is 401 by 100, and 40000 pixels"),
    "a giant": (lambda: with_claimed_size(60_000, 60_000), "send a smaller one|is too large"),
    "too many bytes": (lambda: b"x" * 200_001, "has 200001 bytes, and 200000 are taken"),
    "nothing": (lambda: b"", "has not been fetched"),
}


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 255, (64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_taken_is_named(name: str) -> None:
    make, reason = REFUSED[name]
    good = ImageContent(data=encoded(halves(), "PNG"))
    with pytest.raises(InvalidRequest, match=reason) as refused:
        decode_images((good, ImageContent(data=make())), LIMITS, LIMITS.max_image_pixels, nullcontext())
    assert refused.value.message.startswith("Image 2 of 2 ")
    assert refused.value.param == "messages"


def test_damage_of_any_kind_is_refused_and_nothing_else() -> None:
    chosen = random.Random(7)
    kinds = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF")
    whole = [encoded(noise().resize((20, 16)), kind) for kind in kinds]
    num_refused = 0
    for _ in range(1500):
        content = bytearray(chosen.choice(whole))
        for _ in range(chosen.choice((1, 2, 8))):
            content[chosen.randrange(min(len(content), chosen.choice((64, 100_000))))] = chosen.randrange(256)
        try:
            decode(bytes(content))
        except InvalidRequest:
            num_refused += 1
    assert num_refused > 100


def test_too_many_images_are_refused_before_any_is_decoded() -> None:
    with pytest.raises(InvalidRequest, match="has 5 images, and 4 are taken"):
        decode_images((ImageContent(data=b"x"),) * 5, LIMITS, LIMITS.max_image_pixels, nullcontext())


@pytest.mark.parametrize(
    ("sizes", "most", "each"),
    [((10, 20, 30), 60, 60), ((10, 20, 30), 59, 29), ((30, 10, 30), 40, 15), ((50,) * 4, 40, 10), ((), 40, 40)],
)
def test_no_image_is_made_smaller_than_all_together_need(sizes: tuple[int, ...], most: int, each: int) -> None:
    images = [ImageContent(data=encoded(Image.new("1", (size, 1)), "PNG")) for size in sizes]
    assert share_pixels([*images, ImageContent(data=b"none")], most) == each


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("most", [40_000 // 3, 900])
def test_a_large_image_is_shown_smaller_and_otherwise_as_it_is(mode: str, most: int) -> None:
    wide = halves().resize((400, 100))
    picture = (
        wide.convert(mode) if mode != "I;16" else Image.fromarray(np.asarray(wide.convert("L")).astype(np.uint16) * 257)
    )
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    [small] = decode_images((ImageContent(data=encoded(picture, "PNG", exif=exif)),), LIMITS, most, nullcontext())
    [whole] = decode_images((ImageContent(data=encoded(picture, "PNG", exif=exif)),), LIMITS, 40_000, nullcontext())
    assert whole.picture.size == (100, 400)
    assert most * 0.85 < small.picture.width * small.picture.height <= most
    assert small.picture.height / small.picture.width == pytest.approx(4, rel=0.1)
    difference = np.asarray(whole.picture.resize(small.picture.size)).astype(int) - np.asarray(small.picture)
    assert np.abs(difference).mean() < 4


class _Counted(AbstractContextManager[None]):
    def __init__(self, entered: list[bool]) -> None:
        self._entered = entered

    def __enter__(self) -> None:
        self._entered.append(True)

    def __exit__(self, *_: object) -> None:
        assert self._entered


def test_one_large_image_at_a_time_is_decoded() -> None:
    entered: list[bool] = []
    images = tuple(ImageContent(data=encoded(Image.new("RGB", (side, 10)), "JPEG")) for side in (50, 100, 200))
    decoded = decode_images(images, LIMITS, 500, _Counted(entered))
    assert [image.picture.size for image in decoded] == [(50, 10), (70, 7), (100, 5)]
    assert entered == [True, True]
