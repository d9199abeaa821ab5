"""The process that takes frames out of a video: `python -m mlx_manager.worker.frames FILE LIMITS`, and `--help`.

Files of strangers meet a large decoder here, where nothing else is lost when it breaks. Prints a line of JSON, `Frames`
or `Refusal`, and behind the first the frames themselves, RGB, one after the other. It imports nothing of a model.
"""

from __future__ import annotations

import argparse
import resource
import sys
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np

from mlx_manager.worker.frame_report import FrameLimits, FrameReport, Frames, Refusal

_SIGNATURES = ((4, b"ftyp"), (0, b"\x1aE\xdf\xa3"), (8, b"AVI "), (4, b"moov"), (4, b"mdat"), (4, b"wide"))
"""(offset, bytes) that files of the formats below begin with; nothing else reaches the decoder, playlists above all."""
_FORMATS = "MP4, MOV, WebM, MKV or AVI"
_FRAMES_PER_S = 2.0
_LEAST_FRAMES = 4
_PAIR = 2
"""As mlx-vlm samples: two frames a second, at least four, an even number."""
_LAST_SHARE = 0.95
"""Containers promise a frame or two too many; behind this part of the file one may be missing."""


class _RefusedError(Exception):
    """Carries the reason."""


def main() -> int:
    """Read what the command line says; returns the exit code, which is 0 for a refusal too."""
    parser = argparse.ArgumentParser(prog="python -m mlx_manager.worker.frames")
    parser.add_argument("file", type=Path)
    parser.add_argument("limits", help="JSON")
    arguments = parser.parse_args()
    limits = msgspec.json.decode(arguments.limits, type=FrameLimits)
    resource.setrlimit(resource.RLIMIT_CPU, (limits.max_cpu_s, limits.max_cpu_s))
    cv2.setNumThreads(1)
    try:
        head, frames = _read(arguments.file, limits)
    except _RefusedError as error:
        _print(Refusal(str(error)))
        return 0
    except cv2.error as error:
        _print(Refusal(f"is damaged: {error}"))
        return 0
    _print(head)
    for frame in frames:
        sys.stdout.buffer.write(frame.tobytes())
    return 0


def frame_indices(num_frames: int, fps: float, most: int) -> tuple[int, ...]:
    """Which of the frames of a file are shown, from its first to its last, evenly: at most `most`."""
    wanted = max(num_frames / fps * _FRAMES_PER_S, _LEAST_FRAMES)
    wanted = min(wanted, num_frames, most)
    num_shown = max(1, int(wanted // _PAIR) * _PAIR)
    return tuple(int(index) for index in np.linspace(0, num_frames - 1, num_shown).round())


def _read(file: Path, limits: FrameLimits) -> tuple[Frames, list[np.ndarray]]:
    with file.open("rb") as opened:
        begin = opened.read(16)
    if not any(begin[offset : offset + len(mark)] == mark for offset, mark in _SIGNATURES):
        raise _RefusedError(f"is in no format that is taken: send {_FORMATS}")
    capture = _open(file)
    width, height = (int(capture.get(each)) for each in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if width < 1 or height < 1:
        raise _RefusedError("is damaged: it has no pictures")
    if width * height > limits.max_pixels:
        most = f"{limits.max_pixels} pixels are taken (setting max_video_pixels)"
        raise _RefusedError(f"is {width} by {height}, and {most}: send a smaller one")
    fps = _fps(capture)
    num_frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    if num_frames < 1:
        # recorded live, so that its length is not written at its beginning
        num_frames = _count(capture, most=int(limits.max_length_s * fps) + 1)
        capture = _open(file)
    if num_frames / fps > limits.max_length_s:
        most = f"{limits.max_length_s:g} s are taken (setting max_video_length)"
        raise _RefusedError(f"lasts {num_frames / fps:.0f} s or more, and {most}: send a shorter one")
    shown: list[int] = []
    frames: list[np.ndarray] = []
    for index in frame_indices(num_frames, fps, limits.max_frames):
        frame = _frame(capture, index, limits.max_shown_pixels)
        if frame is not None and (not frames or frame.shape == frames[0].shape):
            shown.append(index)
            frames.append(frame)
        elif frame is not None or index < num_frames * _LAST_SHARE or not frames:
            raise _RefusedError(f"is cut off or damaged at {index / fps:.1f} s: send the whole file")
    return Frames(width=frames[0].shape[1], height=frames[0].shape[0], indices=tuple(shown), fps=fps), frames


def _open(file: Path) -> Any:
    capture = cv2.VideoCapture(str(file), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    if not capture.isOpened():
        raise _RefusedError("is cut off or damaged: send the whole file")
    return capture


def _fps(capture: Any) -> float:
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if np.isfinite(fps) and fps > 0 else 1.0


def _count(capture: Any, most: int) -> int:
    num_frames = 0
    while num_frames <= most and capture.grab():
        num_frames += 1
    if not num_frames:
        raise _RefusedError("is cut off or damaged: send the whole file")
    return num_frames


def _frame(capture: Any, index: int, max_shown_pixels: int) -> np.ndarray | None:
    """[height, width, 3], RGB; None where there is none."""
    if int(capture.get(cv2.CAP_PROP_POS_FRAMES)) != index:
        capture.set(cv2.CAP_PROP_POS_FRAMES, index)
    is_read, frame = capture.read()
    if not is_read:
        return None
    height, width = frame.shape[:2]
    if width * height > max_shown_pixels:
        scale = (max_shown_pixels / (width * height)) ** 0.5
        size = (max(1, int(width * scale)), max(1, int(height * scale)))
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))


def _print(line: FrameReport) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")


if __name__ == "__main__":
    sys.exit(main())
