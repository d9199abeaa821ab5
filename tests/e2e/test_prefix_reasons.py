"""`X-Debug: prefix` on a real model: each reason that a client can bring about, read from the answer's header."""

from __future__ import annotations

import re
from pathlib import Path

from tests.e2e.server_process import ServerProcess, serving

SYSTEM = (
    "Answer as a lighthouse keeper who has not seen a ship for many days and speaks to the gulls instead of people."
)
_HEADER = re.compile(r"([a-z_]+);prompt=(\d+);matched=(\d+);agreed=(\d+)")


class Asker:
    """Sends requests and reads what the header says."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self.text = ""
        """The last answer's."""

    def chat(self, *texts: str, system: str | None = SYSTEM, stream: bool = False) -> tuple[str, int, int, int]:
        """Reason, prompt, matched and agreed tokens of a conversation of user and assistant in turn."""
        roles = ("user", "assistant")
        messages = [] if system is None else [{"role": "system", "content": system}]
        messages += [{"role": roles[index % 2], "content": text} for index, text in enumerate(texts)]
        body = {"model": self._server.model, "messages": messages, "stream": stream, "temperature": 0, "max_tokens": 6}
        with self._server.http() as client:
            answer = client.post("/v1/chat/completions", json=body, headers={"X-Debug": "prefix"})
        found = _HEADER.fullmatch(answer.headers["x-prefix-cache"])
        assert found is not None, answer.headers["x-prefix-cache"]
        if not stream:
            usage = answer.json()["usage"]
            self.text = answer.json()["choices"][0]["message"]["content"]
            assert usage["prompt_tokens"] == int(found[2])
            assert usage["prompt_tokens_details"]["cached_tokens"] == int(found[3])
        return found[1], int(found[2]), int(found[3]), int(found[4])


def test_reasons_on_the_starter_model(starter_folder: Path, tmp_path: Path) -> None:
    # A cache small enough to be filled, and a server of its own: others' prompts would be remembered too.
    with serving(starter_folder, tmp_path, "--kv-budget", "24MiB", "--no-use-spare") as server:
        assert server.stats()["num_blocks_free"] == server.stats()["num_blocks_total"] > 0, (
            "books before the first step"
        )
        _ask_for_each_reason(Asker(server), server.stats()["num_blocks_total"])


def _ask_for_each_reason(asker: Asker, num_blocks: int) -> None:
    question = "Which of the gulls is the wisest?"
    reason, num_first, num_matched, _ = asker.chat(question, stream=True)
    assert (reason, num_matched) == ("unseen", 0)
    assert asker.chat(question) == ("complete", num_first, num_first - 1, num_first)
    answer = asker.text

    reason, _, num_matched, num_agreed = asker.chat(question, answer, "Why?")
    assert reason == "continued"
    assert num_first < num_matched == num_agreed

    reason, _, num_matched, num_agreed = asker.chat(question, f"No. {answer}", "Why?")
    assert reason == "answer"
    assert num_matched == num_agreed == num_first

    reason, _, num_matched, num_text = asker.chat("Which of the gulls is the most foolish, and why do you say so?")
    assert reason == "text"
    assert 0 < num_matched <= num_text < num_first

    reason, _, _, num_agreed = asker.chat(question, system=None)
    assert reason == "template", "the template writes a system text of its own where ours has been"
    assert 0 < num_agreed < num_text

    filling = "gull " * (num_blocks * 32 - 60)
    assert asker.chat(filling, system="A.")[0] == "unseen"
    reason, _, num_matched, num_agreed = asker.chat(question)
    assert reason == "evicted"
    assert num_matched < num_agreed == num_first
