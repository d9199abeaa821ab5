"""How the worker would serve a model type, and whether what the engine answers is the library's answer.

Greedy, through the real engine, in every situation that the scheduler can bring about: alone, batched with joins and
leaves, chunked, on a shared prefix, preempted, forked, after a restart over what was kept on disk. Compared are the
tokens and the likeliest log-probabilities.
"""

from __future__ import annotations

import gc
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx_lm.models.cache import CacheList, make_prompt_cache

from mlx_manager.engine.batch import Chosen
from mlx_manager.engine.blocks import BLOCK_SIZE
from mlx_manager.engine.config import EngineConfig, Lookahead
from mlx_manager.engine.drafts import Drafter
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.requests import EngineRequest, TokenEvent
from mlx_manager.engine.sequence import SamplingParams
from mlx_manager.engine.sequential import SequentialRunner
from tests.models.guessing import Oracle
from tests.models.serving import EngineMaker, serve
from tests.models.zoo import VOCABULARY_SIZE, NotBuilt, build, config_of

NUM_NEW_TOKENS = 12
_LENGTHS = (1, 40, 60, 126)
_NUM_SHARED = 45
"""The first tokens of the third and the fourth prompt: one block and a part of the next."""
_CHUNK = 16
_NUM_COMPARED = 16
_TOLERANCE = 5e-3
"""Of log-probabilities, as a part of the spread (standard deviation) of the logits."""
_TIE = 1e-3
"""Tokens whose logits are nearer than this part of the spread may change places."""
_GREEDY = SamplingParams(temperature=0.0, num_top_logprobs=_NUM_COMPARED)
_MODEL_ERRORS = (TypeError, ValueError, AttributeError, IndexError, KeyError, RuntimeError, NotImplementedError)
_LAYER_KINDS = {
    "KVCache": "full attention",
    "RotatingKVCache": "sliding attention",
    "ChunkedKVCache": "chunked attention",
    "ArraysCache": "recurrent",
}


@dataclass
class Row:
    """What was found out about one model type."""

    model_type: str
    not_built: str = ""
    layers: str = ""
    """How many layers there are, and what those that keep something keep."""
    caches: str = ""
    """The library's caches, by kind and number."""
    path: str = ""
    reason: str = ""
    """Why the worker chose this path."""
    mismatches: list[str] = field(default_factory=list)
    """Where the engine's answer was not the library's."""
    notes: list[str] = field(default_factory=list)
    """Where the library's own answers differ: its whole prompt against its prompt in chunks."""


@dataclass(frozen=True)
class Answer:
    """The library's greedy answer to one prompt."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: np.ndarray[tuple[int, int], np.dtype[np.float32]]
    """[tokens, vocabulary]"""
    spreads: tuple[float, ...]


def examine(model_type: str) -> Row:
    """Build a model of `model_type`, choose its path as the worker does, and compare that path and the fallback."""
    try:
        model = build(model_type)
        answers = [library_answer(model, prompt) for prompt in prompts()]
    except NotBuilt as error:
        return Row(model_type, not_built=str(error))
    except _MODEL_ERRORS as error:
        return Row(model_type, not_built=f"{type(error).__name__}: {error}")
    row = Row(model_type, layers=layer_kinds(model), caches=cache_kinds(model))
    row.notes = list(_chunk_notes(model, answers))
    served = serve(model, config_of(model_type), VOCABULARY_SIZE)
    row.path, row.reason = served.path, served.reason
    # Where the library contradicts itself, only a prompt taken whole can be compared with a prompt taken whole.
    situations = _PAGED_SITUATIONS if served.path == "paged" else _SITUATIONS
    row.mismatches += compare(served.path, served.new_engine, answers, (_alone,) if row.notes else situations)
    if served.path != "sequential" and not row.notes:
        row.mismatches += compare("sequential", _sequential(model), answers, _FALLBACK_SITUATIONS)
    gc.collect()
    return row


def _chunk_notes(model: nn.Module, answers: list[Answer]) -> Iterator[str]:
    """Whether the library itself answers otherwise when it takes a prompt in chunks."""
    for answer in answers:
        cache = make_prompt_cache(model)
        logits = mx.zeros(())
        for start in range(0, len(answer.prompt), _CHUNK):
            logits = model(mx.array([answer.prompt[start : start + _CHUNK]]), cache=cache)[0, -1]
            mx.eval(logits)
        own = np.array((logits - mx.logsumexp(logits)).astype(mx.float32))
        is_open = np.isfinite(answer.logprobs[0])
        worst = float(np.abs(own - answer.logprobs[0])[is_open].max()) / answer.spreads[0]
        if not worst <= _TOLERANCE:
            length = len(answer.prompt)
            yield (
                f"the library's own logits behind {length} tokens in chunks of {_CHUNK} differ by {worst:.2g}, "
                "so only prompts taken whole were compared"
            )
            return


def prompts() -> list[tuple[int, ...]]:
    """Prompts of every length; the last two begin alike."""
    drawn = [np.random.default_rng(50 + n).integers(0, VOCABULARY_SIZE, size=n) for n in _LENGTHS]
    drawn[2][:_NUM_SHARED] = drawn[3][:_NUM_SHARED]
    return [tuple(int(token) for token in prompt) for prompt in drawn]


def library_answer(model: nn.Module, prompt: tuple[int, ...]) -> Answer:
    """What the library itself generates, the prompt in one pass."""
    cache = make_prompt_cache(model)
    inputs, rows = mx.array([prompt]), []
    for _ in range(NUM_NEW_TOKENS):
        logits = model(inputs, cache=cache)[0, -1]
        mx.eval(logits)
        rows.append(np.array(logits.astype(mx.float32)))
        inputs = mx.array([[int(rows[-1].argmax())]])
    stacked = np.stack(rows)
    if np.isnan(stacked).any():
        raise ValueError("its logits are not numbers")
    shifted = stacked - stacked.max(axis=-1, keepdims=True)
    logprobs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    # Some models rule tokens out with logits of minus infinity.
    spreads = tuple(float(row[np.isfinite(row)].std()) for row in rows)
    return Answer(prompt, tuple(int(row.argmax()) for row in rows), logprobs, spreads)


def cache_kinds(model: nn.Module) -> str:
    """The kinds of the library's caches and how many of each, "2 KVCache, 2 RotatingKVCache"."""
    kinds = Counter(_kind(cache) for cache in make_prompt_cache(model))
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def _layer_kind(cache: object) -> str:
    if isinstance(cache, CacheList):
        return " and ".join(_layer_kind(inner) for inner in cache.caches)
    return _LAYER_KINDS.get(type(cache).__name__, "of its own kind")


def _kind(cache: object) -> str:
    if isinstance(cache, CacheList):
        return f"CacheList({', '.join(_kind(inner) for inner in cache.caches)})"
    return type(cache).__name__


def layer_kinds(model: nn.Module) -> str:
    """The kinds of the model's layers and how many of each, "4 layers: 2 full, 2 sliding"."""
    caches = make_prompt_cache(model)
    num_layers = len(model.layers)
    kinds = Counter(_layer_kind(cache) for cache in caches)
    if num_layers > len(caches):
        kinds["without a cache of their own"] = num_layers - len(caches)
    return f"{num_layers}: " + ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def compare(path: str, new_engine: EngineMaker, answers: list[Answer], situations: tuple[Situation, ...]) -> list[str]:
    """Run the situations; where and how answers differed from the library's."""
    found = []
    for situation in situations:
        name = situation.__name__.lstrip("_").replace("_", " ")
        try:
            wrong = next((text for text in situation(new_engine, answers) if text), "")
        except _MODEL_ERRORS as error:
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            found.append(f"{path}, {name}: {wrong}")
    return found


def _alone(new_engine: EngineMaker, answers: list[Answer]) -> Iterator[str]:
    for index, answer in enumerate(answers):
        yield from _differences(run_requests(new_engine(), [_ask(index, answer)]), answers)


def _batched(new_engine: EngineMaker, answers: list[Answer], *, lookahead: Lookahead = Lookahead.NONE) -> Iterator[str]:
    lengths = (NUM_NEW_TOKENS, 6, NUM_NEW_TOKENS, 9, 4, NUM_NEW_TOKENS)
    order = (1, 3, 0, 2, 1, 0)
    requests = [
        _ask(index, answers[index], key=f"{index}/{place}", num_tokens=length)
        for place, (index, length) in enumerate(zip(order, lengths, strict=True))
    ]
    yield from _differences(run_requests(new_engine(lookahead=lookahead), requests, every=2), answers)


def _pipelined(new_engine: EngineMaker, answers: list[Answer]) -> Iterator[str]:
    return _batched(new_engine, answers, lookahead=Lookahead.LAUNCH)


def _chunked(new_engine: EngineMaker, answers: list[Answer]) -> Iterator[str]:
    requests = [_ask(index, answer) for index, answer in enumerate(answers)]
    yield from _differences(run_requests(new_engine(max_step_tokens=16), requests), answers)


def _shared_prefix(new_engine: EngineMaker, answers: list[Answer]) -> Iterator[str]:
    engine = new_engine()
    for key, index in (("first", 3), ("same again", 3), ("same beginning", 2), ("longest again", 3)):
        yield from _differences(run_requests(engine, [_ask(index, answers[index], key=f"{index}/{key}")]), answers)
    yield from _differences(run_requests(engine, [_ask(1, answers[1], num_choices=2)]), answers)


def _read_together(new_engine: EngineMaker, answers: list[Answer]) -> Iterator[str]:
    engine = new_engine(min_shared_blocks=1)
    yield from _differences(run_requests(engine, [_ask(3, answers[3], key="3/first", num_tokens=2)]), answers)
    requests = [_ask(index, answers[index], key=f"{index}/{place}") for place, index in enumerate((3, 2, 3, 1))]
    yield from _differences(
        run_requests(engine, [*requests, _ask(2, answers[2], key="2/forked", num_choices=2)]), answers
    )


def _drafted(new_engine: EngineMaker, answers: list[Answer]) -> Iterator[str]:
    known = {answer.prompt: answer.tokens for answer in sorted(answers, key=lambda answer: -len(answer.prompt))}
    engine = new_engine(new_drafter=lambda tokens, most: Oracle(tokens, most, known, VOCABULARY_SIZE))
    requests = [_ask(index, answers[index], key=f"{index}/{place}") for place, index in enumerate((3, 0, 2, 3, 1))]
    yield from _differences(run_requests(engine, requests, every=3), answers)
    if engine.can_draft and not 0 < engine.counters.num_accepted_drafts < engine.counters.num_drafted_tokens:
        yield "no draft came true in part"


def _preempted(new_engine: EngineMaker, answers: list[Answer]) -> Iterator[str]:
    places = list(enumerate((2, 3, 2, 1, 0)))
    # How few blocks are too few depends on whether the path shares the common beginning, and on its windows.
    for num_blocks, num_choices in ((8, 1), (7, 1), (6, 1), (7, 3), (6, 3)):
        requests = [
            _ask(index, answers[index], key=f"{index}/{place}", num_choices=num_choices) for place, index in places
        ]
        engine = new_engine(num_blocks=num_blocks)
        yield from _differences(run_requests(engine, requests), answers)
        if engine.scheduler.num_preemptions > 0:
            return
    yield "nothing was preempted"


def _forked(new_engine: EngineMaker, answers: list[Answer]) -> Iterator[str]:
    requests = [_ask(index, answers[index], num_choices=3) for index in (1, 2, 0)]
    yield from _differences(run_requests(new_engine(), requests, every=3), answers)


def _trimmed(new_engine: EngineMaker, answers: list[Answer]) -> Iterator[str]:
    engine = new_engine()
    for key in ("first", "again"):
        requests = [_ask(index, answer, key=f"{index}/{key}") for index, answer in enumerate(answers)]
        yield from _differences(run_requests(engine, requests), answers)
        engine.trim()
        if engine.arena_bytes:
            yield f"{engine.arena_bytes} bytes are held after a trim"


def _restarted(new_engine: EngineMaker, answers: list[Answer]) -> Iterator[str]:
    longest = answers[3]
    with tempfile.TemporaryDirectory() as disk:
        first = new_engine(disk=Path(disk))
        yield from _differences(run_requests(first, [_ask(3, longest), _ask(2, answers[2])]), answers)
        while first.spill(8):
            first.flush()
        again = new_engine(disk=Path(disk))
        requests = [_ask(3, longest, num_choices=2), _ask(2, answers[2]), _ask(3, longest, key="3/twin")]
        yield from _differences(run_requests(again, requests), answers)
        num_full = (len(longest.prompt) - 1) // BLOCK_SIZE * BLOCK_SIZE
        if (num_restored := again.scheduler.num_restored_tokens) < num_full:
            yield f"{num_restored} tokens were restored after a restart, and not the {num_full} that there were"


def _ask(
    index: int, answer: Answer, *, key: str = "", num_tokens: int = NUM_NEW_TOKENS, num_choices: int = 1
) -> EngineRequest:
    return EngineRequest(
        request_id=key or str(index),
        prompt_token_ids=answer.prompt,
        params=(_GREEDY,) * num_choices,
        max_output_tokens=num_tokens,
    )


_Chosen = dict[tuple[str, int], list[Chosen]]


def run_requests(engine: Engine, requests: list[EngineRequest], *, every: int = 0) -> _Chosen:
    """Add the requests, one more `every` so many steps, and step until nothing is left."""
    chosen: _Chosen = {}
    for request in requests:
        engine.add(request)
        for _ in range(every):
            _step(engine, chosen)
    while engine.has_work:
        _step(engine, chosen)
    for request in requests:
        engine.forget(request.request_id)
    engine.scheduler.check_integrity()
    return chosen


def _step(engine: Engine, chosen: _Chosen) -> None:
    for event in engine.step():
        if not isinstance(event, TokenEvent):
            raise ValueError("logits that are not finite")
        chosen.setdefault((event.request_id, event.choice), []).append(event.chosen)


def _differences(chosen: _Chosen, answers: list[Answer]) -> Iterator[str]:
    for (key, choice), tokens in chosen.items():
        answer = answers[int(key.partition("/")[0])]
        wrong = difference(tokens, answer)
        if wrong:
            yield f"prompt of {len(answer.prompt)} tokens, choice {choice}, {wrong}"


def difference(tokens: list[Chosen], answer: Answer) -> str:
    """How `tokens` differ from the library's, "" where they do not. What follows a tie is not compared."""
    for place, chosen in enumerate(tokens):
        logprobs, spread = answer.logprobs[place], answer.spreads[place]
        worst = max(abs(logprob - float(logprobs[token])) for token, logprob in chosen.top) / spread
        if worst > _TOLERANCE:
            return f"token {place}: log-probabilities differ by {worst:.2g} of the spread"
        if chosen.token_id != answer.tokens[place]:
            gap = float(logprobs[answer.tokens[place]] - logprobs[chosen.token_id]) / spread
            return "" if gap < _TIE else f"token {place}: {chosen.token_id} instead of {answer.tokens[place]}"
    return ""


Situation = Callable[[EngineMaker, list[Answer]], Iterator[str]]
_SITUATIONS: tuple[Situation, ...] = (
    _alone,
    _batched,
    _pipelined,
    _chunked,
    _shared_prefix,
    _read_together,
    _drafted,
    _preempted,
    _forked,
    _trimmed,
)
_PAGED_SITUATIONS: tuple[Situation, ...] = (*_SITUATIONS, _restarted)
_FALLBACK_SITUATIONS: tuple[Situation, ...] = (_batched, _chunked, _forked, _trimmed)
"""Of the fallback of a model that is served otherwise: what depends on the model's own caches."""


def _sequential(model: nn.Module) -> EngineMaker:
    def new_engine(
        *,
        num_blocks: int = 64,
        max_step_tokens: int = 512,
        lookahead: Lookahead = Lookahead.NONE,
        min_shared_blocks: int | None = None,
        new_drafter: Callable[[list[int], int], Drafter] | None = None,
        disk: Path | None = None,
    ) -> Engine:
        config = EngineConfig(
            num_blocks=num_blocks,
            max_step_tokens=max_step_tokens,
            lookahead=lookahead,
            has_prefix_cache=False,
        )
        return Engine(SequentialRunner(model), config)

    return new_engine
