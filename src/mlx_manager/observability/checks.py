"""What can be said of this machine and this installation, whether a server runs or not. MLX itself is asked about in a
worker process: this one never loads it.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec
import psutil

from mlx_manager import __version__
from mlx_manager.catalog import ModelKind, render_size
from mlx_manager.hub import STARTER_NAME, Inventory
from mlx_manager.hub.starter import find_installed_gguf
from mlx_manager.pool import find_openblas, runs_on_linux_cpu, worker_environment

_PROBE = [sys.executable, "-m", "mlx_manager.worker", "--probe"]
_PROBE_LIMIT_S = 120
_LOW_DISK_BYTES, _LOW_MEMORY_BYTES = 5 * 1024**3, 4 * 1024**3
_SLOW_GFLOPS = 8.0
"""Reference BLAS reaches about 2 on one core, an OpenBLAS 20 and more."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing looked at."""

    name: str
    state: Literal["ok", "warning", "problem"]
    text: str
    fix: str = ""
    model: str | None = None
    """Which model it is about, where it is about one."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What `python -m mlx_manager.worker --probe` prints, as far as it is shown here."""

    device: str
    memory_bytes: int = 0
    versions: dict[str, str] = {}
    blas: str | None = None
    gemm_gflops: float | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker keeps of its check of a model, as far as it is shown here."""

    model: str
    is_paged: bool
    attention: str
    reason: str


def check_machine(environ: Mapping[str, str], home: Path) -> list[Finding]:
    """Everything but what needs the settings and a running server."""
    return [*check_installation(environ), *check_home(home), *check_verdicts(home)]


def check_installation(environ: Mapping[str, str]) -> Iterator[Finding]:
    """The program, what a worker finds, and the memory."""
    yield _check_program()
    yield from _check_worker(environ)
    yield _check_memory()


def check_home(home: Path) -> Iterator[Finding]:
    """The home folder, its disk, and the models in it."""
    yield _check_home(home)
    yield _check_disk(home)
    yield from _check_models(home)


def _check_program() -> Finding:
    text = f"mlx-manager {__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}"
    return Finding(name="program", state="ok", text=text)


def _check_worker(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Start a worker as the pool would, and say what it finds."""
    try:
        finished = subprocess.run(
            _PROBE, env=worker_environment(environ), capture_output=True, timeout=_PROBE_LIMIT_S, check=True
        )
        probe = msgspec.json.decode(finished.stdout, type=Probe)
    except (subprocess.SubprocessError, msgspec.DecodeError) as error:
        yield Finding(name="device", state="problem", text=_describe_failure(error), fix="Install again: make install")
        return
    yield Finding(name="device", state="ok", text=probe.device)
    versions = ", ".join(f"{name} {version}" for name, version in probe.versions.items())
    yield Finding(name="versions", state="ok", text=versions)
    if runs_on_linux_cpu():
        yield _check_blas(probe)


def _describe_failure(error: Exception) -> str:
    words = "it printed no facts"
    if isinstance(error, subprocess.TimeoutExpired):
        words = f"it took longer than {_PROBE_LIMIT_S} s"
    elif isinstance(error, subprocess.CalledProcessError):
        last = error.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {error.returncode}"]
        words = last[0]
    return f"a worker process cannot start: {words}"


def _check_blas(probe: Probe) -> Finding:
    found = probe.blas or find_openblas()
    speed = "" if probe.gemm_gflops is None else f", {probe.gemm_gflops:.0f} GFLOP/s"
    if found is None:
        return Finding(
            name="blas",
            state="warning",
            text=f"none but the slow one inside MLX{speed}",
            fix="Install an OpenBLAS: apt install libopenblas0-pthread, or pip install opencv-python",
        )
    if probe.gemm_gflops is not None and probe.gemm_gflops < _SLOW_GFLOPS:
        fix = "End what else computes on this machine, then look again; LD_PRELOAD may name another library."
        return Finding(name="blas", state="warning", text=f"{found}, but slow{speed}", fix=fix)
    return Finding(name="blas", state="ok", text=f"{found}{speed}")


def _check_memory() -> Finding:
    memory = psutil.virtual_memory()
    text = f"{render_size(memory.available)} free of {render_size(memory.total)}"
    if memory.available < _LOW_MEMORY_BYTES:
        return Finding(name="memory", state="warning", text=text, fix="Close other programs before loading a model.")
    return Finding(name="memory", state="ok", text=text)


def _check_home(home: Path) -> Finding:
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        fix = "Make it writable, or choose another with MLX_MANAGER_HOME."
        text = f"{home} cannot be written to: {error.strerror}"
        return Finding(name="home", state="problem", text=text, fix=fix)
    return Finding(name="home", state="ok", text=f"{home} can be written to")


def _check_disk(home: Path) -> Finding:
    folder = home
    while not folder.exists():
        folder = folder.parent
    free_bytes = shutil.disk_usage(folder).free
    text = f"{render_size(free_bytes)} free for models"
    if free_bytes < _LOW_DISK_BYTES:
        fix = f"Make room, or move MLX_MANAGER_HOME ({home}) to another disk."
        return Finding(name="disk", state="warning", text=text, fix=fix)
    return Finding(name="disk", state="ok", text=text)


def _check_models(home: Path) -> Iterator[Finding]:
    inventory = Inventory(home)
    for sentence in inventory.broken():
        yield Finding(name="models", state="warning", text=sentence, fix="Remove the folder, or complete it.")
    names = [entry.name for entry in inventory.entries()]
    if names:
        yield Finding(name="models", state="ok", text=", ".join(names))
    else:
        source = "from its installed package" if find_installed_gguf() else "after a download of 98 MB"
        yield Finding(name="models", state="ok", text=f"none yet; `serve` starts with {STARTER_NAME}, {source}")


def check_verdicts(home: Path, served: Collection[str] = ()) -> Iterator[Finding]:
    """What the load-time checks found, as workers kept it, of each model that is here and not among the `served`."""
    newest: dict[str, Verdict] = {}
    files = (home / "state" / "verdicts").glob("*.json")
    for file in sorted(files, key=lambda file: file.stat().st_mtime):
        try:
            verdict = msgspec.json.decode(file.read_bytes(), type=Verdict)
        except msgspec.ValidationError:
            # of a version that did not write the model's name: the next load checks again
            continue
        except (OSError, msgspec.DecodeError) as error:
            text, fix = f"{file} cannot be read: {error}", "Remove it: the next load checks again."
            yield Finding(name="attention", state="warning", text=text, fix=fix)
            continue
        newest[verdict.model] = verdict
    generating = (ModelKind.TEXT, ModelKind.VISION)
    entries = [entry for entry in Inventory(home).entries() if entry.kind in generating]
    names = [entry.name for entry in entries if entry.name not in served]
    for name in names:
        kept = newest.get(name)
        if kept is None:
            text = f"{name}: no check is kept; it is chosen and checked when the model is loaded"
            yield Finding(name="attention", state="ok", text=text, model=name)
        else:
            how = f"paged, {kept.attention}" if kept.is_paged else "sequential"
            yield serving_finding(name, f"{how} at its last check", kept.reason, is_batched=kept.is_paged)
    if not names and not served:
        text = "chosen and checked for each model when it is loaded; there is none yet"
        yield Finding(name="attention", state="ok", text=text)


def serving_finding(name: str, how: str, reason: str, *, is_batched: bool) -> Finding:
    """How a model is served, and why."""
    return Finding(
        name="attention",
        state="ok" if is_batched else "warning",
        text=f"{name}: {how} ({reason})",
        fix="" if is_batched else "This model runs without batching; the reason is above.",
        model=name,
    )
