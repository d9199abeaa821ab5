"""Accounts, keys and secrets from the terminal, beside a running server and without one."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from mlx_manager.cli.main import app
from mlx_manager.errors import MlxManagerError
from tests.cli.server_process import COMMAND, environment, run, serving
from tests.hub.gguf_writer import tiny_llama

PASSWORD = "correct horse\n"


def tell(home: Path, *arguments: str, said: str = "") -> subprocess.CompletedProcess[str]:
    """One command, with `said` on its standard input."""
    return subprocess.run(
        [*COMMAND, *arguments], env=environment(home), input=said, capture_output=True, text=True, check=False
    )


def command(home: Path, *arguments: str, said: str = "") -> str:
    """One command in this process, which saves it half a second: what it prints, or the error that it ends with."""
    done = CliRunner().invoke(app, [*arguments, "--home", str(home)], input=said)
    assert done.exception is None or isinstance(done.exception, MlxManagerError), done.output
    return done.output if done.exception is None else str(done.exception)


def test_accounts_and_keys_of_a_server_that_does_not_run(tmp_path: Path) -> None:
    assert "mlx-manager user create NAME" in command(tmp_path, "user", "list")
    assert "ada can log in now, as admin" in command(tmp_path, "user", "create", "Ada", said=PASSWORD)
    assert "as user" in command(tmp_path, "user", "create", "bob", said=PASSWORD)
    assert "already" in command(tmp_path, "user", "create", "bob", said=PASSWORD)
    assert "A password has 8" in command(tmp_path, "user", "create", "eve", said="short\n")
    assert "last admin" in command(tmp_path, "user", "disable", "ada")
    assert "bob: admin, active" in command(tmp_path, "user", "role", "bob", "admin")
    assert command(tmp_path, "user", "password", "bob", said="another one\n") == "bob has a new password.\n"
    assert "--user NAME" in command(tmp_path, "key", "create", "ci")
    made = command(tmp_path, "key", "create", "ci", "--user", "bob", "--rpm", "5", "--days", "3")
    secret = re.search(r"^mlxm_\S+$", made, re.MULTILINE)
    assert secret
    listed = command(tmp_path, "key", "list")
    assert secret[0] not in listed
    assert f"…{secret[0][-4:]}" in listed
    changed = command(tmp_path, "key", "set", "1", "--budget", "2.5", "--model", "m", "--days", "0", "--local-only")
    limits = "models m, 5 requests a minute, $2.5 a month, this machine only"
    assert changed == f"The key 'ci': inference, expires never, limits: {limits}\n"
    assert limits in command(tmp_path, "key", "list")
    assert command(tmp_path, "key", "set", "1", "--no-limits").endswith("limits: none\n")
    assert "has to be more than 0" in command(tmp_path, "key", "set", "1", "--budget", "0")
    assert "good no longer" in command(tmp_path, "key", "revoke", "1")
    limited = command(tmp_path, "user", "limit", "bob", "--tokens-per-day", "9", "--local-only")
    assert limited == "bob, limits: 9 tokens a day, this machine only\n"
    assert command(tmp_path, "user", "limit", "bob", "--not-local-only") == "bob, limits: 9 tokens a day\n"
    assert command(tmp_path, "user", "limit", "bob") == "bob, limits: 9 tokens a day\n"
    assert "no API key" in command(tmp_path, "key", "revoke", "1")
    assert "is deleted" in command(tmp_path, "user", "delete", "bob")
    assert "0 secret(s)" in command(tmp_path, "secrets", "rotate")


@pytest.fixture(scope="module")
def tiny_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one tiny model."""
    home = tmp_path_factory.mktemp("home")
    assert run(home, "import", str(tiny_llama().write(home / "tiny.gguf"))).returncode == 0
    return home


def test_commands_of_the_server_s_own_user_are_let_in(tiny_home: Path) -> None:
    with serving(tiny_home, "--no-use-spare", "--max-context", "128") as server:
        base = server.wait_for(r"on (http://127\.0\.0\.1:\d+) serves")[1]
        port = base.rpartition(":")[2]
        assert tell(tiny_home, "user", "create", "ada", said=PASSWORD).returncode == 0
        secret = tell(tiny_home, "key", "create", "ci").stdout.split()[-1]
        # the running server follows within a second or so
        deadline_s = time.monotonic() + 10
        while httpx.get(f"{base}/v1/models").status_code != 401:
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        assert httpx.get(f"{base}/v1/models", headers={"x-api-key": secret}).status_code == 200
        assert httpx.get(f"{base}/admin/models").status_code == 401
        assert tell(tiny_home, "ps", "--port", port).returncode == 0
        token = tiny_home / "secrets" / "local-token"
        assert token.stat().st_mode & 0o077 == 0
        token.unlink()
        refused = tell(tiny_home, "ps", "--port", port)
        assert refused.returncode == 1
        assert "API key" in refused.stderr
        asked = run(tiny_home, "ps", "--port", port, MLX_MANAGER_API_KEY=secret)
        assert "This is for admins" in asked.stderr


def test_a_database_that_cannot_be_used_stops_the_start(tiny_home: Path) -> None:
    done = run(tiny_home, "serve", "--port", "0", "--database", "postgresql://nobody@127.0.0.1:9/x")
    assert done.returncode == 1
    assert "The database postgresql+asyncpg://nobody@127.0.0.1:9/x cannot be used" in done.stderr
    assert "Traceback" not in done.stderr
