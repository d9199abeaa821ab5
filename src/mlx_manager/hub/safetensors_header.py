"""The tensors of a model folder, by name, type and shape: only the headers of its safetensors files are read."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path

from mlx_manager.errors import InvalidRequest

DTYPE_BITS = {
    "F64": 64,
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F4": 4,
    "I64": 64,
    "U64": 64,
    "I32": 32,
    "U32": 32,
    "I16": 16,
    "U16": 16,
    "I8": 8,
    "U8": 8,
    "BOOL": 8,
}
"""Bits of one element, by the format's own names. https://github.com/huggingface/safetensors"""
_MAX_HEADER_BYTES = 100_000_000
"""The limit of the reference implementation."""


@dataclass(frozen=True)
class Tensor:
    """One tensor as its file declares it."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        """Elements, packed ones counted as they are stored."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.num_elements * DTYPE_BITS[self.dtype] // 8

    @property
    def is_floating(self) -> bool:
        """Whether MLX takes it for floating point, so that a change of type reaches it."""
        return self.dtype in ("F32", "F16", "BF16", "F64")


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of the files that mlx-lm loads, `model*.safetensors`.

    Raises `InvalidRequest` that names the file which is damaged, or says that there is none.
    """
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise InvalidRequest(f"{folder} holds no weights: it has no model*.safetensors. Download the model again.")
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors.update(_read_header(file))
    return tensors


def check_whole(folder: Path) -> None:
    """Raises `InvalidRequest` that names a file of weights which breaks off, as one does whose copy was interrupted."""
    for file in sorted(folder.glob("model*.safetensors")):
        num_needed = sum(tensor.nbytes for tensor in _read_header(file).values())
        num_there = file.stat().st_size
        if num_there < num_needed:
            raise InvalidRequest(
                f"{file} breaks off: it has {num_there} of at least {num_needed} bytes. Download the model again."
            )


def _read_header(file: Path) -> dict[str, Tensor]:
    try:
        with file.open("rb") as stream:
            (num_bytes,) = struct.unpack("<Q", stream.read(8))
            if num_bytes > _MAX_HEADER_BYTES:
                raise ValueError(f"its header claims {num_bytes} bytes")
            header = json.loads(stream.read(num_bytes))
            return {name: _parse(fields) for name, fields in header.items() if name != "__metadata__"}
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidRequest(f"{file} is not a safetensors file: {error}. Download the model again.") from None


def _parse(fields: dict[str, object]) -> Tensor:
    dtype, shape = fields["dtype"], fields["shape"]
    if dtype not in DTYPE_BITS or not isinstance(shape, list) or not all(isinstance(size, int) for size in shape):
        raise ValueError(f"a tensor of type {dtype!r} and shape {shape!r}")
    return Tensor(str(dtype), tuple(shape))
