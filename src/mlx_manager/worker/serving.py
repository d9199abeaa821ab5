"""A loaded model being served: requests in, events out, one engine step at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx
from msgspec.structs import replace

from mlx_manager.catalog import LoadOptions
from mlx_manager.engine.draft_watch import DraftSource
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.grammar import Constraint
from mlx_manager.engine.prefix_miss import place
from mlx_manager.engine.requests import EngineEvent, EngineRequest, RequestBroke
from mlx_manager.errors import GenerationFailed, InvalidRequest, MlxManagerError, QueueFull
from mlx_manager.ipc import EngineStats, FromWorker, RequestEvents, RequestFailed, StepDone, Tokenized
from mlx_manager.ir import (
    ChatPrompt,
    DetokenizeRequest,
    Event,
    Finished,
    GenerationRequest,
    Grammar,
    PrefixReason,
    PrefixReport,
    TextPrompt,
    TokenizeRequest,
    TokenPrompt,
    Tokens,
    ToolChoiceMode,
)
from mlx_manager.models.calls import CallRules, callable_tools, enforced_schemas
from mlx_manager.models.grammars import GrammarCompiler
from mlx_manager.models.loading import LoadedModel
from mlx_manager.models.pieces import SeeingTokenizer
from mlx_manager.models.prompt import BuiltPrompt, PromptBuilder
from mlx_manager.models.sight import Sight
from mlx_manager.models.tokenizing import Tokenizing
from mlx_manager.models.tokens import Vocabulary
from mlx_manager.worker.answer import AnswerBuilder
from mlx_manager.worker.choice import Reading, ThinkingBudget
from mlx_manager.worker.device import give_memory_back
from mlx_manager.worker.gaze import Gaze, SeenRequest, visuals_of
from mlx_manager.worker.preparing import Preparing, is_long, unprepared
from mlx_manager.worker.rows import RowReports
from mlx_manager.worker.terms import Terms, prefix_ids
from mlx_manager.worker.videos import VisualLimits

_DRAIN_WINDOW_S = 60.0
_READY_WAIT_S = 0.005
_NUM_TIDIED_BLOCKS = 8
_MOST_CLOSING_S = 2.0
_QUIET_S = 2.0
"""Silence after which the worker gets ready for grammars."""
_MOST_PUT_OFF = 8
"""Steps for which images wait for prompts that are being computed."""


class Serving:
    """One model and its engine. Everything is called from the worker's main thread.

    What the engine delivers while that thread waits for the device is published from the engine's own thread.

    `max_context` is the longest prompt and completion together, in tokens.
    """

    request_type = GenerationRequest

    def __init__(self, loaded: LoadedModel, engine: Engine, options: LoadOptions) -> None:
        self._engine = engine
        self._options = options
        self._vocabulary = Vocabulary(loaded.tokenizer)
        self._prompts = PromptBuilder(loaded.tokenizer, loaded.style.template, loaded.vocabulary_size)
        self._calls = CallRules.of(loaded.style.answers, loaded.tokenizer)
        self._eos_token_ids = loaded.eos_token_ids
        self.max_context = min(loaded.max_context, engine.capacity_tokens)
        self._terms = Terms(
            max_context=self.max_context,
            default_max_tokens=options.default_max_tokens,
            vocabulary_size=loaded.vocabulary_size,
            sampling_defaults=loaded.sampling_defaults,
        )
        self._tokenizing = Tokenizing(
            loaded.tokenizer, self._prompts, vocabulary_size=loaded.vocabulary_size, max_context=self.max_context
        )
        self._sight = loaded.sight
        self._gaze = None if loaded.sight is None else self._new_gaze(loaded, loaded.sight)
        self._grammars = GrammarCompiler(loaded.tokenizer, loaded.vocabulary_size, loaded.eos_token_ids)
        self._encoding: Preparing[_Encoded | Tokenized] = Preparing()
        self._compiling: dict[str, _Compiling] = {}
        self._answers: dict[str, AnswerBuilder] = {}
        self._received_s: dict[str, float] = {}
        """When requests came whose prompts are not prepared yet."""
        self.publish: Callable[[FromWorker], None] = _drop
        """Sends what a step brings, as it comes. Set by the worker's main thread before the first request."""
        self._num_put_off = 0
        """Steps in a row before which no image was seen because of prompts."""
        engine.on_admitted = self._begin
        self._rows = RowReports(engine.scheduler)
        self._finish_times_s: deque[float] = deque(maxlen=64)
        self._last_active_s = time.monotonic()
        self.is_ready_for_grammars = False
        """Whether a grammar can be compiled at once. Set by `tidy`."""

    @property
    def has_work(self) -> bool:
        """Whether `step` has anything to do."""
        return self._engine.has_work or bool(self._encoding) or bool(self._compiling) or bool(self._gaze)

    def submit(self, request: GenerationRequest) -> RequestFailed | None:
        """Take a request; its first events are published once it is admitted. Returns its failure when refused."""
        self._last_active_s = time.monotonic()
        try:
            self._submit(request)
        except MlxManagerError as error:
            return RequestFailed(request.request_id, error.as_info())
        finally:
            if not any(request.request_id in place for place in (self._encoding, self._gaze or ())):
                self._received_s.pop(request.request_id, None)
        return None

    def tokenize(self, request: TokenizeRequest | DetokenizeRequest) -> Tokens | None:
        """The tokens of a prompt, or the text of tokens; None for a long text, which is answered in a later step.

        Raises `MlxManagerError`.
        """
        if self._gaze is not None and isinstance(request, TokenizeRequest):
            prompt = request.prompt
            if isinstance(prompt, ChatPrompt) and visuals_of(prompt):
                request = replace(request, prompt=TokenPrompt(token_ids=self._gaze.read(prompt)))
        if isinstance(request, DetokenizeRequest) or isinstance(request.prompt, TokenPrompt):
            return self._tokenizing.answer(request)
        rendered, asked = self._prompts.render(request.prompt), request
        if not is_long(rendered.text):
            return self._tokenizing.encoded(rendered, asked)
        self._encoding.add(
            asked.request_id,
            lambda is_wanted: Tokenized(asked.request_id, self._tokenizing.encoded(rendered, asked, is_wanted)),
        )
        return None

    def abort(self, request_id: str) -> None:
        """Forget a request before the next step."""
        if self._gaze is not None:
            self._gaze.abort(request_id)
        self._encoding.drop(request_id)
        self._compiling.pop(request_id, None)
        self._received_s.pop(request_id, None)
        self._answers.pop(request_id, None)
        self._engine.forget(request_id, is_aborted=True)

    def step(self, take_in: Callable[[], object] | None = None) -> None:
        """Run one step of the engine and publish what it brought. `take_in` as `Engine.step` says."""
        self._await_ready()
        for answer in self._take_encoded() + self._take_seen() + self._start_compiled():
            self.publish(answer)
        self._engine.step(take_in, self._publish_tokens)

    def _publish_tokens(self, tokens: list[EngineEvent]) -> None:
        deltas: dict[str, list[Event]] = {}
        for event in tokens:
            answer = self._answers.get(event.request_id)
            if answer is None:
                continue
            if isinstance(event, RequestBroke):
                del self._answers[event.request_id]
                deltas.pop(event.request_id, None)
                error = GenerationFailed(f"{event.reason}; the request was ended")
                self.publish(RequestFailed(event.request_id, error.as_info()))
                continue
            events = deltas.setdefault(event.request_id, [])
            events += answer.add(event)
            if answer.has_ended(event.choice):
                self._engine.finish_choice(event.request_id, event.choice)
            elif (forced := answer.take_forced(event.choice)) is not None:
                if forced:
                    self._engine.force(event.request_id, event.choice, forced)
                else:
                    self._engine.unforce(event.request_id, event.choice)
            if answer.is_finished:
                events.append(self._finish(answer, event.request_id))
                self._engine.forget(event.request_id)
                del self._answers[event.request_id]
                self._finish_times_s.append(time.monotonic())
        self._last_active_s = time.monotonic()
        reports = tuple(RequestEvents(request_id, tuple(events)) for request_id, events in deltas.items() if events)
        self.publish(StepDone(reports, self.stats(), self._rows.due()))

    def tidy(self) -> bool:
        """Keep some more cached blocks on disk, where that is set, and get ready for grammars; False: all is done.

        Grammars wait until nobody has asked for anything for a while: who asks meanwhile has to wait for them.
        """
        if self.has_work:
            return False
        if self._engine.spill(_NUM_TIDIED_BLOCKS):
            return True
        return self._get_ready_for_grammars()

    def _get_ready_for_grammars(self) -> bool:
        """Whether there is still something to do, or to wait for."""
        if self.is_ready_for_grammars:
            return False
        if time.monotonic() - self._last_active_s < _QUIET_S or not self._grammars.prepare().done():
            return True
        # what was needed on the way is as much again as what stays
        give_memory_back()
        self.is_ready_for_grammars = True
        return False

    def close(self) -> None:
        """Keep what is cached on disk, as far as a few seconds reach."""
        end_s = time.monotonic() + _MOST_CLOSING_S
        while time.monotonic() < end_s and not self._engine.has_work and self._engine.spill(_NUM_TIDIED_BLOCKS):
            self._engine.flush()
        self._engine.flush()

    def trim(self) -> None:
        """Give up the prefix cache, the memory of the KV arena, and what is kept of images."""
        if self._sight is not None:
            self._sight.forget()
        self._engine.trim()

    def stats(self) -> EngineStats:
        """The engine's books now."""
        scheduler, blocks, counters = self._engine.scheduler, self._engine.scheduler.blocks, self._engine.counters
        by_model = self._engine.drafting.counters[DraftSource.MODEL]
        masks = self._engine.grammars.counters
        return EngineStats(
            num_running=len(scheduler.running),
            num_waiting=len(scheduler.waiting) + self._num_preparing,
            num_blocks_total=blocks.num_blocks,
            num_blocks_free=blocks.num_free,
            num_blocks_cached=blocks.num_cached,
            num_blocks_used=blocks.num_used,
            arena_bytes=self._engine.arena_bytes,
            num_steps=counters.num_steps,
            num_prompt_tokens=counters.num_prompt_tokens,
            num_cached_tokens=counters.num_cached_tokens,
            num_restored_tokens=scheduler.num_restored_tokens,
            block_fetch_s=self._engine.block_fetch_s,
            block_prefill_s=self._engine.block_prefill_s,
            num_generated_tokens=counters.num_generated_tokens,
            num_drafted_tokens=counters.num_drafted_tokens,
            num_accepted_drafts=counters.num_accepted_drafts,
            num_model_drafted_tokens=by_model.num_drafted,
            num_accepted_model_drafts=by_model.num_accepted,
            drafting_off=self._engine.drafting_off,
            num_grammar_masks=masks.num_masks,
            grammar_compute_s=masks.compute_s,
            grammar_wait_s=masks.wait_s,
            num_preemptions=scheduler.num_preemptions,
            num_finished_requests=counters.num_finished_requests,
            num_aborted_requests=counters.num_aborted_requests,
            active_memory_bytes=mx.get_active_memory(),
            cpu_s=time.process_time(),
            peak_memory_bytes=mx.get_peak_memory(),
        )

    def _submit(self, request: GenerationRequest) -> None:
        known = (self._answers, self._encoding, self._compiling, self._gaze or ())
        if any(request.request_id in place for place in known):
            raise InvalidRequest(f"a request with the id {request.request_id} is being answered already")
        self._check_queue()
        self._received_s[request.request_id] = time.monotonic()
        if self._gaze is not None and visuals_of(request.prompt):
            self._gaze.add(request)
            return
        if isinstance(request.prompt, TokenPrompt):
            self._prepare(request, self._prompts.build(request.prompt, self.max_context))
            return
        # Templates run here and not beside, because their time can only be bounded in this thread.
        rendered = self._prompts.render(request.prompt)
        if is_long(rendered.text):
            self._encoding.add(
                request.request_id,
                lambda is_wanted: _Encoded(request, self._prompts.encode(rendered, self.max_context, is_wanted)),
            )
        else:
            self._prepare(request, self._prompts.encode(rendered))

    def _new_gaze(self, loaded: LoadedModel, sight: Sight) -> Gaze:
        return Gaze(
            sight,
            cast(SeeingTokenizer, loaded.tokenizer),
            self._prompts,
            VisualLimits.of(self._options),
            lambda request, num_tokens: self._terms.max_output_tokens(request.sampling, num_tokens),
            max_context=self.max_context,
        )

    def _await_ready(self) -> None:
        """With nothing else to do, wait a moment for a prompt or a grammar."""
        futures: list[Future[Any]] = [*self._encoding.futures]
        futures += [compiling.constraint for compiling in self._compiling.values()]
        if futures and not self._engine.has_work:
            wait(futures, timeout=_READY_WAIT_S, return_when=FIRST_COMPLETED)

    def _take_encoded(self) -> list[FromWorker]:
        """Go on with the requests whose texts are encoded; the answers to those that asked for no more."""
        answers: list[FromWorker] = []
        for request_id, encoded in self._encoding.take():
            if not isinstance(encoded, _Encoded):
                self._received_s.pop(request_id, None)
                answers.append(encoded)
                continue
            try:
                self._prepare(encoded.request, encoded.built)
            except Exception as error:
                self._received_s.pop(request_id, None)
                answers.append(unprepared(request_id, error))
        return answers

    def _take_seen(self) -> list[RequestFailed]:
        """Go on with the requests that show images or videos.

        Prompts come first, for a few steps: cut into chunks, they would wait for an image at each of them.
        """
        failures: list[RequestFailed] = []
        if not self._gaze:
            return failures
        if self._engine.is_prefilling and self._num_put_off < _MOST_PUT_OFF:
            self._num_put_off += 1
            return failures
        self._num_put_off = 0
        for seen in self._gaze.step(is_idle=not self._engine.has_work):
            if isinstance(seen, RequestFailed):
                self._received_s.pop(seen.request_id, None)
                failures.append(seen)
                continue
            try:
                self._prepare(seen.request, seen.built, seen)
            except MlxManagerError as error:
                self._received_s.pop(seen.request.request_id, None)
                failures.append(RequestFailed(seen.request.request_id, error.as_info()))
        return failures

    def _prepare(self, request: GenerationRequest, built: BuiltPrompt, seen: SeenRequest | None = None) -> None:
        """Check the rest of a request whose prompt is built, and start it."""
        prompt = built.token_ids
        if seen is None:
            self._prompts.check_vocabulary(built)
        reading, grammar = self._reading(request, built)
        max_output_tokens = self._terms.max_output_tokens(request.sampling, len(prompt))
        self._terms.check_bias(request.sampling)
        received_s = self._received_s.pop(request.request_id, time.monotonic())
        tokenized = EngineRequest(
            request_id=request.request_id,
            prompt_token_ids=prompt,
            params=self._terms.params(request),
            max_output_tokens=max_output_tokens,
            eos_token_ids=frozenset() if request.sampling.ignore_eos else self._eos_token_ids,
            priority=request.priority,
            arrival_s=received_s,
            inputs=None if seen is None else seen.inputs,
            prefix_ids=prefix_ids(request, prompt, None if seen is None else seen.prefix_ids),
            is_forcible=reading.thinking_budget is not None,
        )
        answer = AnswerBuilder(
            request,
            prompt,
            self._vocabulary,
            reading,
            self._echo_text(request, prompt),
            is_cut_to_fit=max_output_tokens < (request.sampling.max_tokens or 0),
        )
        answer.received_s = received_s
        if grammar is None:
            self._start(tokenized, answer)
        else:
            form = request.sampling.grammar
            is_of_parts = isinstance(request.prompt, ChatPrompt) and reading.are_calls_enforced
            parts = enforced_schemas(cast(ChatPrompt, request.prompt), form) if is_of_parts else ()
            constraint = self._grammars.start(grammar, parts)
            self._compiling[request.request_id] = _Compiling(tokenized, answer, constraint)

    def _reading(self, request: GenerationRequest, built: BuiltPrompt) -> tuple[Reading, Grammar | None]:
        """How the answer is to be read, and the grammar it has to match. Raw completions are text and nothing else."""
        if not isinstance(request.prompt, ChatPrompt):
            return Reading(), request.sampling.grammar
        spelled_ids = frozenset(self._calls.special_ids.values())
        prompt, form = request.prompt, request.sampling.grammar
        if not self._calls.may_call(prompt, form):
            # a form that the client asked for holds from the first token on, so that there is no room to think
            return Reading(self._calls.style, spelled_ids=spelled_ids), form
        starts_in_reasoning = self._calls.style.starts_in_reasoning(built.text)
        grammar = self._calls.grammar(prompt, form, starts_in_reasoning=starts_in_reasoning)
        reading = Reading(
            self._calls.style,
            callable_tools(prompt),
            starts_in_reasoning,
            spelled_ids,
            self._thinking_budget(prompt),
            are_calls_enforced=grammar is not form,
            is_call_required=prompt.tool_choice.mode is ToolChoiceMode.REQUIRED,
            is_over_after_call=not prompt.parallel_tool_calls,
        )
        return reading, grammar

    def _thinking_budget(self, prompt: ChatPrompt) -> ThinkingBudget | None:
        """The bound of thinking; None where there is none, or the model's thinking cannot be ended."""
        num_tokens, end = prompt.thinking.budget_tokens, self._calls.style.reasoning_end
        if num_tokens is None or not end:
            return None
        return ThinkingBudget(num_tokens, self._tokenizing.encode(end))

    def _finish(self, answer: AnswerBuilder, request_id: str) -> Finished:
        return answer.finish(self._engine.usage(request_id), self._engine.timeline(request_id))

    def _start(self, request: EngineRequest, answer: AnswerBuilder, constraint: Constraint | None = None) -> None:
        self._engine.add(request, constraint)
        self._answers[request.request_id] = answer

    def _begin(self, request_id: str, report: PrefixReport) -> None:
        """Work on a request begins: say so now, because its first token may be a long prefill away."""
        answer = self._answers[request_id]
        if report.reason is PrefixReason.TEXT:
            num_tokens = self._prompts.num_template_tokens(answer.request.prompt, answer.prompt_token_ids)
            report = place(report, num_tokens)
        events = tuple(answer.begin(report, self._engine.timeline(request_id)))
        self.publish(StepDone((RequestEvents(request_id, events),), self.stats()))

    def _start_compiled(self) -> list[RequestFailed]:
        """Start the requests whose grammars are ready."""
        failures = []
        for request_id, compiling in list(self._compiling.items()):
            if not compiling.constraint.done():
                continue
            del self._compiling[request_id]
            error = compiling.constraint.exception()
            if error is None:
                self._start(compiling.request, compiling.answer, compiling.constraint.result())
                continue
            if not isinstance(error, MlxManagerError):
                error = GenerationFailed(f"the grammar could not be compiled: {type(error).__name__}: {error}")
            failures.append(RequestFailed(request_id, error.as_info()))
        return failures

    def _check_queue(self) -> None:
        num_waiting = self._engine.num_waiting_requests + self._num_preparing
        if num_waiting >= self._options.max_queued_requests:
            raise QueueFull(
                f"{num_waiting} requests wait already, as many as the queue holds; try again later",
                retry_after_s=self._drain_time_s(num_waiting),
            )

    @property
    def _num_preparing(self) -> int:
        """Requests that the engine does not have yet."""
        return len(self._encoding) + len(self._compiling) + len(self._gaze or ())

    def _drain_time_s(self, num_waiting: int) -> float:
        """Seconds until a place in the queue is free, from the rate at which requests finished lately."""
        now_s = time.monotonic()
        recent = [finish_s for finish_s in self._finish_times_s if now_s - finish_s <= _DRAIN_WINDOW_S]
        if len(recent) < 2:
            return 10.0
        per_request_s = (now_s - recent[0]) / len(recent)
        return max(1.0, per_request_s * max(1, num_waiting - self._options.max_queued_requests + 1))

    def _echo_text(self, request: GenerationRequest, prompt: tuple[int, ...]) -> str:
        if not request.echo:
            return ""
        if isinstance(request.prompt, TextPrompt):
            return request.prompt.text
        decoder = self._vocabulary.decoder()
        return "".join(decoder.add(token_id) for token_id in prompt) + decoder.flush()


def _drop(_: FromWorker) -> None:
    """Before anybody listens nothing is admitted."""


@dataclass(frozen=True)
class _Encoded:
    """A request whose prompt has been encoded; nothing else about it has been checked."""

    request: GenerationRequest
    built: BuiltPrompt


@dataclass(frozen=True)
class _Compiling:
    """A request whose grammar is being compiled; everything else about it has been checked."""

    request: EngineRequest
    answer: AnswerBuilder
    constraint: Future[Constraint]
