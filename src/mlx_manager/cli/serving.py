"""What `serve` does: choose the model, take the port, run the server, say what to try."""

from __future__ import annotations

import errno
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec

from mlx_manager.app import build_server, check_database, create_app
from mlx_manager.catalog import ModelEntry, ModelKind, Settings
from mlx_manager.cli.disk import local_inventory
from mlx_manager.cli.progress import ProgressLines
from mlx_manager.cli.watching import Announcement, base_url, is_ours
from mlx_manager.errors import InvalidRequest, Unavailable
from mlx_manager.hub import (
    EMBEDDING_NAME,
    STARTER_NAME,
    Inventory,
    ensure_starter,
    fetch_embedding_model,
    link_embedding_model,
)

_BACKLOG = 2048
_FIXES = {
    errno.EACCES: "Ports below 1024 need an administrator's rights: choose another with --port.",
    errno.EADDRNOTAVAIL: "This machine has no such address: check --host.",
}


def run_server(settings: Settings, reread: Callable[[], Settings]) -> None:
    """Serve until interrupted; SIGHUP has the settings read again by `reread`.

    Raises `MlxManagerError` for what keeps the server from starting.
    """
    _make_home(settings.home)
    with _bind(settings.host, settings.port) as listener:
        link_embedding_model(settings.home)
        entry = choose_model(settings)
        settings = msgspec.structs.replace(settings, model=entry.path, port=listener.getsockname()[1])
        check_database(settings)
        logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        if settings.log_level != "debug":
            logging.getLogger("uvicorn").setLevel(logging.WARNING)

        def reread_here() -> Settings:
            # which model and which port these are was found out at the start
            return msgspec.structs.replace(reread(), model=settings.model, port=settings.port)

        server = build_server(create_app(settings, reread=reread_here), settings)
        # uvicorn stops at these by itself and raises them again afterwards, for whoever was there before: nobody.
        for stopping in (signal.SIGINT, signal.SIGTERM):
            signal.signal(stopping, lambda number, frame: None)
        # At level info the pool's log tells how the load goes on.
        announcement = Announcement(
            base_url(settings.host, settings.port), entry, shows_progress=settings.log_level in ("warning", "error")
        )
        _spare_the_collector()
        with announcement:
            server.run(sockets=[listener])


def choose_model(settings: Settings) -> ModelEntry:
    """The model that is loaded at start: the one configured, else the newest on disk, else the starter model.

    The starter model is made, or downloaded, when it is asked for or nothing else is there.
    """
    inventory = Inventory(settings.home)
    entries = [entry for entry in inventory.entries() if entry.kind in (ModelKind.TEXT, ModelKind.VISION)]
    names = {entry.name for entry in entries}
    if settings.model is not None and not (settings.model == STARTER_NAME and STARTER_NAME not in names):
        return local_inventory(settings).find(settings.model)
    if settings.model is None and entries:
        newest = max(entries, key=lambda entry: (entry.created_unix_s, entry.name))
        if len(entries) > 1:
            print(f"Serving {newest.name}, the newest of {len(entries)} models; choose another with --model.")
        return newest
    with ProgressLines(f"Preparing the starter model {STARTER_NAME}") as progress:
        starter = ensure_starter(settings.home, progress)
    with ProgressLines(f"Preparing the embedding model {EMBEDDING_NAME}") as progress:
        try:
            fetch_embedding_model(settings.home, progress)
        except Unavailable as error:
            # answers can be had without it
            print(f"warning: {error.message}")
    return starter


def _spare_the_collector() -> None:
    """Keep what lives as long as the process out of garbage collection, which would walk through it again and again."""
    gc.collect()
    gc.freeze()


def _make_home(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequest(f"{home} cannot be made: {error.strerror}. Choose another with --home.") from None
    if not os.access(home, os.W_OK | os.X_OK):
        raise InvalidRequest(f"{home} cannot be written to. Choose another with --home.")


def _bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address, so that it is known to be ours before anything is loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise InvalidRequest(f"There is no address {host!r}: {error.strerror}. Check --host.") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise Unavailable(_describe_taken(host, port)) from None
        fix = _FIXES.get(error.errno or 0, "Check --host and --port.")
        raise Unavailable(f"The server cannot listen on {host} port {port}: {error.strerror}. {fix}") from None
    return listener


def _describe_taken(host: str, port: int) -> str:
    base = base_url(host, port)
    if is_ours(base):
        return f"MLX Manager already runs on {base}. Use it, stop it, or choose another port with --port."
    return f"Port {port} on {host} is taken by another program. Choose another with --port; --port 0 takes a free one."
