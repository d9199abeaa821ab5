"""Databases: a SQLite file for each test, and a real PostgreSQL where its server is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_DEBIAN_FOLDERS = Path("/usr/lib/postgresql")


def _find_postgres() -> Path | None:
    """The folder with initdb and postgres."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    return next((folder.parent for folder in sorted(_DEBIAN_FOLDERS.glob("*/bin/initdb"), reverse=True)), None)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The address of a PostgreSQL that runs while the tests do."""
    programs = _find_postgres()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
    # it refuses to run as root; a name on its own is short enough for a socket's path
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    if os.geteuid() == 0 and not _has_user(user):
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, user, user)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]

        def call(program: str, *arguments: str) -> None:
            # its server would hold a pipe open: what it says goes to a file
            with (folder / "log").open("ab") as log:
                subprocess.run(
                    [programs / program, *arguments],
                    user=user if os.geteuid() == 0 else None,
                    cwd=folder,
                    stdout=log,
                    stderr=log,
                    check=True,
                )

        call("initdb", "-D", str(folder / "data"), "-U", "mlx", "--auth=trust", "--no-sync")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        call("pg_ctl", "-D", str(folder / "data"), "-o", options, "-w", "start")
        try:
            yield f"postgresql://mlx@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "-D", str(folder / "data"), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """Each kind of database in turn; None is the SQLite file of a home."""
    if request.param == "sqlite":
        return None
    return str(request.getfixturevalue("postgres_url"))
