"""What `doctor` looks at: this machine and this installation, the settings, and a server that runs."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Mapping

from mlx_manager.catalog import Settings, SettingsError, load_settings, unknown_variables
from mlx_manager.cli.watching import base_url, fetch_json, is_ours
from mlx_manager.observability.checks import Finding, check_home, check_installation, check_verdicts, serving_finding


def run_checks(environ: Mapping[str, str], flags: Mapping[str, object]) -> list[Finding]:
    """Everything `doctor` has to say, in the order in which it is printed."""
    findings = list(check_installation(environ))
    findings += [
        Finding(name="settings", state="warning", text=sentence, fix="Correct its name, or unset it.")
        for sentence in unknown_variables(environ)
    ]
    try:
        settings = load_settings(environ, flags)
    except SettingsError as error:
        return [*findings, Finding(name="settings", state="problem", text=str(error), fix="Correct the setting.")]
    return [*findings, *check_home(settings.home), *_check_server(settings)]


def _check_server(settings: Settings) -> Iterator[Finding]:
    """Whether the port is free or ours; of a running server also how it serves its models."""
    base = base_url(settings.host, settings.port)
    spare = "kept: a model loads without waiting for imports" if settings.use_spare else "not kept (use_spare = false)"
    spare_finding = Finding(name="spare", state="ok", text=spare)
    if is_ours(base):
        yield Finding(name="port", state="ok", text=f"MLX Manager runs on {base}")
        served = list(_check_serving(base))
        yield from served
        yield from check_verdicts(settings.home, {finding.model for finding in served if finding.model})
        yield spare_finding
        return
    taken = _try_port(settings.host, settings.port)
    if taken is None:
        yield Finding(name="port", state="ok", text=f"{settings.host} port {settings.port} is free")
    else:
        yield Finding(name="port", state="problem", text=taken, fix="Choose another address with --host and --port.")
    yield from check_verdicts(settings.home)
    yield spare_finding


def _check_serving(base: str) -> Iterator[Finding]:
    """How a running server serves the models that it has loaded."""
    for model in (fetch_json(f"{base}/v1/models") or {}).get("data", []):
        serving = model.get("serving")
        # other names of the same model have it, too
        if serving and model["id"] == model.get("root", model["id"]):
            how = f"{serving['path']}, {serving['attention']} in {serving['dtype']}"
            yield serving_finding(model["id"], how, serving["reason"], is_batched=serving["path"] != "sequential")


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
