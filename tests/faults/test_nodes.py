"""Three servers behind one: conversations come back to the node that has their prefix, and go on when a node dies."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.server_process import PATIENCE_S, ServerProcess, serving
from tests.e2e.tiny_model import make_tiny_model

pytestmark = pytest.mark.faults
NUM_CONVERSATIONS = 12
SYSTEM = "You are an assistant. " * 40


class Front:
    """A server whose route `tiny` leads to three nodes."""

    def __init__(self, server: ServerProcess, nodes: list[ServerProcess]) -> None:
        self.url = server.url
        for number, node in enumerate(nodes):
            self._post(
                "/admin/providers",
                {
                    "name": f"node{number}",
                    "kind": "openai-compatible",
                    "base_url": f"{node.url}/v1",
                    "allows_private_address": True,
                    "max_retries": 0,
                },
            )
        targets = [{"provider": f"node{number}", "model": "tiny"} for number in range(len(nodes))]
        self._post("/admin/routes", {"name": "nodes", "pattern": "shared", "targets": targets, "order": "conversation"})

    def _post(self, path: str, body: dict[str, Any]) -> None:
        answer = httpx.post(f"{self.url}{path}", json=body, timeout=PATIENCE_S)
        assert answer.status_code == 201, answer.text

    def ask(self, conversation: list[dict[str, str]]) -> tuple[str, int, int, str]:
        """Which node answered, the tokens of the prompt, those that were cached, and the text."""
        body = {"model": "shared", "messages": conversation, "max_tokens": 8, "temperature": 0}
        answer = httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=PATIENCE_S)
        assert answer.status_code == 200, answer.text
        usage = answer.json()["usage"]
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        text = answer.json()["choices"][0]["message"]["content"]
        return answer.headers["x-mlx-backend"], usage["prompt_tokens"], cached, text


def test_three_nodes_behind_one(
    tiny_folder: Path, starter_folder: Path, tmp_path: Path, say: Callable[[str], None]
) -> None:
    front_model = tmp_path / "front-model"
    make_tiny_model(front_model, starter_folder, seed=9)
    flags = ("--no-use-spare", "--kv-budget", "64MiB")
    with ExitStack() as stack:
        nodes = [stack.enter_context(serving(tiny_folder, tmp_path / f"node{n}", *flags)) for n in range(3)]
        front = Front(stack.enter_context(serving(front_model, tmp_path / "front", *flags)), nodes)
        talks = [
            [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"Question number {n}?"}]
            for n in range(NUM_CONVERSATIONS)
        ]
        places: dict[int, list[str]] = defaultdict(list)
        shares = []
        for turn in range(4):
            for number, talk in enumerate(talks):
                node, num_tokens, num_cached, text = front.ask(talk)
                places[number].append(node)
                if turn:
                    shares.append(num_cached / num_tokens)
                talk += [{"role": "assistant", "content": text}, {"role": "user", "content": "And then?"}]
        assert all(len(set(visited)) == 1 for visited in places.values()), places
        assert len({visited[0] for visited in places.values()}) == 3
        assert min(shares) > 0.8
        spread = Counter(visited[0] for visited in places.values())
        victim = spread.most_common(1)[0][0]
        nodes[int(victim.removeprefix("node"))].process.kill()
        for number, talk in enumerate(talks):
            node, *_ = front.ask(talk)
            assert node != victim
            assert node == places[number][0] or places[number][0] == victim
        say(f"conversations by node: {dict(spread)}; cached share of later turns: at least {min(shares):.2f}")
