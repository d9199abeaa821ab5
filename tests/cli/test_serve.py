"""`mlx-manager serve` from start to end, with a real model behind it."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import httpx
import openai
import pytest

from tests.cli.server_process import run, serving
from tests.hub.gguf_writer import tiny_llama

ADDRESS = r"on (http://127\.0\.0\.1:\d+) serves (\S+)"


@pytest.fixture(scope="module")
def tiny_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one tiny model, `tiny`."""
    home = tmp_path_factory.mktemp("home")
    source = tiny_llama().write(home / "tiny.gguf")
    assert run(home, "import", str(source)).returncode == 0
    return home


def test_it_announces_serves_and_stops_cleanly(tiny_home: Path) -> None:
    with serving(tiny_home, "--no-use-spare", "--max-context", "128") as server:
        base, name = server.wait_for(ADDRESS).groups()
        assert name == "tiny"
        assert httpx.get(f"{base}/health").json()["default_model"] == "tiny"
        server.wait_for(r"tiny is ready after [\d.]+ s")
        assert httpx.get(f"{base}/ready").status_code == 200
        assert server.stop(signal.SIGINT) == 0
        assert "Traceback" not in server.text


def test_a_hangup_has_the_settings_read_again(tiny_home: Path) -> None:
    config = tiny_home / "config.toml"
    config.write_text("model_ttl = 0\n")
    try:
        with serving(tiny_home, "--no-use-spare", "--max-context", "128", "--drain-timeout", "7") as server:
            base = server.wait_for(ADDRESS)[1]
            server.wait_for(r"tiny is ready after")
            config.write_text(
                'model_ttl = 0.2\npreload = ["tiny"]\ncloud_budget = 5\ndrain_timeout = 9\nmax_context = 64\n'
                'memory_budget = "3GiB"\neviction = "lfu"\n'
                '[models.tiny]\naliases = ["quick"]\n'
            )
            server.process.send_signal(signal.SIGHUP)
            # flags win as before
            server.wait_for(r"were read again\. Changed: cloud_budget, memory_budget, eviction, model_ttl\n")
            server.wait_for(r"after a restart only: preload\n")
            assert httpx.get(f"{base}/admin/models/quick").json()["id"] == "tiny"
            assert httpx.get(f"{base}/admin/settings").json()["cloud_budget"] == 5
            assert httpx.get(f"{base}/admin/stats").json()["pool"]["budget_bytes"] == 3 * 1024**3
            server.wait_for(r"'tiny' is unloaded \(ttl\)")
            config.write_text("model_ttl = never\n")
            server.process.send_signal(signal.SIGHUP)
            server.wait_for(r"The settings stay as they are: .*config\.toml is not valid TOML")
            assert server.stop(signal.SIGTERM) == 0
    finally:
        config.unlink()


def test_an_empty_home_serves_the_starter_model(tmp_path: Path, starter_gguf: Path) -> None:
    with serving(tmp_path, "--no-use-spare", "--log-level", "warning") as server:
        base, name = server.wait_for(ADDRESS).groups()
        assert name == "SmolLM2-135M-Instruct"
        assert server.text.index("Preparing the starter model") < server.text.index("serves")
        server.wait_for("Loading SmolLM2-135M-Instruct: ")  # progress in plain lines
        server.wait_for("is ready after")
        client = openai.OpenAI(base_url=f"{base}/v1", api_key="none")
        assert [model.id for model in client.models.list()] == [name, "all-MiniLM-L6-v2"]


def test_a_model_that_cannot_load_is_said_so_and_the_server_stays(tiny_home: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in (tiny_home / "models" / "tiny").iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "model.safetensors").write_bytes(b"these are no weights")
    with serving(tmp_path, "--no-use-spare", "--model", str(broken)) as server:
        base, _ = server.wait_for(ADDRESS).groups()
        server.wait_for("\nerror: .*broken")
        assert httpx.get(f"{base}/health").status_code == 200
        assert httpx.get(f"{base}/ready").status_code == 503
        assert server.stop() == 0


def test_a_second_server_on_the_port_is_told_whose_it_is(tiny_home: Path) -> None:
    with serving(tiny_home, "--no-use-spare") as server:
        base, _ = server.wait_for(ADDRESS).groups()
        port = base.rsplit(":", 1)[1]
        done = run(tiny_home, "serve", "--port", port)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"error: MLX Manager already runs on {base}.")
        server.wait_for("tiny is ready after")
        examined = run(tiny_home, "doctor", "--port", port)
        assert re.search(rf"^ok +port +MLX Manager runs on {base}$", examined.stdout, re.MULTILINE)
        assert re.search(r"^(ok|warning) +attention +tiny: \w+, ", examined.stdout, re.MULTILINE)
