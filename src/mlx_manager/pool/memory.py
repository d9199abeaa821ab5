"""What workers take of memory: planned from their files before a load, measured from outside while they run."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import psutil

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.hub import Footprint, predict_footprint
from mlx_manager.hub.fit import PROCESS_BYTES
from mlx_manager.hub.safetensors_header import check_whole
from mlx_manager.ipc import ServingReport
from mlx_manager.pool.blas import runs_on_linux_cpu

SPARE_BYTES = PROCESS_BYTES
"""What the spare worker takes, which has its imports done and no model."""
_LEAST_CONTEXT = 2048
_LEAST_BLOCKS = 16
_LEAST_KV_BYTES = 1024**2
_PSS = re.compile(rb"^Pss:\s+(\d+) kB", re.MULTILINE)


class Predictor(Protocol):
    """Tells the footprint of a model from its files. Raises `InvalidRequest`. Called in a thread."""

    def __call__(self, entry: ModelEntry, options: LoadOptions) -> Footprint:
        """What the worker of `entry` will take when it is loaded with `options`."""
        ...


def predict_here(entry: ModelEntry, options: LoadOptions) -> Footprint:
    """The footprint on this machine. Weights that break off are found here, before room is made for them."""
    check_whole(Path(entry.path))
    return predict_footprint(entry, options, is_cpu_backend=runs_on_linux_cpu())


@dataclass(frozen=True)
class MemoryPlan:
    """What one model is going to take: weights, process, the KV arena grown to its budget, a step's activations."""

    options: LoadOptions
    footprint: Footprint

    @property
    def num_bytes(self) -> int:
        """All of it."""
        return self.footprint.settled_bytes(self.options.kv_budget_bytes, self.options.max_batch_size)

    def within(self, room_bytes: int) -> MemoryPlan:
        """The same with a KV budget that lets it fit into `room_bytes`, as far as that can be.

        The budget never sinks below what one request of moderate length needs: then the plan stays too large.
        """
        if self.num_bytes <= room_bytes:
            return self
        fails, fits = self.options.kv_budget_bytes, min(self._least_kv_bytes, self.options.kv_budget_bytes)
        while fails - fits > 1024**2:
            middle = (fails + fits) // 2
            if self._with_budget(middle).num_bytes <= room_bytes:
                fits = middle
            else:
                fails = middle
        return self._with_budget(fits)

    def corrected(self, report: ServingReport) -> MemoryPlan:
        """The same with what the worker found the weights and the keys and values to take."""
        footprint = msgspec.structs.replace(
            self.footprint, weights_bytes=report.weights_bytes, kv_bytes_per_token=report.kv_bytes_per_token
        )
        return MemoryPlan(self.options, footprint)

    @property
    def _least_kv_bytes(self) -> int:
        context = min(self.footprint.max_context, _LEAST_CONTEXT)
        return max(self.footprint.cache_bytes(1, context), _LEAST_BLOCKS * self.footprint.block_bytes, _LEAST_KV_BYTES)

    def _with_budget(self, kv_budget_bytes: int) -> MemoryPlan:
        return MemoryPlan(msgspec.structs.replace(self.options, kv_budget_bytes=kv_budget_bytes), self.footprint)


def measure_process(pid: int) -> int:
    """Bytes of memory that a process takes, its part of what it shares counted in; 0 once it is gone.

    On Linux its proportional set size. Elsewhere its resident set, which may leave out what Metal holds for it: add
    nothing to it, but take at least what the worker itself reports.
    """
    try:
        if sys.platform.startswith("linux"):
            found = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_bytes())
            if found is not None:
                return int(found.group(1)) * 1024
        return int(psutil.Process(pid).memory_info().rss)
    except (OSError, psutil.Error):
        return 0


def available_bytes() -> int:
    """Memory that the system can give out without swapping."""
    return int(psutil.virtual_memory().available)
