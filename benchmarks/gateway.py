"""Our gateway beside LiteLLM's proxy, each alone in front of the same provider on loopback.

`make bench-gateway`. Both are one process with their defaults; the provider and the clients are on the same machine,
and the provider asked directly shows what they take of it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil
import uvloop

from benchmarks.gateway_load import Load, play
from benchmarks.machine import describe_machine, git_commit, installed_versions, machine_slug
from benchmarks.servers import PROGRAMS, end_in_order, free_port, server_environment

REPOSITORY = Path(__file__).resolve().parent.parent
LITELLM = REPOSITORY / "build" / "gateway-bench" / "bin"
NUM_CLIENTS = 64
NUM_TOKENS, NUM_STREAMED_TOKENS = 16, 200
_START_S = 120.0


@dataclass(frozen=True)
class Measured:
    """One server: alone with one client, with many, with many streams; and its memory afterwards."""

    name: str
    alone: Load
    many: Load
    streams: Load
    memory_bytes: int

    def figures(self) -> dict[str, float]:
        """By name."""
        return {
            "requests_per_s": self.many.requests_per_s,
            "alone_p50_ms": self.alone.latency_ms(0.5),
            "alone_p99_ms": self.alone.latency_ms(0.99),
            "many_p50_ms": self.many.latency_ms(0.5),
            "many_p99_ms": self.many.latency_ms(0.99),
            "streamed_tokens_per_s": self.streams.pieces_per_s,
            "memory_mib": self.memory_bytes / 2**20,
            "num_failed": self.alone.num_failed + self.many.num_failed + self.streams.num_failed,
        }


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each load")
    parser.add_argument("--rounds", type=int, default=2, help="how often each server is started; the order alternates")
    parser.add_argument("--only", default="direct,ours,litellm", help="which servers, with commas between")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "benchmarks" / "results")
    options = parser.parse_args()
    end_in_order()
    machine = describe_machine()
    makers = {"direct": _direct, "ours": _ours, "litellm": _litellm}
    names = options.only.split(",")
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(options.rounds):
        for name in names if number % 2 == 0 else reversed(names):
            with (
                tempfile.TemporaryDirectory() as folder,
                _upstream(Path(folder)) as upstream,
                makers[name](Path(folder), upstream) as (port, process),
            ):
                rounds[name].append(_measure(name, port, process, options.seconds).figures())
            print(json.dumps({"name": name, **rounds[name][-1]}), flush=True)
    head = {
        "date": datetime.date.today().isoformat(),
        "machine": machine,
        "versions": installed_versions() | {"litellm": _litellm_version()},
        "commit": git_commit(REPOSITORY),
        "seconds": options.seconds,
        "rounds": rounds,
    }
    if options.results.name != "none":
        medians = {
            name: {figure: median(one[figure] for one in taken) for figure in taken[0]}
            for name, taken in rounds.items()
        }
        _write(head, medians, options.results)


def _measure(name: str, port: int, process: psutil.Process, seconds: float) -> Measured:
    def load(num_clients: int, share: float, *, is_streamed: bool = False) -> Load:
        num_tokens = NUM_STREAMED_TOKENS if is_streamed else NUM_TOKENS
        return uvloop.run(
            play(
                port,
                num_clients=num_clients,
                seconds=seconds * share,
                num_tokens=num_tokens,
                is_streamed=is_streamed,
            )
        )

    load(NUM_CLIENTS, 0.3)
    load(NUM_CLIENTS, 0.1, is_streamed=True)
    alone, many, streams = load(1, 0.5), load(NUM_CLIENTS, 1.0), load(NUM_CLIENTS, 1.0, is_streamed=True)
    return Measured(name, alone, many, streams, process.memory_info().rss)


@contextmanager
def _upstream(folder: Path) -> Iterator[tuple[int, psutil.Process]]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.gateway_upstream", str(port)]
    with _started(command, port, folder / "upstream.log") as process:
        yield port, process


@contextmanager
def _direct(folder: Path, upstream: tuple[int, psutil.Process]) -> Iterator[tuple[int, psutil.Process]]:
    yield upstream


@contextmanager
def _ours(folder: Path, upstream: tuple[int, psutil.Process]) -> Iterator[tuple[int, psutil.Process]]:
    port = free_port()
    # the spare worker belongs to local models, which are not asked here
    command = [str(PROGRAMS / "mlx-manager"), "serve", "--port", str(port), "--no-use-spare"]
    with _started(command, port, folder / "ours.log") as process:
        provider = {
            "name": "upstream",
            "kind": "openai-compatible",
            "base_url": f"http://127.0.0.1:{upstream[0]}/v1",
            "key": "sk-bench",
            "allows_private_address": True,
        }
        route = {"name": "bench", "pattern": "bench", "targets": [{"provider": "upstream"}]}
        _wait_until_at_rest(port)
        for path, body in (("providers", provider), ("routes", route)):
            httpx.post(f"http://127.0.0.1:{port}/admin/{path}", json=body, trust_env=False).raise_for_status()
        yield port, process


def _wait_until_at_rest(port: int) -> None:
    """Until the default model is loaded: its worker does nothing from then on."""
    give_up_s = time.monotonic() + _START_S
    while httpx.get(f"http://127.0.0.1:{port}/ready", trust_env=False).status_code != httpx.codes.OK:
        if time.monotonic() > give_up_s:
            raise SystemExit("The default model did not load.")
        time.sleep(0.25)


@contextmanager
def _litellm(folder: Path, upstream: tuple[int, psutil.Process]) -> Iterator[tuple[int, psutil.Process]]:
    port = free_port()
    upstream_params = {
        "model": "openai/bench",
        "api_base": f"http://127.0.0.1:{upstream[0]}/v1",
        "api_key": "sk-bench",
    }
    config = folder / "litellm.json"
    # YAML contains JSON
    config.write_text(json.dumps({"model_list": [{"model_name": "bench", "litellm_params": upstream_params}]}))
    command = [str(LITELLM / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    with _started([*command, "--num_workers", "1", "--telemetry", "False"], port, folder / "litellm.log") as process:
        yield port, process


@contextmanager
def _started(command: list[str], port: int, log_path: Path) -> Iterator[psutil.Process]:
    """Run one server until it answers, and end it afterwards."""
    environment = server_environment(log_path.parent, None)
    environment |= {"LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    # as ours on loopback: open to whoever is on this machine
    environment |= {"LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        _wait(process, port, log_path)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log_path: Path) -> None:
    give_up_s = time.monotonic() + _START_S
    with httpx.Client(trust_env=False, timeout=5.0) as client:
        while time.monotonic() < give_up_s:
            if process.poll() is not None:
                break
            try:
                if client.get(f"http://127.0.0.1:{port}/v1/models").status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass  # not listening yet
            time.sleep(0.25)
    raise SystemExit(f"A server did not start: {log_path.read_text(errors='replace')[-2000:]}")


def _litellm_version() -> str:
    asked = [str(LITELLM / "python"), "-c", "import importlib.metadata as m; print(m.version('litellm'))"]
    if not (LITELLM / "python").exists():
        return "not installed"
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


_ROWS: tuple[tuple[str, str, str], ...] = (
    ("requests_per_s", "requests/s, 64 clients", "{:,.0f}"),
    ("streamed_tokens_per_s", "streamed tokens/s, 64 streams", "{:,.0f}"),
    ("alone_p50_ms", "latency p50, one client", "{:,.2f} ms"),
    ("alone_p99_ms", "latency p99, one client", "{:,.2f} ms"),
    ("many_p50_ms", "latency p50, 64 clients", "{:,.1f} ms"),
    ("many_p99_ms", "latency p99, 64 clients", "{:,.1f} ms"),
    ("memory_mib", "resident memory of the gateway's process", "{:,.0f} MiB"),
    ("num_failed", "failed requests", "{:,.0f}"),
)


def _aims(figures: dict[str, dict[str, float]]) -> Iterator[tuple[str, float, float, Callable[[float, float], bool]]]:
    """Each aim: what it is about, what was reached, the bound, and how the two are compared."""
    direct, ours, theirs = (figures[name] for name in ("direct", "ours", "litellm"))
    yield "requests/s over LiteLLM's", ours["requests_per_s"] / theirs["requests_per_s"], 3.0, float.__ge__
    for name, title in (
        ("alone_p50_ms", "one client, p50"),
        ("alone_p99_ms", "one client, p99"),
        ("many_p50_ms", "64 clients, p50"),
        ("many_p99_ms", "64 clients, p99"),
    ):
        added = (ours[name] - direct[name]) / (theirs[name] - direct[name])
        yield f"added latency over LiteLLM's, {title}", added, 1 / 3, float.__le__


def _write(head: dict[str, Any], figures: dict[str, dict[str, float]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{head['date']}-{machine_slug(head['machine'])}-gateway"
    (folder / f"{stem}.json").write_text(json.dumps({**head, "figures": figures}, indent=1) + "\n")
    machine = head["machine"]
    lines = [
        f"# Gateways in front of one provider, measured on {head['date']}",
        "",
        f"- {machine['cpu']}, {machine['num_cores']} cores, {machine['memory_gib']} GiB, {machine['system']}; "
        f"load average before the run {machine['load_average_1min']}",
        "- " + ", ".join(f"{name} {version}" for name, version in head["versions"].items()),
        f"- commit {head['commit']}; `make bench-gateway`, {head['seconds']:g} s a load; "
        f"medians over {max(map(len, head['rounds'].values()))} rounds, the order turned round in between",
        "- one process each, defaults, without keys of their own; ours with its audit, traces, metrics and console",
        "- provider, gateway and clients share the machine: `direct` is the provider asked without a gateway",
        f"- answers of {NUM_TOKENS} tokens, streams of {NUM_STREAMED_TOKENS}; ours asks its provider for a stream in "
        "either case",
        "",
        f"| | {' | '.join(figures)} |",
        "| --- |" + " --: |" * len(figures),
        *(
            f"| {title} | " + " | ".join(form.format(one[name]) for one in figures.values()) + " |"
            for name, title, form in _ROWS
        ),
    ]
    if {"direct", "ours", "litellm"} <= set(figures):
        lines += ["", "| ratio | reached | aim |", "| --- | --: | --: |"]
        for title, reached, bound, holds in _aims(figures):
            sign = "≥" if holds is float.__ge__ else "≤"
            missed = "" if holds(reached, bound) else " (missed)"
            lines.append(f"| {title} | {reached:.2f}{missed} | {sign} {bound:.2f} |")
    (folder / f"{stem}.md").write_text("\n".join(lines) + "\n")
    print(f"Written to {folder / stem}.md and .json")


if __name__ == "__main__":
    main()
