"""Video files that clients may send come out as frames, the same as mlx-vlm takes, or are refused by name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import mlx_vlm.utils
import numpy as np
import pytest
from PIL import Image

from mlx_manager.errors import InvalidRequest
from mlx_manager.ir import ImageContent, VideoContent
from mlx_manager.models.images import DecodedImage, ImageLimits
from mlx_manager.models.videos import DecodedVideo, VideoLimits
from mlx_manager.worker.frames import frame_indices
from mlx_manager.worker.videos import VisualLimits, decode_visuals
from tests.vision.films import FPS, write_film
from tests.vision.test_decoding import encoded, halves

IMAGES = ImageLimits(max_images=4, max_image_bytes=200_000, max_image_pixels=40_000, max_request_pixels=16_000_000)
VIDEOS = VideoLimits(max_bytes=200_000, max_length_s=6.0, max_frames=8, max_pixels=40_000)
LIMITS = VisualLimits(IMAGES, VIDEOS, nullcontext())
PICTURE = ImageContent(data=encoded(halves(), "PNG"))


def decode(*files: bytes, limits: VideoLimits = VIDEOS) -> list[DecodedVideo]:
    decoded = decode_visuals([VideoContent(data=file) for file in files], replace(LIMITS, videos=limits))
    return [video for video in decoded if isinstance(video, DecodedVideo)]


@pytest.fixture
def path(tmp_path: Path) -> Callable[[str], Path]:
    return lambda ending: tmp_path / f"film.{ending}"


@pytest.mark.parametrize(
    ("ending", "codec"), [("mp4", "mp4v"), ("mov", "mp4v"), ("avi", "MJPG"), ("mkv", "mp4v"), ("webm", "VP80")]
)
def test_every_format_gives_the_frames_that_mlx_vlm_takes(path: Callable[[str], Path], ending: str, codec: str) -> None:
    [video] = decode(write_film(path(ending), codec=codec))
    expected, told = mlx_vlm.utils.load_video(str(path(ending)), mlx_vlm.utils.VideoSampling(max_frames=8))
    assert (video.indices, video.fps) == (tuple(told.frames_indices), FPS)
    assert np.array_equal(video.pixels, expected)
    assert len(video.indices) == 8


@pytest.mark.parametrize(
    ("num_frames", "fps", "most", "indices"),
    [
        (1, 10, 16, (0,)),
        (3, 10, 16, (0, 2)),
        (20, 10, 16, (0, 6, 13, 19)),
        (100, 10, 16, (0, 7, 13, 20, 26, 33, 40, 46, 53, 59, 66, 73, 79, 86, 92, 99)),
        (100, 10, 5, (0, 33, 66, 99)),
        (100, 10, 1, (0,)),
    ],
)
def test_frames_are_chosen_evenly(num_frames: int, fps: float, most: int, indices: tuple[int, ...]) -> None:
    assert frame_indices(num_frames, fps, most) == indices


def test_a_frame_that_is_missing_at_the_very_end_is_done_without(path: Callable[[str], Path]) -> None:
    film = write_film(path("avi"), codec="MJPG")
    frames = [i for i in range(len(film)) if film.startswith(b"00dc", i)]
    [video] = decode(film[: frames[39] + 20])
    assert video.indices == frame_indices(40, FPS, 8)[:-1]


REFUSED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda film: b"", "has not been fetched"),
    "a text": (lambda film: b"no video, but words" * 10, "is in no format that is taken: send MP4"),
    "a playlist": (lambda film: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "is in no format that is taken"),
    "a picture": (lambda film: PICTURE.data, "is in no format that is taken"),
    "half of it": (lambda film: film[: len(film) // 2], "is cut off or damaged"),
    "its beginning": (lambda film: film[:40], "is cut off or damaged"),
    "too many bytes": (lambda film: film * 30, "bytes, and 200000 are taken"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_taken_is_named(path: Callable[[str], Path], name: str) -> None:
    spoil, reason = REFUSED[name]
    film = write_film(path("mp4"))
    sent: list[ImageContent | VideoContent] = [PICTURE, VideoContent(data=film), VideoContent(data=spoil(film))]
    with pytest.raises(InvalidRequest, match=reason) as refused:
        decode_visuals(sent, replace(LIMITS, videos=replace(VIDEOS, max_frames=4)))
    assert refused.value.message.startswith("Video 2 of 2 ")
    assert refused.value.param == "messages"


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (replace(VIDEOS, max_length_s=2.5), r"lasts 4 s or more, and 2.5 s are taken \(setting max_video_length\)"),
        (replace(VIDEOS, max_pixels=6000), r"is 96 by 64, and 6000 pixels are taken \(setting max_video_pixels\)"),
        (replace(VIDEOS, max_frames=0), r"has 1 files of videos, and 0 frames are taken \(setting max_video_frames\)"),
    ],
)
def test_what_is_too_large_is_named(path: Callable[[str], Path], limits: VideoLimits, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        decode(write_film(path("mp4")), limits=limits)


def test_a_film_cut_in_the_middle_of_its_frames_is_refused(path: Callable[[str], Path]) -> None:
    film = write_film(path("avi"), codec="MJPG")
    with pytest.raises(InvalidRequest, match=r"is cut off or damaged at \d\.\d s"):
        decode(film[: len(film) * 6 // 10])


def test_all_videos_of_a_request_share_the_frames(path: Callable[[str], Path]) -> None:
    film = write_film(path("mp4"))
    assert [len(video.frames) for video in decode(film, film)] == [4, 4]
    listed = VideoContent(frames=(PICTURE,) * 6)
    first, second = decode_visuals([listed, VideoContent(data=film)], LIMITS)
    assert isinstance(first, DecodedVideo)
    assert isinstance(second, DecodedVideo)
    assert (len(first.frames), len(second.frames)) == (6, 2)
    with pytest.raises(InvalidRequest, match="has 8 frames of videos and 1 files of videos, and 8 frames are taken"):
        decode_visuals([VideoContent(frames=(PICTURE,) * 8), VideoContent(data=film)], LIMITS)


def test_frames_that_a_client_cut_out_are_a_video(path: Callable[[str], Path]) -> None:
    red, blue = (encoded(Image.new("RGB", (20, 10), colour), "PNG") for colour in ("red", "blue"))
    listed = VideoContent(frames=(ImageContent(data=red), ImageContent(data=blue)))
    picture, video = decode_visuals([PICTURE, listed], LIMITS)
    assert isinstance(picture, DecodedImage)
    assert isinstance(video, DecodedVideo)
    assert (video.indices, video.fps) == ((0, 1), 2.0)
    assert [frame.getpixel((3, 3)) for frame in video.frames] == [(255, 0, 0), (0, 0, 255)]
    with pytest.raises(InvalidRequest, match="Video 1 of 1 has frames of 20 by 10 and 40 by 20: send frames of one"):
        decode_visuals([VideoContent(frames=(ImageContent(data=red), PICTURE))], LIMITS)
    with pytest.raises(InvalidRequest, match="Video 1 of 1: frame 2 of 2 is in no format"):
        decode_visuals([VideoContent(frames=(PICTURE, ImageContent(data=b"words")))], LIMITS)


def test_images_and_frames_share_the_pixels_of_a_request(path: Callable[[str], Path]) -> None:
    film, listed = write_film(path("mp4")), VideoContent(frames=(PICTURE,) * 2)
    limits = replace(LIMITS, images=replace(IMAGES, max_request_pixels=11 * 300))
    large = ImageContent(data=encoded(halves().resize((200, 100)), "PNG"))
    shown = decode_visuals([large, listed, VideoContent(data=film)], limits)
    pictures = [shown[0].picture] if isinstance(shown[0], DecodedImage) else []
    frames = [list(video.frames) for video in shown[1:] if isinstance(video, DecodedVideo)]
    assert [len(frames[0]), len(frames[1])] == [2, 6]
    for picture in (*pictures, *frames[0], *frames[1]):
        assert 200 < picture.width * picture.height <= 11 * 300 // 9
    assert np.allclose([picture.width / picture.height for picture in (pictures[0], frames[0][0])], 2, atol=0.2)
    assert frames[1][0].width / frames[1][0].height == pytest.approx(1.5, abs=0.2)


def test_equal_frames_at_other_times_are_another_video(path: Callable[[str], Path]) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    digests = {DecodedVideo.of(frames, indices, 10.0).digest for indices in ((0, 1), (0, 1), (0, 9))}
    assert len(digests) == 2


def test_the_decoder_is_a_process_of_its_own_that_says_what_it_takes() -> None:
    command = [sys.executable, "-m", "mlx_manager.worker.frames", "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "usage: python -m mlx_manager.worker.frames" in said
