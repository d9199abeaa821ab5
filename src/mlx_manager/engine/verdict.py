"""What the check at load found: whether the paged path may be used, and whether that holds for the next load, too."""

from __future__ import annotations

from dataclasses import dataclass

MODEL_ERRORS = (TypeError, ValueError, AttributeError, IndexError, KeyError, RuntimeError)
"""What a model's own code raises when it wants more of its cache than the paged views have. MLX raises RuntimeError for
whatever it cannot do, a failed allocation included."""
_OUT_OF_MEMORY = ("to allocate", "Insufficient Memory")
"""In what MLX says where memory ran short: "[malloc_or_wait] Unable to allocate 1024 bytes", and Metal's own words."""


@dataclass(frozen=True)
class Verdict:
    """Whether the paged path gave the library's logits; `worst` is the largest difference, as a part of the spread."""

    is_equal: bool
    worst: float
    reason: str
    is_final: bool = True
    """Whether it is about the model: what failed may have been the moment's, and is tried again at the next load."""

    @classmethod
    def of_error(cls, error: Exception, said: str) -> Verdict:
        """That of a check that broke off. Raises `error` where memory ran short: that says nothing about the model."""
        if is_out_of_memory(error):
            raise error
        return cls(False, 0.0, f"{said}: {type(error).__name__}: {error}", is_final=False)


def is_out_of_memory(error: Exception) -> bool:
    """Whether `error` is a failed allocation."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)
