"""Text completions: events to chunks, and the folded answer to one body."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mlx_manager.ir import Answer, ChoiceEnd, Event, Finished, PartDelta, TokenLogprob
from mlx_manager.protocols.openai.answers import Body, CompletionChoice, CompletionLogprobs
from mlx_manager.protocols.openai.envelope import Envelope, finite, frame, render_usage

_OBJECT = "text_completion"


class CompletionEncoder:
    """Encodes one streamed completion. Parts have no place in this dialect: their text is sent as one."""

    def __init__(self, envelope: Envelope, *, include_usage: bool) -> None:
        self._envelope = envelope
        self._include_usage = include_usage
        self._no_usage: msgspec.UnsetType | None = None if include_usage else msgspec.UNSET
        self._num_chars: dict[int, int] = {}
        """By choice, how many characters its tokens with log-probabilities had so far."""

    def encode(self, event: Event) -> bytes:
        """See `Encoder.encode`."""
        match event:
            case PartDelta(choice, text, logprobs):
                if not text and not logprobs:
                    return b""
                offset = self._num_chars.get(choice, 0)
                if logprobs:
                    self._num_chars[choice] = offset + sum(len(entry.token) for entry in logprobs)
                return self._chunk(
                    CompletionChoice(index=choice, text=text, logprobs=_render_logprobs(logprobs, offset))
                )
            case ChoiceEnd(choice, reason):
                return self._chunk(CompletionChoice(index=choice, text="", finish_reason=reason.value))
            case Finished(usage):
                return self._envelope.last_frames(_OBJECT, usage if self._include_usage else None)
            case _:
                return b""

    def _chunk(self, choice: CompletionChoice) -> bytes:
        return frame(self._envelope.body(_OBJECT, [choice], self._no_usage))


def render_completion(answer: Answer, envelope: Envelope) -> Body:
    """The whole answer as one body."""
    choices = [
        CompletionChoice(
            index=index,
            text="".join(part.text for part in choice.parts),
            logprobs=_render_logprobs(choice.logprobs, 0),
            finish_reason=choice.finish_reason.value,
        )
        for index, choice in enumerate(answer.choices)
    ]
    return envelope.body(_OBJECT, choices, render_usage(answer.usage))


def _render_logprobs(logprobs: Sequence[TokenLogprob], offset: int) -> CompletionLogprobs | None:
    if not logprobs:
        return None
    offsets = []
    for entry in logprobs:
        offsets.append(offset)
        offset += len(entry.token)
    has_top = any(entry.top for entry in logprobs)
    return CompletionLogprobs(
        tokens=[entry.token for entry in logprobs],
        token_logprobs=[finite(entry.logprob) for entry in logprobs],
        top_logprobs=[_render_top(entry) for entry in logprobs] if has_top else None,
        text_offset=offsets,
    )


def _render_top(entry: TokenLogprob) -> dict[str, float]:
    """The alternatives and, as the dialect has it, always the chosen token: at most one more than was asked for."""
    return {other.token: finite(other.logprob) for other in entry.top} | {entry.token: finite(entry.logprob)}
