"""Our server beside the others: one machine, one run, the same float32 model, the same BLAS, each server alone in turn.

Writes benchmarks/results/<date>-<machine>.{json,md}. Reports; never asserts.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import platform
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import httpx

from benchmarks.folders import import_starter, make_float32_folder
from benchmarks.machine import describe_machine, git_commit, installed_versions, machine_slug
from benchmarks.report import OURS, Results, as_json, as_markdown
from benchmarks.servers import RIVALS, Rival, ServerBroken, end_in_order, running
from mlx_manager.bench import (
    WORKLOADS,
    Measurement,
    Prose,
    Scale,
    ServerRefused,
    Target,
    Workload,
    measure,
    tokens_per_word,
)
from mlx_manager.pool.blas import find_openblas, runs_on_linux_cpu

REPOSITORY = Path(__file__).resolve().parent.parent
WORKLOAD_TIMEOUT_S = 600.0
SETTLE_S = 20.0
"""What a server still does after its first answer (ours starts a spare worker) is over before anything is measured."""
QUICK_WORKLOADS = ("single", "eight", "ragged", "shared", "interrupted")


class Comparison:
    """The rounds of one run, and what came of them."""

    def __init__(self, rivals: list[Rival], workloads: list[Workload], scale: Scale, folder: Path) -> None:
        self.rounds: dict[str, list[Measurement]] = {rival.name: [] for rival in rivals}
        self.failures: dict[str, str] = {}
        self._rivals = rivals
        self._workloads = workloads
        self._scale = scale
        self._folder = folder
        self._tokens_per_word: float | None = None

    def play_round(self, number: int, model: Path, openblas: Path | None) -> None:
        """Start each server alone, warm it up and play every workload. The order rotates from round to round."""
        start = number % len(self._rivals)
        for rival in (*self._rivals[start:], *self._rivals[:start]):
            print(f"round {number + 1}: {rival.name}", flush=True)
            try:
                with running(rival, model, self._folder, openblas) as url:
                    asyncio.run(self._play(rival, url, model, seed=1000 * (number + 1)))
            except (ServerBroken, ServerRefused, httpx.HTTPError) as error:
                self._fail(rival, f"round {number + 1}: {error}")

    async def _play(self, rival: Rival, url: str, model: Path, seed: int) -> None:
        """All servers get the very same prompts in a round, sized by what the first one counted."""
        target = Target(url, model.name if rival.name == OURS else str(model))
        counted = await tokens_per_word(target, seed)
        await asyncio.sleep(SETTLE_S)
        self._tokens_per_word = self._tokens_per_word or counted
        for place, workload in enumerate(self._workloads):
            prose = Prose(seed + place, self._tokens_per_word)
            try:
                async with asyncio.timeout(WORKLOAD_TIMEOUT_S):
                    measurement = await measure(target, workload, prose, self._scale)
            except TimeoutError:
                self._fail(rival, f"{workload.name}: not done after {WORKLOAD_TIMEOUT_S:.0f} s; gave the round up")
                return
            for error in measurement.errors:
                self._fail(rival, f"{workload.name}: {error}")
            self.rounds[rival.name].append(measurement)
            figures = measurement.figures
            print(
                f"  {workload.name:12} {figures.output_tokens_per_s:7.1f} tok/s"
                f"   TTFT p50 {figures.ttft_p50_s or 0:6.2f} s"
                f"   between tokens p95 {figures.inter_token_p95_s or 0:.3f} s"
                f"   {figures.num_prompt_tokens} + {figures.num_completion_tokens} tokens",
                flush=True,
            )

    def _fail(self, rival: Rival, reason: str) -> None:
        reason = reason.replace(str(self._folder), "FOLDER").replace(str(REPOSITORY), "REPOSITORY")
        print(f"  {rival.name}: {reason}", flush=True)
        known = self.failures.get(rival.name)
        self.failures[rival.name] = f"{known}; {reason}" if known else reason


def main() -> None:
    """Parse the arguments, compare, write the results."""
    end_in_order()
    arguments = _parser().parse_args()
    rivals = [rival for rival in RIVALS if rival.name in _names(arguments.only, [rival.name for rival in RIVALS])]
    wanted = _names(arguments.workloads, [workload.name for workload in WORKLOADS])
    if arguments.quick and arguments.workloads is None:
        wanted = list(QUICK_WORKLOADS)
    workloads = [workload for workload in WORKLOADS if workload.name in wanted]
    scale = Scale(max_tokens=arguments.max_tokens or (24 if arguments.quick else 64))
    num_rounds = arguments.rounds or (1 if arguments.quick else 2)
    head: dict[str, object] = {
        "date": datetime.date.today().isoformat(),
        "machine": describe_machine(),
        "versions": installed_versions(),
        "commit": git_commit(REPOSITORY),
        "backend": "MLX on the CPU" if runs_on_linux_cpu() else f"MLX on {platform.processor()} (Metal)",
        "num_rounds": num_rounds,
        "scale": asdict(scale),
        "servers": {rival.name: rival.note for rival in rivals},
    }
    openblas = find_openblas() if runs_on_linux_cpu() else None
    head["blas"] = openblas.name if openblas else "as MLX ships it"
    with tempfile.TemporaryDirectory(prefix="mlx-manager-bench-") as name:
        folder = Path(name)
        comparison = Comparison(rivals, workloads, scale, folder)
        model = arguments.model or make_float32_folder(import_starter(folder, arguments.gguf), folder)
        head["model"] = f"{model.name}, {_weights_bytes(model) / 1e6:,.0f} MB of weights"
        for number in range(num_rounds):
            comparison.play_round(number, model.resolve(), openblas)
    results = Results(head, comparison.rounds, comparison.failures)
    _write(results, arguments.output or REPOSITORY / "benchmarks" / "results")


def _write(results: Results, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{results.head['date']}-{machine_slug(results.head['machine'])}"
    (folder / f"{stem}.json").write_text(json.dumps(as_json(results), indent=1) + "\n")
    page = as_markdown(results)
    (folder / f"{stem}.md").write_text(page)
    print(f"\n{page}\nWritten to {folder / stem}.md and .json")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, short answers, the telling workloads")
    parser.add_argument("--only", help="servers, comma-separated: " + ", ".join(rival.name for rival in RIVALS))
    parser.add_argument("--workloads", help="comma-separated: " + ", ".join(workload.name for workload in WORKLOADS))
    parser.add_argument("--rounds", type=int, help="rounds to take the median of (2)")
    parser.add_argument("--max-tokens", type=int, help="completion length of each request (64)")
    parser.add_argument("--model", type=Path, help="an MLX model folder to serve instead of the starter in float32")
    parser.add_argument("--gguf", type=Path, help="the starter's GGUF, where its package is not installed")
    parser.add_argument("--output", type=Path, help="folder for the results (benchmarks/results)")
    return parser


def _names(given: str | None, known: list[str]) -> list[str]:
    """The names in a comma-separated option, all when it is not given. Ends the program on an unknown one."""
    names = known if given is None else [name.strip() for name in given.split(",")]
    for name in names:
        if name not in known:
            sys.exit(f"There is no {name!r}; known are {', '.join(known)}.")
    return names


def _weights_bytes(model: Path) -> int:
    return sum(file.stat().st_size for file in model.glob("*.safetensors"))


if __name__ == "__main__":
    main()
