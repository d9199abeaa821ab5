"""update-check against an index on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from mlx_manager import __version__
from tests.cli.server_process import run


@contextmanager
def index(body: bytes) -> Iterator[str]:
    """The address of a page with this body."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/json"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("99.1.0", f"There is a newer release: 99.1.0. This is {__version__}.\n"),
        (__version__, f"This is {__version__}, and {__version__} is the newest release.\n"),
    ],
)
def test_it_compares_with_the_newest_release(tmp_path: Path, version: str, said: str) -> None:
    with index(json.dumps({"info": {"version": version}}).encode()) as url:
        assert run(tmp_path, "update-check", "--update-url", url).stdout == said


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    unset = run(tmp_path, "update-check")
    assert (unset.returncode, "update_url is not set, so nobody is asked" in unset.stderr) == (2, True)
    with index(b"<html>") as url:
        odd = run(tmp_path, "update-check", MLX_MANAGER_UPDATE_URL=url)
    assert (odd.returncode, "names no version" in odd.stderr) == (1, True)
