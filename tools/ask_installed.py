"""Asks an installation of ours for what it is and for one answer: `python -m tools.ask_installed VENV`.

Everything runs from outside of the checkout and without its sources, so that only what is installed can answer.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

_MODEL = Path(__file__).parents[1] / "tests" / "data" / "tiny_tool_caller"
_ANSWER_S, _STOP_S = 120, 60


def main(venv: Path) -> int:
    """Ask, and say what was answered; the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        environ |= {"MLX_MANAGER_HOME": f"{folder}/home", "HF_HOME": f"{folder}/hf", "HF_HUB_OFFLINE": "1"}

        def run(*command: str, most: int = 0) -> None:
            ended = subprocess.run([venv / "bin" / command[0], *command[1:]], cwd=folder, env=environ, check=False)
            if ended.returncode > most:
                raise SystemExit(f"{' '.join(command)} ended with {ended.returncode}")

        run("mlx-manager", "--version")
        # 1: it found something to mend, as on a machine without models
        run("mlx-manager", "doctor", most=1)
        run("python", "-P", "-m", "mlx_manager.worker", "--probe")
        command: list[str | Path] = [
            venv / "bin" / "mlx-manager",
            "serve",
            "--port",
            "0",
            "--model",
            _MODEL,
            "--no-use-spare",
        ]
        with subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, text=True) as server:
            try:
                answer = _ask(_address_of(server))
            finally:
                server.send_signal(signal.SIGINT)
                code = server.wait(_STOP_S)
    print(f"answered: {json.dumps(answer['usage'])}; ended with {code}")
    return code


def _address_of(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    for line in server.stdout:
        print(line, end="")
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        if found is not None:
            return found[0]
    raise SystemExit("the server ended before it said where it listens")


def _ask(address: str) -> dict[str, object]:
    """One chat completion; the model is loaded for it."""
    body = {"messages": [{"role": "user", "content": "Hello"}], "model": _MODEL.name, "max_tokens": 5}
    request = urllib.request.Request(
        f"{address}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=_ANSWER_S) as answered:
        found: dict[str, object] = json.load(answered)
    if not found["choices"]:
        raise SystemExit(f"no answer: {found}")
    return found


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute()))
