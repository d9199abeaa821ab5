"""Where and with what the figures were taken."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

_PACKAGES = ("mlx-manager", "mlx", "mlx-lm", "mlx-vlm", "transformers", "httpx")


def describe_machine() -> dict[str, str | int | float]:
    """The machine, for the head of a results file: no host name, no path."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "num_cores": os.cpu_count() or 0,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average_1min": round(os.getloadavg()[0], 2),
    }


def installed_versions() -> dict[str, str]:
    """The versions that decide the figures; a package that is not installed is left out."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        for distribution in metadata.distributions(name=name):
            versions[name] = distribution.version
            break
    return versions


def describe_run() -> dict[str, object]:
    """What every results file says about where its figures come from: machine, versions, and commit of this tree."""
    repository = Path(__file__).resolve().parent.parent
    return {"machine": describe_machine(), "versions": installed_versions(), "commit": git_commit(repository)}


def describe_head() -> dict[str, Any]:
    """The same with the date, and the BLAS that this process was started with."""
    preloaded = os.environ.get("LD_PRELOAD", "")
    return {
        "date": datetime.date.today().isoformat(),
        **describe_run(),
        "blas": Path(preloaded).name if preloaded else "as MLX ships it",
    }


def git_commit(repository: Path) -> str:
    """The commit that is checked out, marked when files differ from it; "unknown" outside a repository."""
    commit = _output_of(["git", "rev-parse", "--short=12", "HEAD"], repository)
    changes = _output_of(["git", "status", "--porcelain", "--untracked-files=no"], repository)
    return (commit or "unknown") + (" with local changes" if changes else "")


def machine_slug(machine: dict[str, str | int | float]) -> str:
    """The machine as part of a file name."""
    words = f"{machine['system']} {machine['cpu']} {machine['num_cores']}cores"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def _cpu_model() -> str:
    if platform.system() == "Darwin":
        return _output_of(["sysctl", "-n", "machdep.cpu.brand_string"], Path("/")) or platform.processor()
    cpu_info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.+)$", cpu_info.read_text(), re.MULTILINE) if cpu_info.exists() else []
    return names[0] if names else platform.machine()


def _output_of(command: list[str], folder: Path) -> str:
    """What a command prints, stripped; empty when it is missing or fails."""
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
