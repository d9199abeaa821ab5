"""An amount of memory as the operator says it: a size, or a share of what there is."""

from __future__ import annotations

import re

import msgspec

from mlx_manager.catalog.values import render_size, size_bytes

_PERCENT = re.compile(r"\s*(\d{1,3}(?:\.\d{1,3})?)\s*%\s*", re.ASCII)


class MemoryAmount(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two is given."""

    num_bytes: int | None = None
    share: float | None = None
    """0 to 1 of a whole that is known only later."""

    def of(self, whole_bytes: int) -> int:
        """In bytes, where the whole is `whole_bytes`."""
        return self.num_bytes if self.num_bytes is not None else int(whole_bytes * (self.share or 0.0))

    def __str__(self) -> str:
        return render_size(self.num_bytes) if self.num_bytes is not None else f"{100 * (self.share or 0.0):g}%"


def memory_amount(value: object) -> MemoryAmount:
    """ "75%", "12GiB", or a number of bytes."""
    percent = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if percent is not None:
        if float(percent[1]) > 100:
            raise ValueError("it takes a share of 100% or less.")
        return MemoryAmount(share=float(percent[1]) / 100)
    try:
        return MemoryAmount(num_bytes=size_bytes(0)(value))
    except ValueError:
        raise ValueError('it takes a share such as "75%", or a size such as "12GiB".') from None
