"""Small real videos, written by OpenCV: a square that wanders over a ground that changes its colour."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np

FPS = 10


def write_film(
    path: Path, *, codec: str = "mp4v", num_frames: int = 40, width: int = 96, height: int = 64, seed: int = 0
) -> bytes:
    """The file that was written to `path`; its name says in which format."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), FPS, (width, height))  # type: ignore[attr-defined]
    assert writer.isOpened()
    for index in range(num_frames):
        ground = (index * 6 % 256, 255 - index * 6 % 256, (60 + 90 * seed) % 256)
        frame = np.full((height, width, 3), ground, np.uint8)
        cv2.rectangle(frame, (index, 10), (index + 20, 30), (255, 255, 255), -1)
        writer.write(frame)
    writer.release()
    return path.read_bytes()


def data_url(film: bytes) -> str:
    """The file as clients send it."""
    return f"data:video/mp4;base64,{base64.b64encode(film).decode()}"
