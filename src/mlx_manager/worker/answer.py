"""One request inside a worker: from its tokens to the events of its answer."""

from __future__ import annotations

import time

from msgspec.structs import replace

from mlx_manager.engine.requests import RequestUsage, TokenEvent
from mlx_manager.engine.timeline import Timeline
from mlx_manager.ir import (
    ChoiceEnd,
    Event,
    Finished,
    FinishReason,
    GenerationRequest,
    PrefixReport,
    PromptReady,
    Usage,
)
from mlx_manager.models.tokens import Vocabulary
from mlx_manager.worker.choice import ChoiceBuilder, Reading


class AnswerBuilder:
    """Turns the engine's token events of one request into `ir` events, all choices of it.

    `is_cut_to_fit`: the answer may be shorter than was asked for, because the context has no more room.
    """

    def __init__(
        self,
        request: GenerationRequest,
        prompt_token_ids: tuple[int, ...],
        vocabulary: Vocabulary,
        reading: Reading,
        echo: str,
        *,
        is_cut_to_fit: bool = False,
    ) -> None:
        self.request = request
        self.prompt_token_ids = prompt_token_ids
        self.received_s = 0.0
        """When it reached the worker. Set by who makes this."""
        self._parse_s = 0.0
        self._echo = echo
        self._is_cut_to_fit = is_cut_to_fit
        self._choices = [
            ChoiceBuilder(index, request.sampling, vocabulary, reading) for index in range(request.num_choices)
        ]

    @property
    def is_finished(self) -> bool:
        """Whether every choice has ended."""
        return all(choice.is_ended for choice in self._choices)

    def begin(self, report: PrefixReport, timeline: Timeline) -> list[Event]:
        """The events before the first token."""
        so_far = timeline.timings_so_far(received_s=self.received_s)
        events: list[Event] = [PromptReady(len(self.prompt_token_ids), report, so_far)]
        if self._echo:
            for choice in self._choices:
                events += choice.echo(self._echo)
        return events

    def add(self, event: TokenEvent) -> list[Event]:
        """The events that one more token brings. After it `has_ended` says whether a stop string ended the choice.

        Of a step that brings several tokens, those behind the end of the choice are nobody's.
        """
        if self.has_ended(event.choice):
            return []
        started_s = time.monotonic()
        events = self._choices[event.choice].add(event)
        if self._is_cut_to_fit and events and isinstance(end := events[-1], ChoiceEnd):
            events[-1] = replace(end, is_context_full=end.reason is FinishReason.LENGTH)
        self._parse_s += time.monotonic() - started_s
        return events

    def take_forced(self, choice: int) -> tuple[int, ...] | None:
        """See `ChoiceBuilder.take_forced`."""
        return self._choices[choice].take_forced()

    def has_ended(self, choice: int) -> bool:
        """Whether this choice has ended."""
        return self._choices[choice].is_ended

    def finish(self, usage: RequestUsage, timeline: Timeline) -> Finished:
        """The last event."""
        return Finished(
            Usage(
                num_prompt_tokens=usage.num_prompt_tokens,
                num_cached_tokens=usage.num_cached_tokens,
                num_completion_tokens=sum(choice.num_tokens for choice in self._choices),
                num_reasoning_tokens=sum(choice.num_reasoning_tokens for choice in self._choices),
            ),
            timeline.timings(received_s=self.received_s, parse_s=self._parse_s),
        )
