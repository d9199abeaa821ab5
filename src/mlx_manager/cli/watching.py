"""Looking at a server from outside, over HTTP: is it ours, how far is its model, what can be tried."""

from __future__ import annotations

import http.client
import ipaddress
import json
import threading
import time
import urllib.request
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from mlx_manager import __version__
from mlx_manager.catalog import ModelEntry, ModelKind
from mlx_manager.cli.progress import ProgressLines

_POLL_S = 0.2
_PATIENCE_S = 2.0


class Announcement:
    """While the server runs: follow the load of its default model, and say what to try once it answers.

    A thread of its own, because the server has the main one; it ends with the load or with the context.
    """

    def __init__(self, base: str, entry: ModelEntry, *, shows_progress: bool) -> None:
        self._base = base
        self._entry = entry
        self._shows_progress = shows_progress
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="announcement", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join(timeout=2)

    def _run(self) -> None:
        began_s = time.monotonic()
        while fetch_json(f"{self._base}/health") is None:
            if self._stopped.wait(_POLL_S):
                return
        print(what_to_try(self._base, self._entry), flush=True)
        with ExitStack() as stack:
            lines = ProgressLines(f"Loading {self._entry.name}")
            outcome = self._follow(stack.enter_context(lines) if self._shows_progress else None, began_s)
        if outcome is not None:
            print(outcome, flush=True)

    def _follow(self, progress: ProgressLines | None, began_s: float) -> str | None:
        """Show the load until it is over; returns what came of it."""
        while not self._stopped.wait(_POLL_S):
            health = fetch_json(f"{self._base}/health")
            model = next((model for model in (health or {}).get("models", []) if model["id"] == self._entry.name), None)
            if model is None:
                continue
            if model["state"] == "ready":
                return f"{self._entry.name} is ready after {time.monotonic() - began_s:.1f} s. Ctrl-C stops the server."
            if model["state"] == "failed":
                reason = (model.get("error") or {}).get("message", "no reason given")
                return f"error: {reason}"
            if progress is not None:
                progress(model["stage"] or "starting a worker", model["fraction"])
        return None


def what_to_try(base: str, entry: ModelEntry) -> str:
    """A first request for the shell and one for Python, to be copied as they are."""
    heading = (
        f"\nMLX Manager {__version__} on {base} serves {entry.name} ({entry.architecture}, {entry.quantization})\n"
    )
    match entry.kind:
        case ModelKind.EMBEDDING:
            return heading + _try_embedding(base, entry.name)
        case ModelKind.RERANKER:
            return heading + _try_ranking(base, entry.name)
        case _:
            return heading + _try_chat(base, entry.name)


def _try_embedding(base: str, name: str) -> str:
    return f"""
Try it from a shell:

curl {base}/v1/embeddings -H 'Content-Type: application/json' -d '{{
  "model": "{name}",
  "input": ["The cat sat on the mat.", "A feline rested on the rug."]
}}'

or from Python (pip install openai):

from openai import OpenAI
client = OpenAI(base_url="{base}/v1", api_key="none")
answer = client.embeddings.create(model="{name}", input=["The cat sat on the mat."])
print(answer.data[0].embedding[:8], flush=True)
"""


def _try_ranking(base: str, name: str) -> str:
    return f"""
Try it from a shell:

curl {base}/v1/rerank -H 'Content-Type: application/json' -d '{{
  "model": "{name}",
  "query": "Where did the cat sit?",
  "documents": ["Stocks fell.", "The cat sat on the mat."]
}}'
"""


def _try_chat(base: str, name: str) -> str:
    return f"""
Try it from a shell:

curl {base}/v1/chat/completions -H 'Content-Type: application/json' -d '{{
  "model": "{name}",
  "messages": [{{"role": "user", "content": "What is the capital of France?"}}],
  "temperature": 0
}}'

or from Python (pip install openai):

from openai import OpenAI
client = OpenAI(base_url="{base}/v1", api_key="none")
stream = client.chat.completions.create(
    model="{name}",
    messages=[{{"role": "user", "content": "What is the capital of France?"}}],
    temperature=0,
    stream=True,
)
for chunk in stream:
    print(chunk.choices[0].delta.content or "", end="", flush=True)
"""


def base_url(host: str, port: int) -> str:
    """The address that reaches the server from this machine."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{port}"
    if address.is_unspecified:
        return f"http://127.0.0.1:{port}" if address.version == 4 else f"http://[::1]:{port}"
    return f"http://{host}:{port}" if address.version == 4 else f"http://[{host}]:{port}"


def is_ours(base: str) -> bool:
    """Whether an MLX Manager answers there."""
    health = fetch_json(f"{base}/health")
    return health is not None and "default_model" in health


def fetch_json(url: str) -> dict[str, Any] | None:
    """The JSON object at `url`; None where nothing answers, or something else does. Proxies are not asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_PATIENCE_S) as answer:
            body = json.load(answer)
    except (OSError, http.client.HTTPException, ValueError):
        return None
    return body if isinstance(body, dict) else None
