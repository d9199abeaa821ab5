"""Texts embedded per second on all-MiniLM-L6-v2: our server beside two others, mlx-embeddings itself and
sentence-transformers."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.machine import describe_machine, git_commit, installed_versions, machine_slug
from benchmarks.servers import PROGRAMS, RIVALS, Rival, end_in_order, running, server_environment
from mlx_manager.hub.starter import find_installed_embedding_model
from mlx_manager.pool import find_openblas

REPOSITORY = Path(__file__).resolve().parents[1]
OPENAI_SERVER = REPOSITORY / "build" / "rivals" / "mlx-openai-server" / "bin" / "mlx-openai-server"
"""In an environment of its own, because its pins are not ours; the page of the benchmarks says how it is made."""
SERVERS = {rival.name: rival for rival in RIVALS if rival.name in ("ours", "mlx_vlm")} | {
    "mlx_openai": Rival(
        "mlx_openai",
        (
            *(str(OPENAI_SERVER), "launch", "--model-type", "embeddings", "--model-path", "{model}"),
            *("--host", "127.0.0.1", "--port", "{port}", "--no-log-file", "--log-level", "WARNING"),
        ),
        "/health",
        "mlx-openai-server",
        "defaults",
    )
}
LIBRARY = "mlx-embeddings"
TORCH = "sentence-transformers"
TORCH_PYTHON = REPOSITORY / "build" / "rivals" / TORCH / "bin" / "python"
"""In an environment of its own, because it needs torch."""
NOTES = {
    "ours": "defaults, over HTTP",
    "mlx_vlm": "defaults, over HTTP; it computes the texts of a request one after the other",
    "mlx_openai": "mlx-openai-server {version}, defaults, over HTTP; in an environment of its own",
    LIBRARY: "in its own process, no HTTP: tokenizer and model called with the whole list, padded to the longest",
    TORCH: "{version}, in its own process, no HTTP, on the CPU: `encode` called with the whole list, defaults",
}
_NUM_TORCH_LISTS = 20
"""Different requests of a workload that sentence-transformers is given; behind the last it goes on with the first."""
_REQUEST_TIMEOUT_S = 900.0
# each is one token of the model
# fmt: off
_WORDS = (
    "time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child",
    "world", "school", "state", "family", "student", "group", "country", "problem", "hand", "part",
    "place", "case", "week", "company", "system", "program", "question", "work", "government", "number",
    "night", "point", "home", "water", "room", "mother", "area", "money", "story", "fact",
    "month", "lot", "right", "study", "book", "eye", "job", "word", "business", "issue",
    "side", "kind", "head", "house", "service", "friend",
)
# fmt: on


@dataclass(frozen=True)
class Workload:
    """`num_clients` at once, each with a request of `num_texts` texts of `num_tokens` tokens."""

    name: str
    num_texts: int
    num_tokens: int
    num_clients: int = 1


WORKLOADS = (
    Workload("1 text of 8 tokens", 1, 8),
    Workload("32 texts of 8 tokens", 32, 8),
    Workload("256 texts of 8 tokens", 256, 8),
    Workload("1 text of 256 tokens", 1, 256),
    Workload("32 texts of 256 tokens", 32, 256),
    Workload("256 texts of 256 tokens", 256, 256),
    Workload("32 texts of 4 to 256 tokens", 32, 0),
    Workload("32 clients, 1 text of 8 tokens each", 1, 8, num_clients=32),
)


@dataclass
class Results:
    """Texts per second, by workload and server, one figure a round."""

    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    vectors: dict[str, list[float]] = field(default_factory=dict)
    """Of the same text, by server."""
    torch_version: str = ""

    def add(self, workload: str, server: str, texts_per_s: float) -> None:
        """One measurement."""
        self.figures.setdefault(workload, {}).setdefault(server, []).append(texts_per_s)


def texts_of(workload: Workload, seed: int) -> list[list[str]]:
    """The texts of each client. Two of the tokens are the ones that the tokenizer adds."""
    chosen = random.Random(f"{workload.name}{seed}")
    sizes = [workload.num_tokens or chosen.randrange(4, 257) for _ in range(workload.num_texts)]
    return [[" ".join(chosen.choices(_WORDS, k=size - 2)) for size in sizes] for _ in range(workload.num_clients)]


def repeat(ask: Callable[[list[list[str]]], None], workload: Workload, seed: int, seconds: float) -> float:
    """Texts per second over requests sent one after the other for at least `seconds`, the first left out."""
    ask(texts_of(Workload(workload.name, min(workload.num_texts, 2), workload.num_tokens, 1), seed))
    num_texts, started_s = 0, time.perf_counter()
    while True:
        seed += 1000
        texts = texts_of(workload, seed)
        ask(texts)
        num_texts += sum(len(each) for each in texts)
        elapsed_s = time.perf_counter() - started_s
        if elapsed_s >= seconds:
            return num_texts / elapsed_s


async def ask_at_once(url: str, model: str, texts: list[list[str]]) -> list[float]:
    """One request for each client, all at once; the first vector of the first."""
    async with AsyncExitStack() as stack:
        # reading the certificates, of which plain HTTP needs none, takes longer than many a request
        opened = [
            httpx.AsyncClient(base_url=url, timeout=_REQUEST_TIMEOUT_S, trust_env=False, verify=False) for _ in texts
        ]
        clients = [await stack.enter_async_context(client) for client in opened]
        bodies = [{"model": model, "input": each, "encoding_format": "float"} for each in texts]
        answers = await asyncio.gather(
            *(client.post("/v1/embeddings", json=body) for client, body in zip(clients, bodies, strict=True))
        )
    for answer, each in zip(answers, texts, strict=True):
        answer.raise_for_status()
        if len(answer.json()["data"]) != len(each):
            raise RuntimeError("the answer lacks vectors")
    vector: list[float] = answers[0].json()["data"][0]["embedding"]
    return vector


@dataclass(frozen=True)
class Round:
    """One round of all workloads."""

    model: Path
    folder: Path
    """For what the servers write."""
    workloads: list[Workload]
    seed: int
    seconds: float
    results: Results

    def measure_server(self, rival: Rival) -> None:
        """All workloads on one server, started for them and ended after."""
        with running(rival, self.model, self.folder, find_openblas()) as url:
            listed = httpx.get(f"{url}/v1/models", timeout=30).json()["data"]
            name = listed[0]["id"] if rival.name == "ours" else str(self.model)

            def ask(texts: list[list[str]]) -> None:
                asyncio.run(ask_at_once(url, name, texts))

            self.results.vectors[rival.name] = asyncio.run(ask_at_once(url, name, [["The cat sat on the mat."]]))
            for workload in self.workloads:
                self._note(workload.name, rival.name, repeat(ask, workload, self.seed, self.seconds))

    def measure_library(self) -> None:
        """The workloads of one client in a process that loads mlx-embeddings with the same BLAS."""
        command = [PROGRAMS / "python", "-m", "benchmarks.embeddings_library", self.model]
        names = [workload.name for workload in self.workloads if workload.num_clients == 1]
        done = subprocess.run(
            [*map(str, (*command, self.seed, self.seconds)), *names],
            cwd=REPOSITORY,
            env=server_environment(self.folder, find_openblas()),
            check=True,
            capture_output=True,
            text=True,
        )
        measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        self.results.vectors[LIBRARY] = measured["vector"]
        for workload, texts_per_s in measured["figures"].items():
            self._note(workload, LIBRARY, texts_per_s)

    def measure_torch(self) -> None:
        """The workloads of one client with sentence-transformers, which has no BLAS of MLX's."""
        asked = {
            workload.name: [
                texts_of(Workload(workload.name, min(workload.num_texts, 2), workload.num_tokens), self.seed)[0],
                *(texts_of(workload, self.seed + 1000 * turn)[0] for turn in range(1, _NUM_TORCH_LISTS + 1)),
            ]
            for workload in self.workloads
            if workload.num_clients == 1
        }
        file = self.folder / "torch.json"
        file.write_text(json.dumps(asked))
        done = subprocess.run(
            [
                *map(
                    str,
                    (TORCH_PYTHON, REPOSITORY / "benchmarks" / "embeddings_torch.py", self.model, self.seconds, file),
                )
            ],
            env=server_environment(self.folder, None),
            check=True,
            capture_output=True,
            text=True,
        )
        measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        self.results.vectors[TORCH] = measured["vector"]
        self.results.torch_version = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
        for workload, texts_per_s in measured["figures"].items():
            self._note(workload, TORCH, texts_per_s)

    def _note(self, workload: str, server: str, texts_per_s: float) -> None:
        self.results.add(workload, server, texts_per_s)
        print(f"  {server}: {workload}: {texts_per_s:.1f}/s", flush=True)


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embeddings", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="every server in each of them, in turning order")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each workload runs at least")
    parser.add_argument("--workloads", help="comma-separated numbers, from 1")
    parser.add_argument("--only", help="comma-separated servers")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "benchmarks" / "results")
    arguments = parser.parse_args()
    end_in_order()
    model = find_installed_embedding_model()
    if model is None:
        sys.exit("The embedding model is not installed: `make install` fetches it.")
    numbers = [int(number) for number in (arguments.workloads or "").split(",") if number]
    workloads = [WORKLOADS[number - 1] for number in numbers] or list(WORKLOADS)
    servers = [name for name in (*SERVERS, LIBRARY, TORCH) if not arguments.only or name in arguments.only.split(",")]
    if "mlx_openai" in servers and not OPENAI_SERVER.exists():
        print(f"mlx_openai is left out: there is no {OPENAI_SERVER.relative_to(REPOSITORY)}")
        servers.remove("mlx_openai")
    if TORCH in servers and not TORCH_PYTHON.exists():
        print(f"{TORCH} is left out: there is no {TORCH_PYTHON.relative_to(REPOSITORY)}")
        servers.remove(TORCH)
    machine, results = describe_machine(), Results()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            turn = number % len(servers)
            this = Round(model, Path(folder), workloads, number, arguments.seconds, results)
            for name in servers[turn:] + servers[:turn]:
                print(f"round {number + 1}: {name}", flush=True)
                if name == LIBRARY:
                    this.measure_library()
                elif name == TORCH:
                    this.measure_torch()
                else:
                    this.measure_server(SERVERS[name])
    write(results, machine, servers, arguments)


def write(
    results: Results, machine: dict[str, str | int | float], servers: list[str], arguments: argparse.Namespace
) -> None:
    """The results as a page, and everything measured beside it as JSON."""
    versions = installed_versions()
    date = datetime.date.today().isoformat()
    openblas = find_openblas()
    blas = openblas.name if openblas else "as MLX ships it"
    head = [
        f"# Embeddings, measured on {date}",
        "",
        f"- {machine['cpu']}, {machine['num_cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, MLX's "
        f"CPU backend; load average before the run {machine['load_average_1min']}; BLAS: {blas}",
        "- " + ", ".join(f"{name} {version}" for name, version in versions.items()),
        f"- commit {git_commit(REPOSITORY)}; all-MiniLM-L6-v2 in float32; {arguments.rounds} rounds, each workload "
        f"for at least {arguments.seconds:g} s or one request; medians",
        *(f"- {name}: {NOTES[name].format(version=_version_of(name, results))}" for name in servers),
        "",
        "Texts per second:",
        "",
        f"| workload | {' | '.join(servers)} |",
        f"| --- |{' --: |' * len(servers)}",
    ]
    rows = [
        f"| {workload} | " + " | ".join(_cell(by_server.get(name)) for name in servers) + " |"
        for workload, by_server in results.figures.items()
    ]
    agreement = [
        f"The vectors of {name} and ours of one sentence have the cosine {_cosine(results.vectors[name], ours):.6f}."
        for ours in [results.vectors.get("ours")]
        for name in servers
        if ours and name != "ours" and name in results.vectors
    ]
    page = "\n".join([*head, *rows, "", *agreement]) + "\n"
    print(page)
    arguments.output.mkdir(parents=True, exist_ok=True)
    stem = arguments.output / f"{date}-{machine_slug(machine)}-embeddings"
    stem.with_suffix(".md").write_text(page)
    body = {"date": date, "machine": machine, "versions": versions, "workloads": [asdict(one) for one in WORKLOADS]}
    stem.with_suffix(".json").write_text(json.dumps({**body, "texts_per_s": results.figures}, indent=1) + "\n")


def _version_of(name: str, results: Results) -> str:
    return results.torch_version if name == TORCH else _openai_server_version()


def _openai_server_version() -> str:
    """What is installed in its environment; MLX's version there is not ours."""
    if not OPENAI_SERVER.exists():
        return ""
    listed = subprocess.run(
        [OPENAI_SERVER.with_name("python"), "-m", "pip", "list", "--format=json"],
        check=True,
        capture_output=True,
        text=True,
    )
    versions = {package["name"].lower(): package["version"] for package in json.loads(listed.stdout)}
    return f"{versions['mlx-openai-server']} with mlx {versions['mlx']}, mlx-embeddings {versions['mlx-embeddings']}"


def _cell(figures: list[float] | None) -> str:
    return "–" if not figures else f"{statistics.median(figures):,.1f}"


def _cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))


if __name__ == "__main__":
    main()
