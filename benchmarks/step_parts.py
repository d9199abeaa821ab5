"""What a decode step is made of: an engine with a stopwatch that is read as the step goes from part to part.

The parts are forced apart, in one thread: the forward pass is computed before the choice is, and the tokens are read
before anything else goes on, which an ordinary step leaves to MLX and to a second thread.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median

import mlx.core as mx

from mlx_manager.catalog import LoadOptions
from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.batch import Batch, StepOutput
from mlx_manager.engine.config import EngineConfig
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.grammar import PendingMasks
from mlx_manager.engine.plan import PassPlan
from mlx_manager.engine.probe import ModelCaches
from mlx_manager.engine.requests import EngineEvent
from mlx_manager.engine.runner import Launched, PagedRunner
from mlx_manager.engine.sampler import choose
from mlx_manager.ipc.messages import FromWorker, encode
from mlx_manager.ir import GenerationRequest, Sampling, TokenPrompt
from mlx_manager.models.loading import LoadedModel
from mlx_manager.worker.serving import Serving

SCHEDULE, PLAN, GRAPH, CHOICE_GRAPH = "schedule", "index arrays", "graph of the forward pass", "graph of the choice"
KERNELS, CHOICE_KERNELS, READ = "kernels of the forward pass", "kernels of the choice", "reading the tokens"
BOOKS, PUBLISH, WHOLE = "books", "detokenizing, parsing, publishing", "whole step"
PARTS = (SCHEDULE, PLAN, GRAPH, CHOICE_GRAPH, KERNELS, CHOICE_KERNELS, READ, BOOKS, PUBLISH, WHOLE)
_NUM_STEPS = 24
_NUM_FIRST = 4
"""Steps that are not counted."""
_NUM_BLOCKS = 200
_PROMPT_TOKENS = 64


def step_parts(loaded: LoadedModel, caches: ModelCaches, num_rows: int, sampling: Sampling) -> dict[str, float]:
    """Median seconds of each part of a decode step of `num_rows` answers, as a worker runs it."""
    watch = _Stopwatch()
    runner = _WatchedRunner(loaded.model, caches, _NUM_BLOCKS, DecodeAttention.GATHER_MM)
    runner.watch = watch
    engine = _WatchedEngine(runner, EngineConfig(num_blocks=_NUM_BLOCKS, max_step_tokens=4096))
    engine.watch = watch
    serving = Serving(loaded, engine, LoadOptions())
    frames: list[bytes] = []

    def publish(message: FromWorker) -> None:
        frames.append(encode(message))

    serving.publish = publish
    for row in range(num_rows):
        prompt: list[int] = mx.random.randint(0, 20_000, (_PROMPT_TOKENS,)).tolist()  # type: ignore[assignment]
        prompt = [token % loaded.vocabulary_size for token in prompt]
        serving.submit(
            GenerationRequest(
                request_id=str(row), model="timed", prompt=TokenPrompt(token_ids=tuple(prompt)), sampling=sampling
            )
        )
    while serving.has_work:
        watch.begin()
        serving.step()
        watch.end()
    counted = watch.steps[1 + _NUM_FIRST : _NUM_STEPS]
    return {part: median(step.get(part, 0.0) for step in counted) for part in PARTS}


GREEDY = Sampling(max_tokens=_NUM_STEPS + 1, temperature=0.0, ignore_eos=True)
DRAWN = Sampling(max_tokens=_NUM_STEPS + 1, temperature=0.8, top_p=0.9, top_k=40, seed=1, ignore_eos=True)


class _Stopwatch:
    """Seconds of each part, step by step: the time since the last look belongs to the part that is over."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self._step: dict[str, float] = defaultdict(float)
        self._began_s = self._looked_s = 0.0

    def begin(self) -> None:
        """A step begins."""
        self._began_s = self._looked_s = time.perf_counter()

    def lap(self, part: str) -> None:
        """`part` is over."""
        now_s = time.perf_counter()
        self._step[part] += now_s - self._looked_s
        self._looked_s = now_s

    def end(self) -> None:
        """The step is over. Its index arrays were made twice: once to be timed, once in the graph's time."""
        plan_s = self._step[PLAN]
        self._step[GRAPH] -= plan_s
        self._step[WHOLE] = time.perf_counter() - self._began_s - plan_s
        self.steps.append(dict(self._step))
        self._step.clear()


class _WatchedStep(Launched):
    """A step whose forward pass is computed before the choice is."""

    def __init__(self, batch: Batch, logits: mx.array, arrays: list[mx.array], watch: _Stopwatch) -> None:
        super().__init__(batch, choose(logits, batch.samples, batch.segments, None), arrays)
        self._logits = logits
        self._watch = watch

    def start(self) -> None:
        mx.eval(self._logits, *self._arrays)
        self._watch.lap(KERNELS)
        mx.eval(*([] if self.samples is None else self.samples.arrays()))
        self._watch.lap(CHOICE_KERNELS)

    def read(self) -> StepOutput:
        output = super().read()
        self._watch.lap(READ)
        return output


class _WatchedRunner(PagedRunner):
    """A runner whose steps are built part by part."""

    watch: _Stopwatch

    def build(self, batch: Batch, previous: Launched | None, masks: PendingMasks | None = None) -> Launched:
        if not batch.segments:
            return super().build(batch, previous, masks)
        self.watch.lap(SCHEDULE)
        PassPlan(list(batch.segments), min_shared_blocks=self.attention.min_shared_blocks).reads(None)
        self.watch.lap(PLAN)
        logits = self.logits(batch, wanted=[(sample.segment, sample.num_before_end) for sample in batch.samples])
        self.watch.lap(GRAPH)
        step = _WatchedStep(batch, logits, self.arrays(), self.watch)
        self.watch.lap(CHOICE_GRAPH)
        return step


class _WatchedEngine(Engine):
    """An engine that says when it has booked what a step chose, and when that was delivered."""

    watch: _Stopwatch

    def step(
        self,
        take_in: Callable[[], object] | None = None,
        deliver: Callable[[list[EngineEvent]], None] | None = None,
    ) -> list[EngineEvent]:
        def watched(events: list[EngineEvent]) -> None:
            self.watch.lap(BOOKS)
            if deliver is not None:
                deliver(events)
            self.watch.lap(PUBLISH)

        return super().step(take_in, watched)
