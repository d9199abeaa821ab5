"""What `doctor` looks at. MLX itself is asked about in a worker process: this one never loads it."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec
import psutil

from mlx_manager import __version__
from mlx_manager.catalog import ModelKind, Settings, SettingsError, load_settings, render_size, unknown_variables
from mlx_manager.cli.watching import base_url, fetch_json, is_ours
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


def run_checks(environ: Mapping[str, str], flags: Mapping[str, object]) -> list[Finding]:
    """Everything `doctor` has to say, in the order in which it is printed."""
    findings = [_check_program(), *_check_worker(environ), _check_memory()]
    findings += [
        Finding(name="settings", state="warning", text=sentence, fix="Correct its name, or unset it.")
        for sentence in unknown_variables(environ)
    ]
    try:
        settings = load_settings(environ, flags)
    except SettingsError as error:
        return [*findings, Finding(name="settings", state="problem", text=str(error), fix="Correct the setting.")]
    return [
        *findings,
        _check_home(settings.home),
        _check_disk(settings.home),
        *_check_models(settings),
        *_check_server(settings),
    ]


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


def _check_models(settings: Settings) -> Iterator[Finding]:
    inventory = Inventory(settings.home)
    for sentence in inventory.broken():
        yield Finding(name="models", state="warning", text=sentence, fix="Remove the folder, or complete it.")
    names = [entry.name for entry in inventory.entries()]
    if names:
        yield Finding(name="models", state="ok", text=", ".join(names))
    else:
        source = "from its installed package" if find_installed_gguf() else "after a download of 98 MB"
        yield Finding(name="models", state="ok", text=f"none yet; `serve` starts with {STARTER_NAME}, {source}")


def _check_server(settings: Settings) -> Iterator[Finding]:
    """Whether the port is free or ours; of a running server also how it serves its models."""
    base = base_url(settings.host, settings.port)
    spare = "kept: a model loads without waiting for imports" if settings.use_spare else "not kept (use_spare = false)"
    spare_finding = Finding(name="spare", state="ok", text=spare)
    if is_ours(base):
        yield Finding(name="port", state="ok", text=f"MLX Manager runs on {base}")
        served = list(_check_serving(base))
        yield from served
        yield from _check_verdicts(settings.home, {finding.model for finding in served if finding.model})
        yield spare_finding
        return
    taken = _try_port(settings.host, settings.port)
    if taken is None:
        yield Finding(name="port", state="ok", text=f"{settings.host} port {settings.port} is free")
    else:
        yield Finding(name="port", state="problem", text=taken, fix="Choose another address with --host and --port.")
    yield from _check_verdicts(settings.home)
    yield spare_finding


def _check_serving(base: str) -> Iterator[Finding]:
    """How a running server serves the models that it has loaded."""
    for model in (fetch_json(f"{base}/v1/models") or {}).get("data", []):
        serving = model.get("serving")
        if serving:
            how = f"{serving['path']}, {serving['attention']} in {serving['dtype']}"
            yield _serving_finding(model["id"], how, serving["reason"], is_batched=serving["path"] != "sequential")


def _check_verdicts(home: Path, served: Collection[str] = ()) -> Iterator[Finding]:
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
            yield _serving_finding(name, f"{how} at its last check", kept.reason, is_batched=kept.is_paged)
    if not names and not served:
        text = "chosen and checked for each model when it is loaded; there is none yet"
        yield Finding(name="attention", state="ok", text=text)


def _serving_finding(name: str, how: str, reason: str, *, is_batched: bool) -> Finding:
    return Finding(
        name="attention",
        state="ok" if is_batched else "warning",
        text=f"{name}: {how} ({reason})",
        fix="" if is_batched else "This model runs without batching; the reason is above.",
        model=name,
    )


def _try_port(host: str, port: int) -> str | None:
    """None where a server could listen there, else why it could not."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"{host} port {port} is taken by another program"
        return f"{host} port {port} cannot be listened on: {os.strerror(error.errno) if error.errno else error}"
    return None
