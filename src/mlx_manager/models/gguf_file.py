"""The header of a GGUF file: its metadata and the table of its tensors, checked against the size of the file.

MLX reads the weights themselves, but not the header of a damaged file safely, nor the types of the tensors.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlx_manager.errors import InvalidRequest

Scalar = str | int | float | bool
MetadataValue = Scalar | list[Scalar]


@dataclass(frozen=True)
class TensorHeader:
    """One tensor as the header lists it. `shape` is in GGUF's order: the length of a row comes first."""

    name: str
    type: str
    """ggml's name of its type: F16, Q4_0, Q4_K."""
    shape: tuple[int, ...]
    offset: int
    """Of its first byte, from the start of the tensors."""

    @property
    def num_bytes(self) -> int:
        """Bytes it takes in the file; 0 for a type whose layout is not known here."""
        block_elements, block_bytes = BLOCK_LAYOUTS.get(self.type, (1, 0))
        num_elements = 1
        for length in self.shape:
            num_elements *= length
        return num_elements // block_elements * block_bytes


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file says about itself."""

    metadata: Mapping[str, MetadataValue]
    tensors: tuple[TensorHeader, ...]
    data_start: int
    """The byte of the file from which the tensors' offsets count."""


BLOCK_LAYOUTS: Mapping[str, tuple[int, int]] = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
}
"""Elements and bytes of one block, of the types that can be imported."""

# fmt: off
_TYPE_NAMES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
}
# fmt: on
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4


def read_header(path: Path) -> GgufHeader:
    """Read and check the header of the GGUF file at `path`.

    Raises `InvalidRequest` when the file is not a GGUF, of a version not known here, cut short, or inconsistent.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _HeaderReader(path, content).read()
    except FileNotFoundError:
        raise InvalidRequest(f"There is no file {path}.") from None
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise InvalidRequest(f"{path} cannot be read as a GGUF file: {error}.") from None


class _HeaderReader:
    """Reads forward through one mapped file."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self._path = path
        self._content = content
        self._num_bytes = len(content)
        self._at = 0

    def read(self) -> GgufHeader:
        if self._content[:4] != b"GGUF":
            raise InvalidRequest(f"{self._path} is not a GGUF file: it does not begin with the letters GGUF.")
        self._at = 4
        version = self._number("I")
        if version not in (2, 3):
            raise InvalidRequest(
                f"{self._path} is a GGUF file of version {version}; versions 2 and 3 (little-endian) are supported."
            )
        num_tensors, num_keys = self._number("Q"), self._number("Q")
        metadata: dict[str, MetadataValue] = {}
        for _ in range(num_keys):
            key = self._string()
            metadata[key] = self._value(self._number("I"), key)
        tensors = tuple(self._tensor() for _ in range(num_tensors))
        return GgufHeader(metadata, tensors, self._check_data(metadata, tensors))

    def _tensor(self) -> TensorHeader:
        name = self._string()
        num_dimensions = self._number("I")
        if num_dimensions > _MAX_DIMENSIONS:
            raise self._damaged(f"tensor {name!r} has {num_dimensions} dimensions")
        shape = tuple(self._number("Q") for _ in range(num_dimensions))
        type_number = self._number("I")
        return TensorHeader(name, _TYPE_NAMES.get(type_number, f"number {type_number}"), shape, self._number("Q"))

    def _check_data(self, metadata: Mapping[str, MetadataValue], tensors: tuple[TensorHeader, ...]) -> int:
        """Where the tensors begin, all of which have to lie inside the file."""
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0 or alignment % 8:
            raise self._damaged(f"its general.alignment is {alignment!r}")
        start = -(-self._at // alignment) * alignment
        for tensor in tensors:
            end = start + tensor.offset + tensor.num_bytes
            if end > self._num_bytes:
                raise InvalidRequest(
                    f"{self._path} is cut short: tensor {tensor.name!r} ends at byte {end:,}, the file at "
                    f"{self._num_bytes:,}. Download it again."
                )
        return start

    def _value(self, type_number: int, key: str) -> MetadataValue:
        if type_number == _STRING:
            return self._string()
        if type_number != _ARRAY:
            return self._number(self._scalar_code(type_number, key))
        element_type, length = self._number("I"), self._number("Q")
        if element_type == _STRING:
            self._need(length * 8)
            return [self._string() for _ in range(length)]
        code = self._scalar_code(element_type, key)
        num_bytes = struct.calcsize(f"<{code}") * length
        self._need(num_bytes)
        values = list(struct.unpack_from(f"<{length}{code}", self._content, self._at))
        self._at += num_bytes
        return values

    def _scalar_code(self, type_number: int, key: str) -> str:
        if type_number not in _SCALARS:
            raise self._damaged(f"the value of {key!r} has the unknown type {type_number}")
        return _SCALARS[type_number]

    def _number(self, code: str) -> int:
        num_bytes = struct.calcsize(f"<{code}")
        self._need(num_bytes)
        (value,) = struct.unpack_from(f"<{code}", self._content, self._at)
        self._at += num_bytes
        return value  # type: ignore[no-any-return]

    def _string(self) -> str:
        num_bytes = self._number("Q")
        self._need(num_bytes)
        raw = self._content[self._at : self._at + num_bytes]
        self._at += num_bytes
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self._damaged(f"a text in its header, at byte {self._at - num_bytes:,}, is not UTF-8") from None

    def _need(self, num_bytes: int) -> None:
        if self._at + num_bytes > self._num_bytes:
            raise InvalidRequest(
                f"{self._path} is cut short: its header goes on past the end of the file ({self._num_bytes:,} bytes). "
                "Download it again."
            )

    def _damaged(self, what: str) -> InvalidRequest:
        return InvalidRequest(f"{self._path} is damaged: {what}. Download it again.")
