"""What the memory budget counts for one model: its plan, what was measured above it, and less while it is trimmed."""

from __future__ import annotations

from collections import deque

from mlx_manager.ipc import ServingReport
from mlx_manager.pool.memory import MemoryPlan

_TOLERANCE = 1.02
"""A process a little above its plan is no reason to reserve more: measuring is that exact."""
_NUM_LOOKS = 3
"""Nor is the peak of a moment, such as getting ready for grammars: it has to be above it at so many looks in a row."""


class Reservation:
    """Nothing is held until `make`, and nothing after `release`.

    A trimmed model has given its caches back and is counted without them. It computes nothing until `regain`, so what
    it takes then is room that has to be found first.
    """

    def __init__(self) -> None:
        self.measured_bytes = 0
        """What its process took when it was last looked at."""
        self._looks: deque[int] = deque(maxlen=_NUM_LOOKS)
        """The same of the last looks."""
        self._plan: MemoryPlan | None = None
        self._excess_bytes = 0
        """The most that was measured above the plan; the next load reserves it too."""
        self._trimmed_bytes: int | None = None

    @property
    def num_bytes(self) -> int:
        """What the budget counts now."""
        return self.full_bytes if self._trimmed_bytes is None else self._trimmed_bytes

    @property
    def full_bytes(self) -> int:
        """What it counts when the model is not trimmed."""
        return 0 if self._plan is None else self._plan.num_bytes + self._excess_bytes

    @property
    def least_bytes(self) -> int:
        """What is left of it by a trim, as far as can be told before; what it is while the model is trimmed."""
        if self._plan is None or self._trimmed_bytes is not None:
            return self.num_bytes
        return min(self._plan.footprint.fixed_bytes + self._excess_bytes, self.full_bytes)

    @property
    def is_trimmed(self) -> bool:
        """Whether the caches were given back, or are about to be."""
        return self._trimmed_bytes is not None

    @property
    def excess_bytes(self) -> int:
        """What is reserved above any plan."""
        return self._excess_bytes

    @property
    def unplanned_bytes(self) -> int:
        """What was measured above the plan last."""
        return 0 if self._plan is None else max(0, self.measured_bytes - self._plan.num_bytes)

    @property
    def planned_bytes(self) -> int:
        """The plan alone."""
        return 0 if self._plan is None else self._plan.num_bytes

    def make(self, plan: MemoryPlan) -> None:
        """Hold what `plan` says."""
        self._plan = plan
        self._trimmed_bytes = None

    def correct(self, report: ServingReport) -> None:
        """Count what the worker found."""
        if self._plan is not None:
            self._plan = self._plan.corrected(report)

    def release(self) -> None:
        """The memory is given back."""
        self._plan = None
        self._trimmed_bytes = None
        self.measured_bytes = 0
        self._looks.clear()

    def forget_excess(self) -> None:
        """The next load reserves what is planned: what was above it was a fault."""
        self._excess_bytes = 0

    def begin_trim(self) -> None:
        """From now on the model is trimmed; it counts as before until `end_trim`."""
        self._trimmed_bytes = self.full_bytes

    def end_trim(self, measured_bytes: int) -> None:
        """The caches are given back, and this is what the process takes without them."""
        self.measured_bytes = measured_bytes
        if self._plan is not None:
            self._trimmed_bytes = max(self._plan.footprint.fixed_bytes, measured_bytes)

    def regain(self) -> None:
        """Count the caches again: there is room for them."""
        self._trimmed_bytes = None

    def measure(self, measured_bytes: int) -> bool:
        """Note what the process takes; whether that stays more than was reserved. From then on it is reserved."""
        self.measured_bytes = measured_bytes
        self._looks.append(measured_bytes)
        lasting_bytes = min(self._looks)
        is_known = len(self._looks) == _NUM_LOOKS
        if self._plan is None or not is_known or lasting_bytes <= self.num_bytes * _TOLERANCE:
            return False
        if self._trimmed_bytes is not None:
            self._trimmed_bytes = lasting_bytes
        else:
            self._excess_bytes = lasting_bytes - self._plan.num_bytes
        return True
