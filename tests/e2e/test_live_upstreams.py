"""Real servers as providers: another MLX Manager, asked in both of its dialects, and mlx_lm.server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.e2e.server_process import PATIENCE_S, ServerProcess, serving, wait_until
from tests.e2e.tiny_model import make_tiny_model

FRANCE = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
PARIS = "The capital of France is Paris."


@contextmanager
def mlx_lm_server(folder: Path, log: Path) -> Iterator[str]:
    """Its base URL."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlx_lm", "server", "--model", str(folder), "--port", str(port)]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, stdout=sink, stderr=subprocess.STDOUT, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )

    def is_up() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(is_up, PATIENCE_S, log.read_text)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def mlx_lm_url(starter_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """mlx_lm.server with a tiny random model: it has no quick way with quantized weights on a CPU."""
    folder = tmp_path_factory.mktemp("mlx_lm")
    make_tiny_model(folder / "tiny", starter_folder, seed=3)
    with mlx_lm_server(folder / "tiny", folder / "log") as url:
        yield url


@pytest.fixture(scope="module")
def front(server: ServerProcess, mlx_lm_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server whose models are those of its providers, which are named like its routes."""
    home = tmp_path_factory.mktemp("front")
    own = Path(__file__).parents[1] / "data" / "tiny_tool_caller"
    providers = {
        "manager": ("openai-compatible", f"{server.url}/v1", server.model),
        "manager-by-messages": ("anthropic", f"{server.url}/v1", server.model),
        "mlx-lm": ("openai-compatible", mlx_lm_url, "default_model"),
    }
    with serving(own, home, "--no-use-spare", is_ready=False) as running:
        with running.http() as http:
            for name, (kind, base_url, model) in providers.items():
                provider = {"name": name, "kind": kind, "base_url": base_url, "allows_private_address": True}
                assert http.post("/admin/providers", json=provider).status_code == 201
                route = {"name": name, "pattern": name, "targets": [{"provider": name, "model": model}]}
                assert http.post("/admin/routes", json=route).status_code == 201
        yield running.url


def by_chat(url: str, model: str, *, stream: bool) -> tuple[str, int]:
    """The answer's text, and the tokens that it is said to have."""
    body: dict[str, Any] = {"model": model, "messages": FRANCE, "temperature": 0, "max_tokens": 20}
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=PATIENCE_S) as sdk:
        if not stream:
            answer = sdk.chat.completions.create(**body)
            return answer.choices[0].message.content or "", answer.usage.completion_tokens
        text, num_tokens = "", 0
        for chunk in sdk.chat.completions.create(stream=True, stream_options={"include_usage": True}, **body):
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            num_tokens = chunk.usage.completion_tokens if chunk.usage else num_tokens
        return text, num_tokens


def by_messages(url: str, model: str, *, stream: bool) -> tuple[str, int]:
    """The same in Anthropic's dialect."""
    body: dict[str, Any] = {"model": model, "messages": FRANCE, "max_tokens": 20, "extra_body": {"temperature": 0}}
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=PATIENCE_S) as sdk:
        if stream:
            with sdk.messages.stream(**body) as events:
                message = events.get_final_message()
        else:
            message = sdk.messages.create(**body)
    return "".join(block.text for block in message.content if block.type == "text"), message.usage.output_tokens


@pytest.mark.parametrize("ask", [by_chat, by_messages], ids=["chat", "messages"])
@pytest.mark.parametrize("provider", ["manager", "manager-by-messages"])
def test_another_manager_answers(front: str, provider: str, ask: Callable[..., tuple[str, int]]) -> None:
    answers = [ask(front, provider, stream=stream) for stream in (False, True)]
    assert answers[0] == answers[1]
    assert answers[0][0] == PARIS


def test_mlx_lm_server_answers_as_when_it_is_asked_itself(front: str, mlx_lm_url: str) -> None:
    direct = by_chat(mlx_lm_url.removesuffix("/v1"), "default_model", stream=False)
    assert direct[1] == 20
    for ask in (by_chat, by_messages):
        for stream in (False, True):
            assert ask(front, "mlx-lm", stream=stream) == direct


def test_the_models_of_another_manager_are_listed(front: str, server: ServerProcess) -> None:
    with httpx.Client(base_url=front, timeout=PATIENCE_S) as http:
        for name in ("manager", "manager-by-messages"):
            assert server.model in http.post(f"/admin/providers/{name}/models").json()["models"]
