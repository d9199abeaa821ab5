"""Serves a model that embeds or ranks: texts of all requests in flight, batched by length, a bounded pass per step."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import mlx.core as mx
import numpy as np
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_manager.catalog import LoadOptions, ModelEntry, ModelKind
from mlx_manager.errors import GenerationFailed, InvalidRequest, MlxManagerError, QueueFull
from mlx_manager.ipc import Embedded, EngineStats, FromWorker, RequestFailed, ServingReport, StepDone
from mlx_manager.ir import DetokenizeRequest, EmbeddingRequest, RerankRequest, TokenizeRequest, Tokens, Vectors
from mlx_manager.models.chat_template import ChatTemplate
from mlx_manager.models.embedding import Embedder
from mlx_manager.models.encoder import Item, LoadedEncoder
from mlx_manager.models.families import GENERIC
from mlx_manager.models.loading import Report
from mlx_manager.models.prompt import PromptBuilder
from mlx_manager.models.reranking import Reranker
from mlx_manager.models.tokenizing import Tokenizing

_STEP_S = 0.2
"""What a step should take at most: so long waits who comes next, and an abort."""
_MAX_STEP_TOKENS = 16_384
_MAX_STEP_TEXTS = 256
_NUM_AHEAD = 128
"""Texts of a long list that are tokenized at once, and kept ready to choose from."""
_BUCKETS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
"""Texts of one bucket run together, padded to the longest among them: at most a third of a row is padding."""

_Floats = np.ndarray[Any, np.dtype[np.float32]]
_Request = TypeVar("_Request", EmbeddingRequest, RerankRequest)
_Asked_contra = TypeVar("_Asked_contra", EmbeddingRequest, RerankRequest, contravariant=True)


class TextModel(Protocol[_Asked_contra]):
    """What `Embedder` and `Reranker` have in common."""

    encoder: LoadedEncoder
    num_dimensions: int
    max_tokens: int

    def check(self, request: _Asked_contra) -> None: ...
    def num_inputs(self, request: _Asked_contra) -> int: ...
    def tokenize(self, request: _Asked_contra, start: int, stop: int) -> list[Item]: ...
    def compute(self, items: Sequence[Item]) -> _Floats: ...
    def finish(self, request: _Asked_contra, vectors: _Floats) -> _Floats: ...
    def describe(self) -> str: ...


@dataclass
class _Job(Generic[_Request]):
    """One request in flight."""

    request: _Request
    vectors: _Floats
    num_tokenized: int = 0
    num_done: int = 0
    num_tokens: int = 0
    ready: dict[int, Item] = field(default_factory=dict)
    """Tokenized and not yet computed, by the place in the request."""

    @property
    def is_finished(self) -> bool:
        return self.num_done == len(self.vectors)


class EmbeddingServing(Generic[_Request]):
    """A loaded `TextModel` as a `ServedModel`.

    Requests take turns in leading a step, so that a short one waits for one step of each before it and never for the
    rest of a long list.
    """

    def __init__(self, model: TextModel[_Request], request_type: type[_Request], options: LoadOptions) -> None:
        self.request_type: type[_Request] = request_type
        self.publish: Callable[[FromWorker], None] = lambda message: None
        self._model: TextModel[_Request] = model
        self._tokenizing = _tokenizing(model.encoder, model.max_tokens)
        self._max_requests = options.max_queued_requests + options.max_batch_size
        self._jobs: dict[str, _Job[_Request]] = {}
        """In the order of their turns."""
        self._budget = _StepBudget(options.max_step_tokens)
        self._num_steps = self._num_tokens = self._num_finished = self._num_aborted = 0

    @property
    def has_work(self) -> bool:
        """Whether there are requests to be answered."""
        return bool(self._jobs)

    def submit(self, request: _Request) -> RequestFailed | None:
        """Take a request. Returns its failure when it is refused."""
        try:
            self._submit(request)
        except MlxManagerError as error:
            return RequestFailed(request.request_id, error.as_info())
        return None

    def tokenize(self, request: TokenizeRequest | DetokenizeRequest) -> Tokens:
        """The tokens of a text, or the text of tokens. Raises `MlxManagerError`."""
        return self._tokenizing.answer(request)

    def abort(self, request_id: str) -> None:
        """Forget a request before the next step."""
        if self._jobs.pop(request_id, None) is not None:
            self._num_aborted += 1

    def step(self, take_in: Callable[[], object] | None = None) -> None:
        """Compute one batch, led by the request whose turn it is, and answer the requests that it completed."""
        if self._jobs:
            leader = next(iter(self._jobs.values()))
            failure = self._tokenize_ahead(leader)
            if failure is None:
                for message in self._compute(self._batch(leader)):
                    self.publish(message)
                # The next step is another's.
                if (job := self._jobs.pop(leader.request.request_id, None)) is not None:
                    self._jobs[leader.request.request_id] = job
            else:
                self.publish(failure)
        self.publish(StepDone((), self.stats()))

    def tidy(self) -> bool:
        """Nothing waits."""
        return False

    def close(self) -> None:
        """Nothing is on its way."""

    def trim(self) -> None:
        """Nothing is kept from one request for the next."""

    def stats(self) -> EngineStats:
        """The books now; there are no blocks in them."""
        num_running = sum(1 for job in self._jobs.values() if job.num_done)
        return EngineStats(
            num_running=num_running,
            num_waiting=len(self._jobs) - num_running,
            num_steps=self._num_steps,
            num_prompt_tokens=self._num_tokens,
            num_finished_requests=self._num_finished,
            num_aborted_requests=self._num_aborted,
            active_memory_bytes=mx.get_active_memory(),
            cpu_s=time.process_time(),
            peak_memory_bytes=mx.get_peak_memory(),
        )

    def _submit(self, request: _Request) -> None:
        if request.request_id in self._jobs:
            raise InvalidRequest(f"a request with the id {request.request_id} is being answered already")
        if len(self._jobs) >= self._max_requests:
            raise QueueFull(f"{len(self._jobs)} requests wait already, as many as the queue holds; try again later")
        self._model.check(request)
        vectors = np.empty((self._model.num_inputs(request), self._model.num_dimensions), dtype=np.float32)
        job = _Job(request, vectors)
        self._tokenize(job)
        self._jobs[request.request_id] = job

    def _tokenize(self, job: _Job[_Request]) -> None:
        start, stop = job.num_tokenized, min(job.num_tokenized + _NUM_AHEAD, len(job.vectors))
        for index, item in enumerate(self._model.tokenize(job.request, start, stop), start):
            job.ready[index] = item
            job.num_tokens += len(item.token_ids)
        job.num_tokenized = stop

    def _tokenize_ahead(self, job: _Job[_Request]) -> RequestFailed | None:
        """Keep texts of a long list ready; its failure when one of them is refused."""
        if len(job.ready) >= _NUM_AHEAD or job.num_tokenized == len(job.vectors):
            return None
        try:
            self._tokenize(job)
        except MlxManagerError as error:
            del self._jobs[job.request.request_id]
            return RequestFailed(job.request.request_id, error.as_info())
        return None

    def _batch(self, leader: _Job[_Request]) -> list[tuple[_Job[_Request], int]]:
        """Texts to compute together: the leader's next one, and those of its bucket, whoever asked for them."""
        bucket = _bucket(next(iter(leader.ready.values())))
        longest = 0
        chosen: list[tuple[_Job[_Request], int]] = []
        for job, index, item in self._ready():
            if _bucket(item) != bucket:
                continue
            longest = max(longest, len(item.token_ids))
            if chosen and (len(chosen) + 1) * longest > self._budget.num_tokens:
                break
            chosen.append((job, index))
            if len(chosen) == _MAX_STEP_TEXTS:
                break
        return chosen

    def _ready(self) -> Iterable[tuple[_Job[_Request], int, Item]]:
        for job in self._jobs.values():
            for index, item in job.ready.items():
                yield job, index, item

    def _compute(self, batch: list[tuple[_Job[_Request], int]]) -> list[RequestFailed | Embedded]:
        items = [job.ready[index] for job, index in batch]
        started_s = time.perf_counter()
        try:
            vectors = self._model.compute(items)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            return [self._break(job, error) for job in {id(job): job for job, _ in batch}.values()]
        num_padded = len(items) * max(len(item.token_ids) for item in items)
        self._budget.observe(num_padded, time.perf_counter() - started_s)
        self._num_steps += 1
        self._num_tokens += sum(len(item.token_ids) for item in items)
        for (job, index), vector in zip(batch, vectors, strict=True):
            del job.ready[index]
            job.vectors[index] = vector
            job.num_done += 1
        finished = [job for job in {id(job): job for job, _ in batch}.values() if job.is_finished]
        return [self._finish(job) for job in finished]

    def _finish(self, job: _Job[_Request]) -> Embedded:
        del self._jobs[job.request.request_id]
        self._num_finished += 1
        vectors = np.ascontiguousarray(self._model.finish(job.request, job.vectors), dtype="<f4")
        answer = Vectors(num_dimensions=vectors.shape[1], values=vectors.tobytes(), num_prompt_tokens=job.num_tokens)
        return Embedded(job.request.request_id, answer)

    def _break(self, job: _Job[_Request], error: Exception) -> RequestFailed:
        del self._jobs[job.request.request_id]
        reason = GenerationFailed(f"the model failed: {type(error).__name__}: {error}; the request was ended")
        return RequestFailed(job.request.request_id, reason.as_info())


class _StepBudget:
    """How many tokens a step may carry, padding counted: as many as ran in `_STEP_S` lately."""

    def __init__(self, num_tokens: int) -> None:
        self.num_tokens = num_tokens

    def observe(self, num_tokens: int, step_s: float) -> None:
        """Learn from a step. Small ones say little about large ones, so the budget at most doubles."""
        if step_s <= 0:
            return
        wanted = int(num_tokens * _STEP_S / step_s)
        if wanted < self.num_tokens and num_tokens < self.num_tokens // 2:
            # a small step is slow per token: that is no reason to make the next ones small too
            return
        self.num_tokens = max(_BUCKETS[0], min(wanted, 2 * self.num_tokens, _MAX_STEP_TOKENS))


def load_embedding(
    entry: ModelEntry, options: LoadOptions, report: Report
) -> tuple[EmbeddingServing[EmbeddingRequest] | EmbeddingServing[RerankRequest], ServingReport]:
    """Load a model that embeds or ranks and build what serves it. Raises `ModelLoadFailed`."""
    started_s = time.monotonic()
    model: Embedder | Reranker
    serving: EmbeddingServing[EmbeddingRequest] | EmbeddingServing[RerankRequest]
    if entry.kind is ModelKind.RERANKER:
        model = reranker = Reranker.load(entry, options, report)
        serving = EmbeddingServing(reranker, RerankRequest, options)
    else:
        model = embedder = Embedder.load(entry, options, report)
        serving = EmbeddingServing(embedder, EmbeddingRequest, options)
    return serving, ServingReport(
        path="batched",
        reason=f"{model.describe()}; texts of like length run together",
        attention="the library's own",
        dtype=model.encoder.dtype_name,
        max_context=model.max_tokens,
        weights_bytes=model.encoder.weights_bytes,
        kv_bytes_per_token=0,
        kv_budget_bytes=0,
        load_s=time.monotonic() - started_s,
    )


def _tokenizing(encoder: LoadedEncoder, max_tokens: int) -> Tokenizing:
    tokenizer, size = TokenizerWrapper(encoder.tokenizer), len(encoder.tokenizer)
    prompts = PromptBuilder(tokenizer, ChatTemplate(tokenizer, GENERIC), size)
    return Tokenizing(tokenizer, prompts, vocabulary_size=size, max_context=max_tokens)


def _bucket(item: Item) -> int:
    return bisect_left(_BUCKETS, len(item.token_ids))
