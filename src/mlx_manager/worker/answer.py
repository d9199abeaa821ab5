"""One request inside a worker: from its tokens to the events of its answer."""

from __future__ import annotations

from mlx_manager.engine.batch import Chosen
from mlx_manager.engine.engine import RequestUsage, TokenEvent
from mlx_manager.ir import (
    ChoiceEnd,
    Event,
    Finished,
    FinishReason,
    GenerationRequest,
    PartDelta,
    PartEnd,
    PartStart,
    PrefixReport,
    PromptReady,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from mlx_manager.models.tokens import Vocabulary
from mlx_manager.parsing import StopMatcher


class AnswerBuilder:
    """Turns the engine's token events of one request into `ir` events, all choices of it."""

    def __init__(
        self, request: GenerationRequest, prompt_token_ids: tuple[int, ...], vocabulary: Vocabulary, echo: str
    ) -> None:
        self.request = request
        self.prompt_token_ids = prompt_token_ids
        self._echo = echo
        self._choices = [_Choice(index, request, vocabulary) for index in range(request.num_choices)]

    @property
    def is_finished(self) -> bool:
        """Whether every choice has ended."""
        return all(choice.is_ended for choice in self._choices)

    def begin(self, report: PrefixReport) -> list[Event]:
        """The events before the first token."""
        events: list[Event] = [PromptReady(len(self.prompt_token_ids), report)]
        if self._echo:
            for choice in self._choices:
                events += choice.begin_part()
                events.append(PartDelta(choice.index, self._echo))
        return events

    def add(self, event: TokenEvent) -> list[Event]:
        """The events that one more token brings. After it `has_ended` says whether a stop string ended the choice."""
        return self._choices[event.choice].add(event)

    def has_ended(self, choice: int) -> bool:
        """Whether this choice has ended."""
        return self._choices[choice].is_ended

    def finish(self, usage: RequestUsage) -> Finished:
        """The last event."""
        return Finished(
            Usage(
                num_prompt_tokens=usage.num_prompt_tokens,
                num_cached_tokens=usage.num_cached_tokens,
                num_completion_tokens=usage.num_output_tokens,
            )
        )


class _Choice:
    def __init__(self, index: int, request: GenerationRequest, vocabulary: Vocabulary) -> None:
        self.index = index
        self.is_ended = False
        self._vocabulary = vocabulary
        self._decoder = vocabulary.decoder()
        self._stop = StopMatcher(request.sampling.stop)
        self._is_part_open = False
        self._wants_logprobs = request.sampling.logprobs

    def begin_part(self) -> list[Event]:
        if self._is_part_open:
            return []
        self._is_part_open = True
        return [PartStart(self.index)]

    def add(self, event: TokenEvent) -> list[Event]:
        if event.is_end_token:
            shown = self._stop.feed(self._decoder.flush())
            return self._delta(shown + self._stop.flush(), ()) + self._end(FinishReason.STOP)
        shown = self._stop.feed(self._decoder.add(event.chosen.token_id))
        if self._stop.matched is None and event.finish is not None:
            shown += self._stop.feed(self._decoder.flush())
        if self._stop.matched is not None:
            return self._delta(shown, ()) + self._end(FinishReason.STOP, self._stop.matched)
        logprobs = (self._logprob(event.chosen),) if self._wants_logprobs else ()
        if event.finish is None:
            return self._delta(shown, logprobs)
        return self._delta(shown + self._stop.flush(), logprobs) + self._end(event.finish)

    def _delta(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> list[Event]:
        if not text and not logprobs:
            return []
        return [*self.begin_part(), PartDelta(self.index, text, logprobs)]

    def _end(self, reason: FinishReason, stop_sequence: str | None = None) -> list[Event]:
        self.is_ended = True
        return [*self.begin_part(), PartEnd(self.index), ChoiceEnd(self.index, reason, stop_sequence)]

    def _logprob(self, chosen: Chosen) -> TokenLogprob:
        def spelled(token_id: int) -> tuple[str, bytes]:
            token_bytes = self._vocabulary.bytes_of(token_id)
            return token_bytes.decode("utf-8", "replace"), token_bytes

        top = tuple(TopLogprob(*spelled(token_id), logprob) for token_id, logprob in chosen.top)
        return TokenLogprob(*spelled(chosen.token_id), chosen.logprob or 0.0, top)
