"""What guessing ahead from an answer's own text brings: tokens a second with and without, on three kinds of work.

    python -m benchmarks.drafts MODEL_FOLDER [--tokens 96] [--draft 8]

Editing repeats its prompt, summarising takes pieces of it, free writing has little to repeat. Greedy, one stream; both
ways run in turn in one process, and what they say is compared. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.grammar_cost import load_model
from benchmarks.machine import describe_machine, git_commit, installed_versions
from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.engine import Engine, EngineConfig, EngineRequest, Lookahead, TokenEvent
from mlx_manager.engine.probe import probe_caches
from mlx_manager.engine.runner import PagedRunner
from mlx_manager.engine.sequence import SamplingParams
from mlx_manager.models.loading import LoadedModel, is_cpu_backend

_CODE = """def total(prices, discount):
    result = 0
    for price in prices:
        result = result + price * (1 - discount)
    return result


def average(prices, discount):
    return total(prices, discount) / len(prices)
"""
_REPORT = (
    "The harbour of Ostwick was closed for three weeks after the storm of 4 March. The storm had broken the northern "
    "mole, and two fishing boats had sunk at their moorings. The council paid for divers, who raised both boats by the "
    "end of the month. The northern mole will be rebuilt in stone, at a cost of two million, and the council expects "
    "the work to take until the autumn. Until then only small boats may enter the harbour, and only by day. "
)
WORK = {
    "editing": f"Repeat this program, with the variable result renamed to sum.\n\n{_CODE}",
    "summarising": f"{_REPORT}\n\nSummarise the report above in the words of the report.",
    "free writing": "Write a short story about a lighthouse keeper who finds a letter.",
}


def measure(loaded: LoadedModel, num_tokens: int, max_draft_tokens: int) -> dict[str, dict[str, float]]:
    """By kind of work: tokens a second without and with drafts, their ratio, and how many guesses came true."""
    runner = PagedRunner(loaded.model, probe_caches(loaded.model), 256, DecodeAttention.GATHER_MM)
    lookahead = Lookahead.OVERLAP if is_cpu_backend() else Lookahead.LAUNCH
    config = EngineConfig(num_blocks=256, lookahead=lookahead, has_prefix_cache=False)
    plain = Engine(runner, config)
    drafting = Engine(runner, replace(config, max_draft_tokens=max_draft_tokens))
    figures: dict[str, dict[str, float]] = {}
    for name, question in {"warm-up": WORK["free writing"], **WORK}.items():
        chat = [{"role": "user", "content": question}]
        prompt = tuple(loaded.tokenizer.apply_chat_template(chat, add_generation_prompt=True))
        seen = drafting.counters.num_drafted_tokens, drafting.counters.num_accepted_drafts
        without, without_s = _answer(plain, prompt, num_tokens)
        answer, with_s = _answer(drafting, prompt, num_tokens)
        if answer != without:
            raise SystemExit(f"{name}: the answers differ")
        num_drafted = drafting.counters.num_drafted_tokens - seen[0]
        figures[name] = {
            "tokens": len(answer),
            "plain_tokens_per_s": (len(answer) - 1) / without_s,
            "drafting_tokens_per_s": (len(answer) - 1) / with_s,
            "ratio": without_s / with_s,
            "drafted": num_drafted,
            "accepted": drafting.counters.num_accepted_drafts - seen[1],
        }
    del figures["warm-up"]
    return figures


def _answer(engine: Engine, prompt: tuple[int, ...], num_tokens: int) -> tuple[list[int], float]:
    """The tokens, and seconds from the first of them to the last."""
    params = (SamplingParams(temperature=0.0),)
    engine.add(EngineRequest(request_id="it", prompt_token_ids=prompt, params=params, max_output_tokens=num_tokens))
    tokens: list[int] = []
    started_s = 0.0
    while engine.has_work:
        tokens += [event.chosen.token_id for event in engine.step() if isinstance(event, TokenEvent)]
        started_s = started_s or (time.perf_counter() if tokens else 0.0)
        if len(tokens) >= num_tokens:
            ended_s = time.perf_counter()
            engine.forget("it")
    return tokens[:num_tokens], ended_s - started_s


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="an MLX model folder")
    parser.add_argument("--tokens", type=int, default=96, help="tokens of each answer (96)")
    parser.add_argument("--draft", type=int, default=8, help="most tokens guessed at once (8)")
    arguments = parser.parse_args()
    figures = {
        "work": measure(load_model(arguments.model), arguments.tokens, arguments.draft),
        "machine": describe_machine(),
        "versions": installed_versions(),
        "commit": git_commit(Path(__file__).resolve().parent.parent),
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
