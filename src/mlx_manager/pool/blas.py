"""An OpenBLAS for workers on a CPU: MLX's Linux wheel links reference BLAS, which is some fifteen times slower.

Libraries are found by their file names; nothing is imported or loaded here.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

_MULTIARCH = Path(f"/usr/lib/{platform.machine()}-linux-gnu")

SYSTEM_FOLDERS = (
    _MULTIARCH / "openblas-pthread",
    _MULTIARCH,
    Path("/usr/lib64"),
    Path("/usr/local/lib"),
    Path("/usr/lib"),
)
"""Where distributions install OpenBLAS, tried in this order."""

_FILE_NAMES = ("libopenblasp.so*", "libopenblasp-*.so", "libopenblas.so*")
"""Threaded builds first. Left out: `libopenblas64_…`, which takes 64-bit integers; MLX passes 32-bit ones."""


def worker_environment(base: Mapping[str, str]) -> dict[str, str]:
    """The environment a worker starts with: `base`, on a CPU backend with an OpenBLAS preloaded where one is found.

    An LD_PRELOAD that `base` already holds stays as it is.
    """
    environment = dict(base)
    if "LD_PRELOAD" not in environment and runs_on_linux_cpu():
        library = find_openblas()
        if library is not None:
            environment["LD_PRELOAD"] = str(library)
    return environment


def runs_on_linux_cpu() -> bool:
    """Whether MLX computes on the CPU of a Linux machine here; its CPU backend is a distribution of its own."""
    if not sys.platform.startswith("linux"):
        return False
    return any(metadata.distributions(name="mlx-cpu"))


def find_openblas(system_folders: Sequence[Path] = SYSTEM_FOLDERS, opencv_libraries: Path | None = None) -> Path | None:
    """The system's OpenBLAS, else the one inside the opencv-python wheel; None where there is neither.

    `opencv_libraries` is the wheel's folder of libraries; None looks for it.
    """
    folders = list(system_folders)
    wheel_folder = opencv_libraries or _opencv_libraries()
    if wheel_folder is not None:
        folders.append(wheel_folder)
    for folder in folders:
        for name in _FILE_NAMES:
            for library in sorted(folder.glob(name)):
                # The loader splits LD_PRELOAD at spaces and colons and has no way to quote them.
                if library.is_file() and not any(mark in str(library) for mark in " :"):
                    return library
    return None


def _opencv_libraries() -> Path | None:
    """`opencv_python*.libs` beside the `cv2` package; auditwheel puts what the wheel bundles there."""
    spec = importlib.util.find_spec("cv2")
    if spec is None or not spec.submodule_search_locations:
        return None
    site = Path(next(iter(spec.submodule_search_locations))).parent
    return next(iter(sorted(site.glob("opencv_python*.libs"))), None)
