"""One choice of an answer: its tokens in, the events of its parts out."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Protocol

from msgspec.structs import replace

from mlx_manager.engine.batch import Chosen
from mlx_manager.engine.requests import TokenEvent
from mlx_manager.ir import (
    ChoiceEnd,
    Event,
    FinishReason,
    PartDelta,
    PartEnd,
    PartKind,
    PartStart,
    Sampling,
    TokenLogprob,
    Tool,
    TopLogprob,
)
from mlx_manager.models.tokens import Vocabulary
from mlx_manager.parsing import AnswerParser, AnswerStyle, StopMatcher


class TextReader(Protocol):
    """Tells what the text of a choice means."""

    def feed(self, text: str) -> list[Event]:
        """Take more text: the part starts, deltas and ends that are certain now."""
        ...

    def finish(self, *, is_cut: bool = False) -> list[Event]:
        """The text has ended, or was cut off by its length: what was held back, and the end of the open part."""
        ...


@dataclass(frozen=True)
class ThinkingBudget:
    """How many tokens may be spent on thinking, the tokens that end it among them."""

    num_tokens: int
    end_token_ids: tuple[int, ...]

    @property
    def num_free_tokens(self) -> int:
        """Tokens after which the end has to be forced: one more may be on its way when that becomes known."""
        return max(self.num_tokens - len(self.end_token_ids) - 1, 0)


@dataclass(frozen=True)
class Reading:
    """How the texts of an answer are to be read. Without a style they are text and nothing else."""

    style: AnswerStyle | None = None
    tools: tuple[Tool, ...] = ()
    starts_in_reasoning: bool = False
    spelled_ids: frozenset[int] = frozenset()
    """Special tokens whose text the style reads."""
    thinking_budget: ThinkingBudget | None = None
    are_calls_enforced: bool = False
    """Whether a grammar lets what begins as a call be nothing else."""
    is_call_required: bool = False
    is_over_after_call: bool = False
    """Whether the answer ends with its first call, because there may be no second."""

    def reader(self, choice: int) -> TextReader:
        """A reader of one choice."""
        if self.style is None:
            return _PlainReader(choice)
        return AnswerParser(
            choice,
            self.style,
            self.tools,
            starts_in_reasoning=self.starts_in_reasoning,
            are_calls_enforced=self.are_calls_enforced,
            is_call_required=self.is_call_required,
        )


class ChoiceBuilder:
    """Turns the tokens of one choice into events.

    Stop strings end the text of the answer; in thinking and in the arguments of calls they mean nothing. The
    log-probability of a token goes out with the part that was open when its text was read.
    """

    def __init__(self, index: int, sampling: Sampling, vocabulary: Vocabulary, reading: Reading) -> None:
        self.index = index
        self.is_ended = False
        self.num_tokens = 0
        self.num_reasoning_tokens = 0
        self._vocabulary = vocabulary
        self._decoder = vocabulary.decoder(reading.spelled_ids)
        self._reader = reading.reader(index)
        self._stop = StopMatcher(sampling.stop)
        self._wants_logprobs = sampling.logprobs
        self._unsent_logprobs: list[TokenLogprob] = []
        self._open: PartKind | None = None
        self._num_parts = 0
        self._num_calls = 0
        self._budget = reading.thinking_budget
        self._is_over_after_call = reading.is_over_after_call
        self._has_called = False
        self._forced: tuple[int, ...] | None = None
        self._is_cutting = False

    def echo(self, text: str) -> list[Event]:
        """Begin with the prompt's own text."""
        events = self._reader.feed(text)
        self._note(events)
        return events

    def add(self, event: TokenEvent) -> list[Event]:
        """The events that one more token brings. A stop string ends the choice; see `is_ended`."""
        was_open = self._open
        self.num_tokens += 1
        is_last = event.is_end_token or event.finish is not None
        text = "" if event.is_end_token else self._decoder.add(event.chosen.token_id)
        read = self._reader.feed(text + self._decoder.flush() if is_last else text)
        is_cut = event.finish is FinishReason.LENGTH and not event.is_end_token
        shown = self._until_stop(read + self._reader.finish(is_cut=is_cut) if is_last else read)
        if PartKind.REASONING in (was_open, self._open):
            self.num_reasoning_tokens += 1
        self._watch_budget()
        if self._stop.matched is not None:
            return self._with_logprobs(shown) + self._end(FinishReason.STOP, self._stop.matched)
        if self._wants_logprobs and not event.is_end_token:
            self._unsent_logprobs.append(self._logprob(event.chosen))
        shown = self._with_logprobs(shown)
        if self._has_called and self._is_over_after_call and not is_cut:
            return shown + self._end(FinishReason.STOP)
        if not is_last:
            return shown
        return shown + self._end(FinishReason.STOP if event.finish is None or event.is_end_token else event.finish)

    def take_forced(self) -> tuple[int, ...] | None:
        """Tokens that the engine has to force next, because the thinking has used up its budget.

        Empty: those that were to be forced are not needed any more. None: nothing is new.
        """
        forced, self._forced = self._forced, None
        return forced

    def _watch_budget(self) -> None:
        if self._budget is None:
            return
        is_thinking = self._open is PartKind.REASONING
        if is_thinking and not self._is_cutting and self.num_reasoning_tokens >= self._budget.num_free_tokens:
            self._is_cutting = True
            self._forced = self._budget.end_token_ids
        elif self._is_cutting and not is_thinking:
            # it has ended, by itself or by force
            self._forced = ()
            self._budget = None

    def _until_stop(self, events: list[Event]) -> list[Event]:
        """The events up to a stop string in their text; what may be the beginning of one is held back.

        Also not beyond the end of a call after which the answer is over.
        """
        shown: list[Event] = []
        for event in events:
            if isinstance(event, PartDelta) and self._open is PartKind.TEXT:
                text = self._stop.feed(event.text)
                if text:
                    shown.append(replace(event, text=text))
                if self._stop.matched is not None:
                    self._open = None
                    return [*shown, PartEnd(self.index)]
                continue
            if isinstance(event, PartEnd) and self._open is PartKind.TEXT and (held := self._stop.flush()):
                shown.append(PartDelta(self.index, held))
            if isinstance(event, PartEnd) and self._open is PartKind.TOOL_CALL and not event.is_withdrawn:
                self._has_called = True
            self._note([event])
            shown.append(_with_call_id(event))
            if self._has_called and self._is_over_after_call:
                break
        return shown

    def _note(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, PartStart):
                self._open = event.kind
                self._num_parts += 1
                self._num_calls += event.kind is PartKind.TOOL_CALL
            elif isinstance(event, PartEnd):
                self._open = None
                self._num_calls -= event.is_withdrawn

    def _with_logprobs(self, events: list[Event]) -> list[Event]:
        if not self._unsent_logprobs:
            return events
        deltas = [at for at, event in enumerate(events) if isinstance(event, PartDelta)]
        if deltas:
            delta = events[deltas[-1]]
            assert isinstance(delta, PartDelta)
            events[deltas[-1]] = replace(delta, logprobs=tuple(self._unsent_logprobs))
        else:
            ends = [at for at, event in enumerate(events) if isinstance(event, PartEnd)]
            if self._open is None and not ends:
                return events
            delta = PartDelta(self.index, "", tuple(self._unsent_logprobs))
            events.insert(len(events) if self._open is not None else ends[-1], delta)
        self._unsent_logprobs = []
        return events

    def _end(self, reason: FinishReason, stop_sequence: str | None = None) -> list[Event]:
        self.is_ended = True
        end = ChoiceEnd(self.index, reason, stop_sequence)
        if reason is FinishReason.STOP and stop_sequence is None and self._num_calls:
            end = replace(end, reason=FinishReason.TOOL_CALLS)
        unsent = tuple(self._unsent_logprobs)
        if self._num_parts and not unsent:
            return [end]
        more: list[Event] = [PartDelta(self.index, "", unsent)] if unsent else []
        return [PartStart(self.index), *more, PartEnd(self.index), end]

    def _logprob(self, chosen: Chosen) -> TokenLogprob:
        def spelled(token_id: int) -> tuple[str, bytes]:
            token_bytes = self._vocabulary.bytes_of(token_id)
            return token_bytes.decode("utf-8", "replace"), token_bytes

        top = tuple(TopLogprob(*spelled(token_id), logprob) for token_id, logprob in chosen.top)
        return TokenLogprob(*spelled(chosen.token_id), chosen.logprob or 0.0, top)


def _with_call_id(event: Event) -> Event:
    """A call by its id: most models give it none."""
    if isinstance(event, PartStart) and event.kind is PartKind.TOOL_CALL and event.call_id is None:
        return replace(event, call_id=f"call_{secrets.token_hex(12)}")
    return event


class _PlainReader:
    """Text and nothing else."""

    def __init__(self, choice: int) -> None:
        self._choice = choice
        self._is_open = False

    def feed(self, text: str) -> list[Event]:
        if not text:
            return []
        start: list[Event] = [] if self._is_open else [PartStart(self._choice)]
        self._is_open = True
        return [*start, PartDelta(self._choice, text)]

    def finish(self, *, is_cut: bool = False) -> list[Event]:
        return [PartEnd(self._choice)] if self._is_open else []
