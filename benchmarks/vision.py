"""Questions about images: our server beside mlx_vlm.server, one and four clients, images that are new and seen before.

Writes benchmarks/results/<date>-<machine>-vision.{json,md}. Reports; never asserts.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import datetime
import io
import json
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from benchmarks.folders import import_starter
from benchmarks.machine import describe_machine, git_commit, installed_versions, machine_slug
from benchmarks.servers import PROGRAMS, RIVALS, Rival, end_in_order, running, server_environment
from mlx_manager.bench.client import StreamRecord, Target, stream_chat
from mlx_manager.pool import find_openblas

REPOSITORY = Path(__file__).resolve().parents[1]
SERVERS = {rival.name: rival for rival in RIVALS if rival.name in ("ours", "mlx_vlm")}
NOTES = {"ours": "defaults", "mlx_vlm": "up to 32 sequences decoded together, everything else at its defaults"}
_SIDE = 512
_QUESTIONS = ("What is in this picture?", "Which colours does it have, and where are they?")


@dataclass(frozen=True)
class Workload:
    """`num_clients` at once, each with one question about an image."""

    name: str
    num_clients: int
    is_seen: bool
    """Whether all ask about one image that was asked about before; else each about one that is new."""


WORKLOADS = (
    Workload("1 client, a new image", 1, is_seen=False),
    Workload("4 clients, a new image each", 4, is_seen=False),
    Workload("1 client, a second question about an image", 1, is_seen=True),
    Workload("4 clients, a second question about an image", 4, is_seen=True),
)


@dataclass(frozen=True)
class Figures:
    """One turn of one workload."""

    ttft_s: float
    """Median over the clients."""
    output_tokens_per_s: float
    num_prompt_tokens: int
    num_cached_tokens: int


@dataclass
class Results:
    """Everything measured: by workload, then server, one entry a turn."""

    figures: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    texts: dict[str, dict[int, str]] = field(default_factory=dict)
    """By server, the first answer about each image: random words, but the same ones for the same mathematics."""
    failures: list[str] = field(default_factory=list)


def picture(seed: int) -> str:
    """A data URL of a picture of coloured patches."""
    patches = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(patches).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def question(seed: int, text: str) -> list[dict[str, Any]]:
    """One user's message."""
    image = {"type": "image_url", "image_url": {"url": picture(seed)}}
    return [{"role": "user", "content": [image, {"type": "text", "text": text}]}]


async def ask(target: Target, messages: Sequence[list[dict[str, Any]]], max_tokens: int) -> list[StreamRecord]:
    """All at once."""
    async with target.open() as client:
        streams = (stream_chat(client, target.model, each, max_tokens=max_tokens) for each in messages)
        return list(await asyncio.gather(*streams))


@dataclass(frozen=True)
class Round:
    """One round of all workloads on every server."""

    model: Path
    folder: Path
    seed: int
    num_turns: int
    max_tokens: int
    results: Results

    def measure(self, rival: Rival) -> None:
        """Start a server, warm it up, play every workload and end it."""
        with running(rival, self.model, self.folder, find_openblas()) as url:
            name = self.model.name if rival.name == "ours" else str(self.model)
            target = Target(url, name)
            self._ask(rival, target, [question(self.seed, _QUESTIONS[0])] * 2, "warming up")
            for place, workload in enumerate(WORKLOADS):
                for turn in range(self.num_turns):
                    self._play(rival, target, workload, self.seed + 1 + 100 * place + 10 * turn)

    def _play(self, rival: Rival, target: Target, workload: Workload, seed: int) -> None:
        if workload.is_seen:
            self._ask(rival, target, [question(seed, _QUESTIONS[0])], workload.name)
        seeds = [seed if workload.is_seen else seed + client for client in range(workload.num_clients)]
        text = _QUESTIONS[1] if workload.is_seen else _QUESTIONS[0]
        records = self._ask(rival, target, [question(each, text) for each in seeds], workload.name)
        if any(record.error or not record.arrivals for record in records):
            return
        if not workload.is_seen:
            known = self.results.texts.setdefault(rival.name, {})
            known.update({each: record.text for each, record in zip(seeds, records, strict=True)})
        elapsed_s = max(record.ended_at for record in records) - min(record.sent_at for record in records)
        figures = Figures(
            ttft_s=statistics.median(record.ttft_s or 0.0 for record in records),
            output_tokens_per_s=sum(record.num_completion_tokens for record in records) / elapsed_s,
            num_prompt_tokens=records[0].num_prompt_tokens or 0,
            num_cached_tokens=records[0].num_cached_tokens,
        )
        self.results.figures.setdefault(workload.name, {}).setdefault(rival.name, []).append(figures)
        print(f"  {rival.name}: {workload.name}: {figures}", flush=True)

    def _ask(
        self, rival: Rival, target: Target, messages: Sequence[list[dict[str, Any]]], what: str
    ) -> list[StreamRecord]:
        records = asyncio.run(ask(target, messages, self.max_tokens))
        errors = [record.error for record in records if record.error]
        self.results.failures += [f"{rival.name}: {what}: {error[:300]}" for error in errors]
        return records


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vision", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="every server in each of them, in turning order")
    parser.add_argument("--turns", type=int, default=3, help="of each workload in a round")
    parser.add_argument("--max-tokens", type=int, default=32, help="completion length of each request")
    parser.add_argument("--only", help="comma-separated servers")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "benchmarks" / "results")
    arguments = parser.parse_args()
    end_in_order()
    servers = [name for name in SERVERS if not arguments.only or name in arguments.only.split(",")]
    machine, results = describe_machine(), Results()
    with tempfile.TemporaryDirectory(prefix="mlx-manager-bench-") as name:
        folder = Path(name)
        model = folder / "vision"
        command = [str(PROGRAMS / "python"), "-m", "benchmarks.vision_model", str(model), str(import_starter(folder))]
        subprocess.run(command, cwd=REPOSITORY, env=server_environment(folder, find_openblas()), check=True)
        for number in range(arguments.rounds):
            this = Round(model, folder, 1000 * (number + 1), arguments.turns, arguments.max_tokens, results)
            turn = number % len(servers)
            for server in servers[turn:] + servers[:turn]:
                print(f"round {number + 1}: {server}", flush=True)
                try:
                    this.measure(SERVERS[server])
                except httpx.HTTPError as error:
                    results.failures.append(f"{server}: round {number + 1}: {error}")
    write(results, machine, servers, arguments)


def write(
    results: Results, machine: dict[str, str | int | float], servers: list[str], arguments: argparse.Namespace
) -> None:
    """The results as a page, and everything measured beside it as JSON."""
    versions, date = installed_versions(), datetime.date.today().isoformat()
    openblas = find_openblas()
    page = "\n".join(
        [
            f"# Images, measured on {date}",
            "",
            f"- {machine['cpu']}, {machine['num_cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, "
            f"MLX's CPU backend; load average before the run {machine['load_average_1min']}; BLAS: "
            f"{openblas.name if openblas else 'as MLX ships it'}",
            "- " + ", ".join(f"{name} {version}" for name, version in versions.items()),
            f"- commit {git_commit(REPOSITORY)}; SmolVLM's classes with random weights (12 layers of 576, a tower of 6 "
            f"layers of 384), float32; images of {_SIDE} by {_SIDE} pixels; {arguments.max_tokens} tokens a request; "
            f"{arguments.rounds} rounds of {arguments.turns} turns, medians",
            *(f"- `{name}`: {NOTES[name]}" for name in servers),
            "",
            "| workload | server | TTFT | output tok/s | prompt tokens | cached |",
            "| --- | --- | --: | --: | --: | --: |",
            *(_row(workload, name, results) for workload in results.figures for name in servers),
            "",
            *_agreement(results),
            *(f"- failed: {failure}" for failure in results.failures),
        ]
    )
    print(page)
    arguments.output.mkdir(parents=True, exist_ok=True)
    stem = arguments.output / f"{date}-{machine_slug(machine)}-vision"
    stem.with_suffix(".md").write_text(page + "\n")
    figures = {
        workload: {name: [asdict(each) for each in turns] for name, turns in by_server.items()}
        for workload, by_server in results.figures.items()
    }
    body = {"date": date, "machine": machine, "versions": versions, "commit": git_commit(REPOSITORY)}
    stem.with_suffix(".json").write_text(
        json.dumps({**body, "figures": figures, "failures": results.failures}, indent=1) + "\n"
    )


def _row(workload: str, name: str, results: Results) -> str:
    turns = results.figures[workload].get(name)
    if not turns:
        return f"| {workload} | {name} | – | – | – | – |"
    ttft_s = statistics.median(turn.ttft_s for turn in turns)
    speed = statistics.median(turn.output_tokens_per_s for turn in turns)
    prompt = statistics.median(turn.num_prompt_tokens for turn in turns)
    cached = statistics.median(turn.num_cached_tokens for turn in turns)
    return f"| {workload} | {name} | {1000 * ttft_s:,.0f} ms | {speed:.1f} | {prompt:.0f} | {cached:.0f} |"


def _agreement(results: Results) -> list[str]:
    ours, theirs = results.texts.get("ours", {}), results.texts.get("mlx_vlm", {})
    both = ours.keys() & theirs.keys()
    if not both:
        return []
    num_same = sum(ours[seed] == theirs[seed] for seed in both)
    return [f"Of {len(both)} first answers {num_same} are the same text on both servers.", ""]


if __name__ == "__main__":
    main()
