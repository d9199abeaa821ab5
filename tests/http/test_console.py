"""What the console takes of the server's paths, and from whom."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import httpx
import pytest

from mlx_manager.backends.scripted import script_of
from mlx_manager.ui.paths import PLACES
from tests.http.scripted_server import Serve, Served

SCRIPTS = {"m": script_of(("Hi",))}


@pytest.fixture
def served(serve: Serve) -> Served:
    return serve(SCRIPTS)


@contextmanager
def logged_in(served: Served) -> Iterator[httpx.Client]:
    """A client with the session of the first account."""
    with served.http() as http:
        http.post("/auth/register", json={"name": "ada", "password": "long enough to be one"}).raise_for_status()
        yield http


def test_a_page_is_served_whole_and_from_here_alone(served: Served) -> None:
    with logged_in(served) as http:
        page = http.get("/")
        assert page.status_code == 200
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert "<title>Home · MLX Manager</title>" in page.text
        assert "https://" not in page.text.replace("https://www.w3.org", "")
        assert http.get("/_console/console.css").status_code == 200


def test_other_paths_stay_those_of_the_api(served: Served) -> None:
    with logged_in(served) as http:
        for path in ("/v1/nothing", "/nothing", "/_nicegui_other"):
            assert http.get(path).json()["error"]["code"] == "not_found"
        assert http.post("/").json()["error"]["code"] == "method_not_allowed"


def test_it_can_be_switched_off(serve: Serve) -> None:
    with serve(SCRIPTS, console=False).http() as http:
        # the path itself is known: clients ask HEAD of it to see whether a server is there
        assert http.get("/").status_code == 405
        assert http.get("/pool").status_code == 404
        assert http.get("/v1/models").status_code == 200


def test_pages_of_other_sites_open_no_connection(served: Served) -> None:
    with logged_in(served) as http:
        session = f"mlx_manager_session={http.cookies['mlx_manager_session']}"
        for headers in ({"origin": "http://evil.example"}, {"host": "evil.example"}):
            path = "/_nicegui_ws/socket.io/?EIO=4&transport=polling"
            assert http.get(path, headers=headers).status_code == 403, headers
            assert http.post("/_nicegui/client/x/upload/1", headers=headers).status_code == 403
    here = f"127.0.0.1:{served.port}"
    assert handshake(served.port, here, "http://evil.example", session) == 403
    assert handshake(served.port, "evil.example", "http://evil.example", session) == 403
    assert handshake(served.port, here, f"http://{here}", "none=1") == 403
    assert handshake(served.port, here, f"http://{here}", session) == 101


def test_nobody_sees_a_page_without_a_session(served: Served) -> None:
    with served.http() as http:
        for place in PLACES:
            answer = http.get(place.path)
            assert answer.status_code == 303
            assert answer.headers["location"] == f"/login?next={quote(place.path, safe='')}"
        assert http.get("/_nicegui_ws/socket.io/?EIO=4&transport=polling").status_code == 403
        assert http.post("/_nicegui/client/x/upload/1").status_code == 403


def test_pages_of_admins_are_for_admins(served: Served) -> None:
    with logged_in(served) as admin, served.http() as http:
        admin.post("/admin/users", json={"name": "bob", "password": "also long enough"}).raise_for_status()
        http.post("/auth/login", json={"name": "bob", "password": "also long enough"}).raise_for_status()
        statuses = {place.path: http.get(place.path).status_code for place in PLACES}
        assert statuses == {place.path: 403 if place.is_for_admins else 200 for place in PLACES}
        page = http.get("/").text
        assert "/profile" in page
        assert "/users" not in page


@pytest.mark.parametrize("following", ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:x"])
def test_a_login_leads_nowhere_else(served: Served, following: str) -> None:
    with logged_in(served) as http:
        assert http.get("/login", params={"next": following}).headers["location"] == "/"
        assert http.get("/login", params={"next": "/profile"}).headers["location"] == "/profile"


def test_the_first_account_is_asked_for_where_it_may_be_made(served: Served, serve: Serve) -> None:
    with served.http() as http:
        assert "Create the account" in http.get("/login").text
    with serve(SCRIPTS, host="0.0.0.0").http() as http:
        assert "mlx-manager user create NAME" in http.get("/login").text


def handshake(port: int, host: str, origin: str, cookie: str) -> int:
    """The status that opening a WebSocket gets."""
    lines = (
        "GET /_nicegui_ws/socket.io/?EIO=4&transport=websocket&client_id=none HTTP/1.1",
        f"Host: {host}",
        f"Origin: {origin}",
        f"Cookie: {cookie}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return int(connection.recv(200).split()[1])


def test_one_app_after_the_other_shows_its_console(serve: Serve) -> None:
    """NiceGUI keeps things for the whole process: a second app gets its turn when the first is gone."""
    first = serve(SCRIPTS)
    with logged_in(first) as http:
        assert http.get("/").status_code == 200
        session = http.cookies["mlx_manager_session"]
    second = serve(SCRIPTS)
    with second.http() as http:
        http.cookies.set("mlx_manager_session", session)
        assert http.get("/").status_code == 503
        assert http.get("/v1/models").status_code == 200
    first.stop()
    deadline_s = time.monotonic() + 20
    with second.http() as http:
        http.cookies.set("mlx_manager_session", session)
        while http.get("/").status_code != 200:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)


def test_nicegui_is_loaded_at_the_first_visit_only_and_model_code_never() -> None:
    code = (
        "import sys; from mlx_manager.app import create_app; from mlx_manager.catalog import load_settings; "
        "create_app(load_settings({}, {'home': '/nowhere'})); "
        "sys.exit(len({'nicegui', 'mlx.core', 'mlx_lm', 'transformers', 'tokenizers'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
