"""Does it stay right for long? Thousands of steps of a mixed load, every answer compared with the same request alone.

    python -m benchmarks.steady [--steps 20000] [--models qwen3,gemma3_text]

Requests of 1 to 2,000 tokens join, leave, are cancelled, fork, share prefixes and are preempted, over small random
models of mlx-lm's own classes. At every idle moment the books have to balance; memory is written down there. Writes
benchmarks/results/<date>-<machine>-steady.{json,md}, and fails at the first answer that differs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import mlx.core as mx

from benchmarks.machine import describe_machine, describe_run, machine_slug
from benchmarks.steady_load import Limits, Load, Tally
from benchmarks.steady_questions import ask_alone, serve_small
from mlx_manager.engine.blocks import num_blocks_for
from mlx_manager.engine.config import Lookahead

REPOSITORY = Path(__file__).resolve().parent.parent
MODELS = {
    "qwen3": "full attention",
    "gemma3_text": "sliding and full attention",
    "recurrent_gemma": "recurrent and sliding",
    "lfm2": "recurrent (convolutions) and full attention",
    "deepseek_v3": "latent attention (MLA), experts",
    "gpt_oss": "sliding and full attention with sinks, experts",
    "qwen3_next": "recurrent (gated delta) and full attention, experts",
}
LIMITS = Limits()
WINDOWED = "recurrent_gemma"
"""Its sequences hold a window only, so it needs fewer blocks before they get into each other's way."""


@dataclass(frozen=True)
class Outcome:
    """What one model's run came to."""

    model: str
    seconds: float
    alone_s: float
    tally: Tally


def limits_of(model_type: str) -> Limits:
    """As many blocks as leave room for the longest request and not for much more."""
    return replace(LIMITS, num_blocks=16, max_step_tokens=128) if model_type == WINDOWED else LIMITS


def run(
    model_type: str,
    num_steps: int,
    limits: Limits,
    *,
    seed: int = 1,
    num_questions: int = 32,
    lookahead: Lookahead = Lookahead.OVERLAP,
) -> Outcome:
    """Ask everything alone, then play the load. Raises `AssertionError` where an answer or a book is wrong."""
    rng = Random(f"{model_type} {seed}")
    small = serve_small(model_type, num_blocks_for(limits.max_tokens) + 1)
    started_s = time.perf_counter()
    questions = ask_alone(small, rng, num_questions, limits)
    alone_s = time.perf_counter() - started_s
    load = Load(small.new_engine(limits, lookahead), questions, rng, limits)
    tally = load.play(num_steps)
    return Outcome(model_type, time.perf_counter() - started_s - alone_s, alone_s, tally)


def main() -> None:
    """Run the models one after the other and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000, help="engine steps per model")
    parser.add_argument("--models", default=",".join(MODELS), help=f"of {', '.join(MODELS)}")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    unknown = set(arguments.models.split(",")) - set(MODELS)
    if unknown:
        parser.error(f"no such model: {', '.join(sorted(unknown))}")
    head = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        **describe_run(),
        "backend": f"MLX {mx.default_device().type.name.upper()}, float32",
        "seed": arguments.seed,
        "limits": {name: asdict(limits_of(name)) for name in MODELS},
    }
    chosen = "" if arguments.models == ",".join(MODELS) else f"-{arguments.models.replace(',', '-')}"
    slug = f"{head['date']}-{machine_slug(describe_machine())}-steady{chosen}"
    path = REPOSITORY / "benchmarks/results" / slug
    outcomes: list[Outcome] = []
    for model_type in arguments.models.split(","):
        outcomes.append(run(model_type, arguments.steps, limits_of(model_type), seed=arguments.seed))
        written = {"head": head, "outcomes": [asdict(one) for one in outcomes]}
        path.with_name(f"{slug}.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
        path.with_name(f"{slug}.md").write_text(page(head, outcomes), encoding="utf-8")
        print(f"{model_type}: no difference; {slug}.md")


def page(head: dict[str, Any], outcomes: list[Outcome]) -> str:
    """The results as Markdown."""
    machine, limits = head["machine"], LIMITS
    lines = [
        f"# A steady load, {head['date']}",
        "",
        f"- {machine['cpu']}, {machine['num_cores']} cores, {machine['memory_gib']} GiB, {machine['system']}; "
        f"load average before the run {machine['load_average_1min']}",
        f"- {head['backend']}; " + ", ".join(f"{name} {version}" for name, version in head["versions"].items()),
        f"- commit {head['commit']}; seed {head['seed']}; requests of 1 to {limits.max_tokens:,} tokens, at most "
        f"{limits.max_batch_size} rows at once",
        "",
        "Every token of every request, also of those cut short, was compared with the same request alone in an engine "
        "of its own. The books were checked at every idle moment.",
        "",
        _row("", *(f"{one.model}" for one in outcomes)),
        _row("---", *("--:" for _ in outcomes)),
        _row("kept by its layers", *(MODELS[one.model] for one in outcomes)),
        _row("blocks of 32 tokens", *(f"{limits_of(one.model).num_blocks}" for one in outcomes)),
    ]
    for label, name in (
        ("steps", "num_steps"),
        ("requests", "num_requests"),
        ("of these cancelled", "num_cancelled"),
        ("with several choices", "num_forking"),
        ("preemptions", "num_preemptions"),
        ("tokens compared", "num_compared_tokens"),
        ("differences", "num_differences"),
        ("prompt tokens from the prefix cache", "num_cached_tokens"),
        ("idle moments", "num_idle_moments"),
    ):
        lines.append(_row(label, *(f"{getattr(one.tally, name):,}" for one in outcomes)))
    lines += [
        _row("seconds", *(f"{one.seconds:.0f}" for one in outcomes)),
        "",
        "Memory at the idle moments, MiB (active: what MLX holds; resident: the process, with the models before it):",
        "",
        _row("model", "step", "active", "resident"),
        _row("---", "--:", "--:", "--:"),
    ]
    for one in outcomes:
        every = max(1, len(one.tally.moments) // 5)
        for moment in [*one.tally.moments[::every], one.tally.moments[-1]]:
            active, resident = moment.active_bytes / 2**20, moment.resident_bytes / 2**20
            lines.append(_row(one.model, f"{moment.step:,}", f"{active:.1f}", f"{resident:.0f}"))
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
