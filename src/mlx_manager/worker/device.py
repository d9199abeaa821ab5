"""What this process computes on, for `Hello` and `doctor`."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
from importlib import metadata
from typing import Any

import mlx.core as mx
import psutil

from mlx_manager.models.loading import is_cpu_backend

_PACKAGES = ("mlx", "mlx-lm", "mlx-vlm", "transformers")


def device_name() -> str:
    """What MLX computes on, for people."""
    kind = "cpu" if is_cpu_backend() else "gpu"
    name = mx.device_info().get("device_name", platform.processor() or platform.machine())
    return f"{name} ({kind})"


def preloaded_blas() -> str | None:
    """The BLAS library that was preloaded into this process, if one was."""
    libraries = os.environ.get("LD_PRELOAD", "").replace(":", " ").split()
    return next((library for library in libraries if "blas" in library.lower()), None)


def package_versions() -> dict[str, str]:
    """Versions of the libraries that decide what a model answers."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def recommended_bytes() -> int:
    """The working set that the device recommends; on a CPU the system's memory."""
    recommended = mx.device_info().get("max_recommended_working_set_size")
    if isinstance(recommended, int) and not is_cpu_backend():
        return recommended
    return int(psutil.virtual_memory().total)


def give_memory_back() -> None:
    """Hand buffers that nothing uses back to the device, and free pages of the heap to the system."""
    mx.clear_cache()
    if sys.platform.startswith("linux"):
        trim_heap = getattr(ctypes.CDLL(None), "malloc_trim", None)  # the C library need not be glibc
        if trim_heap is not None:
            trim_heap(0)


def probe() -> dict[str, Any]:
    """Facts about this machine as MLX sees it; multiplies one matrix to tell a fast BLAS from a slow one."""
    return {
        "device": device_name(),
        "is_cpu_backend": is_cpu_backend(),
        "memory_bytes": psutil.virtual_memory().total,
        "memory_available_bytes": psutil.virtual_memory().available,
        "device_info": {key: value for key, value in mx.device_info().items() if isinstance(value, int | str)},
        "versions": package_versions(),
        "blas": preloaded_blas(),
        "gemm_gflops": round(_gemm_gflops(), 1),
    }


def _gemm_gflops(size: int = 512) -> float:
    left, right = mx.random.normal((size, size)), mx.random.normal((size, size))
    mx.eval(left @ right)
    started_s = time.perf_counter()
    mx.eval(left @ right)
    return 2 * size**3 / (time.perf_counter() - started_s) / 1e9
