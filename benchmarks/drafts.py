"""What guessing ahead brings: tokens a second on three kinds of work, from the answer's own text and by a draft model.

    python -m benchmarks.drafts MODEL_FOLDER [--draft FOLDER | --draft-layers 6 | --draft-bits 4] [--deepen 4]

Editing repeats its prompt, summarising takes pieces of it, free writing has little to repeat. Greedy, one stream or
several. All ways run in one process and take turns step by step, each on a clock of its own, so that a machine that
drifts drifts for all of them; what they say is compared. Where no two models of one tokenizer can be
had, `draft_standins` makes some of one. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import mlx.core as mx

from benchmarks.draft_standins import deepened, first_layers, rounded
from benchmarks.grammar_cost import load_model
from benchmarks.machine import describe_run
from mlx_manager.engine.attach import wrap_attention
from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.config import EngineConfig, Lookahead
from mlx_manager.engine.draft_model import DraftModel
from mlx_manager.engine.drafts import Drafter
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.probe import probe_caches
from mlx_manager.engine.requests import EngineRequest, TokenEvent
from mlx_manager.engine.runner import PagedRunner
from mlx_manager.engine.sequence import SamplingParams
from mlx_manager.models.loading import LoadedModel, is_cpu_backend

_NUM_BLOCKS = 256
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


class Silent(Drafter):
    """Guesses nothing from the text, so that the draft model is alone."""

    def guess(self, num_tokens: int) -> list[int]:
        """Nothing."""
        return []


class Stopwatch:
    """A clock that runs only while its engine does: several take turns, step by step, and none sees the others."""

    def __init__(self, read_s: Callable[[], float]) -> None:
        self._read_s = read_s
        self._total_s = 0.0
        self._began_s: float | None = None

    def __call__(self) -> float:
        return self._total_s + (0.0 if self._began_s is None else self._read_s() - self._began_s)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Runs for so long."""
        self._began_s = self._read_s()
        try:
            yield
        finally:
            self._total_s, self._began_s = self(), None


@dataclass
class Way:
    """One way to go on: its engine, and what it has said."""

    engine: Engine
    clock: Stopwatch
    tokens: dict[str, list[int]] = field(default_factory=dict)
    began_s: float | None = None
    ended_s: float = 0.0
    before: tuple[int, int] = (0, 0)
    num_begun: int = 0

    def ask(self, prompt: tuple[int, ...], num_tokens: int, num_streams: int) -> None:
        """Queue so many greedy answers to one prompt."""
        self.tokens = {str(stream): [] for stream in range(num_streams)}
        self.began_s = None
        self.before = self.engine.counters.num_drafted_tokens, self.engine.counters.num_accepted_drafts
        params = (SamplingParams(temperature=0.0),)
        for key in self.tokens:
            self.engine.add(
                EngineRequest(request_id=key, prompt_token_ids=prompt, params=params, max_output_tokens=num_tokens)
            )

    def step(self) -> None:
        """One step, and all that the device does for it. The time counts from when every stream has its first token."""
        with self.clock.running():
            events = self.engine.step()
            mx.synchronize()
        for event in events:
            if isinstance(event, TokenEvent):
                self.tokens[event.request_id].append(event.chosen.token_id)
                if event.finish is not None:
                    self.ended_s = self.clock()
                    self.engine.forget(event.request_id)
        if self.began_s is None and all(self.tokens.values()):
            self.began_s = self.clock()
            self.num_begun = sum(map(len, self.tokens.values()))

    def figures(self) -> dict[str, float | str]:
        """Tokens a second behind the first ones, and the guesses among them."""
        drafted, accepted = self.engine.counters.num_drafted_tokens, self.engine.counters.num_accepted_drafts
        num_tokens = sum(map(len, self.tokens.values())) - self.num_begun
        return {
            "tokens_per_s": num_tokens / (self.ended_s - (self.began_s or 0.0)),
            "drafted": drafted - self.before[0],
            "accepted": accepted - self.before[1],
            "off": self.engine.drafting_off,
        }


def measure(
    target: LoadedModel,
    draft: LoadedModel | None,
    *,
    num_tokens: int,
    most: int,
    num_streams: int,
    read_s: Callable[[], float],
) -> dict[str, dict[str, dict[str, float | str]]]:
    """By kind of work and way: tokens a second, as a multiple of the plain way's, and how many guesses came true."""
    ways = dict(_ways(target, draft, most, read_s))
    figures: dict[str, dict[str, dict[str, float | str]]] = {}
    for name, question in {"warm-up": WORK["free writing"], **WORK}.items():
        chat = [{"role": "user", "content": question}]
        prompt = tuple(target.tokenizer.apply_chat_template(chat, add_generation_prompt=True))
        for way in ways.values():
            way.ask(prompt, num_tokens, num_streams)
        while any(way.engine.has_work for way in ways.values()):
            for way in ways.values():
                if way.engine.has_work:
                    way.step()
        for label, way in ways.items():
            if way.tokens != ways["plain"].tokens:
                raise SystemExit(f"{name}: the answers of {label} differ")
        figures[name] = {label: way.figures() for label, way in ways.items()}
        plain_per_s = float(figures[name]["plain"]["tokens_per_s"])
        for way_figures in figures[name].values():
            way_figures["ratio"] = float(way_figures["tokens_per_s"]) / plain_per_s
    del figures["warm-up"]
    return figures


def _ways(
    target: LoadedModel, draft: LoadedModel | None, most: int, read_s: Callable[[], float]
) -> Iterator[tuple[str, Way]]:
    lookahead = Lookahead.OVERLAP if is_cpu_backend() else Lookahead.LAUNCH
    config = EngineConfig(num_blocks=_NUM_BLOCKS, lookahead=lookahead, has_prefix_cache=False)

    def way(max_draft_tokens: int, new_drafter: type[Drafter], *, has_model: bool) -> Way:
        clock, guesser = Stopwatch(read_s), None
        if has_model and draft is not None:
            guesser = DraftModel(
                _runner(draft), draft.vocabulary_size, target.vocabulary_size, max_context=draft.max_context
            )
        its_config = replace(config, max_draft_tokens=max_draft_tokens)
        engine = Engine(_runner(target), its_config, clock, new_drafter=new_drafter, draft_model=guesser)
        return Way(engine, clock)

    yield "plain", way(0, Drafter, has_model=False)
    yield "own text", way(most, Drafter, has_model=False)
    if draft is not None:
        yield "draft model", way(most, Silent, has_model=True)
        yield "both", way(most, Drafter, has_model=True)


def _runner(loaded: LoadedModel) -> PagedRunner:
    """A runner with an arena of its own: the ways take turns."""
    wrap_attention(loaded.model)
    return PagedRunner(loaded.model, probe_caches(loaded.model), _NUM_BLOCKS, DecodeAttention.GATHER_MM)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="an MLX model folder")
    parser.add_argument("--draft", type=Path, help="the folder of a draft model of the same tokenizer")
    parser.add_argument("--draft-layers", type=int, help="instead: the model's own first layers, so many")
    parser.add_argument("--draft-bits", type=int, help="instead: the model with its weights rounded to so many bits")
    parser.add_argument("--deepen", type=int, help="a target of so many times the layers, which says the same")
    parser.add_argument("--tokens", type=int, default=96, help="tokens of each answer (96)")
    parser.add_argument("--most", type=int, default=6, help="most tokens guessed at once (6)")
    parser.add_argument("--streams", type=int, default=1, help="answers at the same time (1)")
    parser.add_argument(
        "--cpu-time", action="store_true", help="count CPU time of this process: where others keep the machine busy"
    )
    arguments = parser.parse_args()
    target = deepened(arguments.model, arguments.deepen) if arguments.deepen else load_model(arguments.model)
    draft = _draft(arguments)
    figures = {
        "arguments": {key: str(value) for key, value in vars(arguments).items() if key != "model" and value},
        "model": arguments.model.name,
        "work": measure(
            target,
            draft,
            num_tokens=arguments.tokens,
            most=arguments.most,
            num_streams=arguments.streams,
            read_s=time.process_time if arguments.cpu_time else time.perf_counter,
        ),
        **describe_run(),
    }
    print(json.dumps(figures, indent=1))


def _draft(arguments: argparse.Namespace) -> LoadedModel | None:
    made: list[tuple[object, Callable[[], LoadedModel]]] = [
        (arguments.draft, lambda: load_model(arguments.draft)),
        (arguments.draft_layers, lambda: first_layers(arguments.model, arguments.draft_layers)),
        (arguments.draft_bits, lambda: rounded(arguments.model, arguments.draft_bits)),
    ]
    return next((make() for asked, make in made if asked), None)


if __name__ == "__main__":
    main()
