"""The stream of somebody who speaks OpenAI's dialect, as ir events. The other way round: `chat` and `completions`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from mlx_manager.errors import ProviderFailed
from mlx_manager.ir import (
    ChoiceEnd,
    Event,
    Finished,
    FinishReason,
    PartDelta,
    PartEnd,
    PartKind,
    PartStart,
    TokenLogprob,
    TopLogprob,
    Usage,
)

DONE = b"[DONE]"
_REASONS = {
    "stop": FinishReason.STOP,
    "content_filter": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
}
_CHARACTERS_PER_TOKEN = 4


@dataclass
class _OpenChoice:
    """What is known of one choice so far."""

    kind: PartKind | None = None
    """Of the open part."""
    call_index: int = -1
    """Of the open tool call; those before it are complete."""
    has_calls: bool = False
    has_ended: bool = False


class ChunkDecoder:
    """Decodes one answer. `num_prompt_tokens` is an estimate, for providers that send no usage.

    Raises `ProviderFailed` for what is not the dialect.
    """

    def __init__(self, *, num_choices: int, num_prompt_tokens: int) -> None:
        self._choices = [_OpenChoice() for _ in range(num_choices)]
        self._num_prompt_tokens = num_prompt_tokens
        self._num_characters = 0
        self._usage: Usage | None = None
        self._is_done = False

    def decode(self, data: bytes) -> Iterator[Event]:
        """The events that one message of the stream adds."""
        if data == DONE:
            self._is_done = True
            return
        try:
            chunk = msgspec.json.decode(data)
        except msgspec.DecodeError as error:
            raise ProviderFailed(f"The provider sent what is no JSON ({error}).") from None
        if not isinstance(chunk, dict):
            raise ProviderFailed("The provider sent a message that is no object.")
        if chunk.get("error"):
            raise ProviderFailed(f"The provider broke off: {_message_of(chunk['error'])}")
        try:
            if chunk.get("usage"):
                self._usage = _usage_of(chunk["usage"])
            for choice in chunk.get("choices") or ():
                yield from self._decode_choice(choice)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise ProviderFailed(f"The provider sent a message in another form than OpenAI's ({error!r}).") from None

    def end(self) -> Iterator[Event]:
        """The last events. Raises `ProviderFailed` where the answer is not complete."""
        if not all(choice.has_ended for choice in self._choices):
            raise ProviderFailed("The provider's stream broke off before the end of the answer.")
        yield Finished(self._usage or self._estimate())

    @property
    def is_done(self) -> bool:
        """Whether the provider said that nothing follows."""
        return self._is_done

    def _decode_choice(self, chunk: dict[str, Any]) -> Iterator[Event]:
        index = int(chunk.get("index", 0))
        choice = self._choices[index]
        if choice.has_ended:
            return
        delta: dict[str, Any] = chunk.get("delta") or {}
        logprobs = _logprobs_of(chunk.get("logprobs"))
        yield from self._more(index, PartKind.REASONING, delta.get("reasoning_content") or delta.get("reasoning"))
        text = delta.get("content") or delta.get("refusal") or chunk.get("text")
        yield from self._more(index, PartKind.TEXT, text, logprobs)
        for call in delta.get("tool_calls") or ():
            yield from self._more_of_call(index, call)
        reason = chunk.get("finish_reason")
        if reason is not None:
            choice.has_ended = True
            yield from self._close(index)
            ended = _REASONS.get(reason, FinishReason.STOP)
            yield ChoiceEnd(index, FinishReason.TOOL_CALLS if choice.has_calls and reason == "stop" else ended)

    def _more(
        self, index: int, kind: PartKind, text: str | None, logprobs: tuple[TokenLogprob, ...] = ()
    ) -> Iterator[Event]:
        if not text and not logprobs:
            return
        if self._choices[index].kind is not kind:
            yield from self._close(index)
            self._choices[index].kind = kind
            yield PartStart(index, kind)
        self._num_characters += len(text or "")
        yield PartDelta(index, text or "", logprobs)

    def _more_of_call(self, index: int, call: dict[str, Any]) -> Iterator[Event]:
        choice = self._choices[index]
        function = call.get("function") or {}
        call_index = int(call.get("index", choice.call_index + 1))
        if call_index < choice.call_index:
            raise ValueError("a tool call goes on after the next one began")
        if choice.kind is not PartKind.TOOL_CALL or call_index > choice.call_index:
            yield from self._close(index)
            choice.kind, choice.call_index, choice.has_calls = PartKind.TOOL_CALL, call_index, True
            name = function["name"]
            yield PartStart(index, PartKind.TOOL_CALL, str(call.get("id") or f"call_{index}_{call_index}"), str(name))
        arguments = function.get("arguments")
        if arguments:
            self._num_characters += len(arguments)
            yield PartDelta(index, arguments)

    def _close(self, index: int) -> Iterator[Event]:
        if self._choices[index].kind is not None:
            self._choices[index].kind = None
            yield PartEnd(index)

    def _estimate(self) -> Usage:
        return Usage(
            num_prompt_tokens=self._num_prompt_tokens,
            num_cached_tokens=0,
            num_completion_tokens=max(self._num_characters // _CHARACTERS_PER_TOKEN, 1),
        )


def _usage_of(usage: dict[str, Any]) -> Usage:
    return Usage(
        num_prompt_tokens=int(usage.get("prompt_tokens") or 0),
        num_cached_tokens=int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0),
        num_completion_tokens=int(usage.get("completion_tokens") or 0),
        num_reasoning_tokens=int((usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0),
    )


def _logprobs_of(logprobs: Any) -> tuple[TokenLogprob, ...]:
    if not isinstance(logprobs, dict):
        return ()
    return tuple(
        TokenLogprob(
            str(row["token"]),
            _bytes_of(row),
            float(row["logprob"]),
            tuple(
                TopLogprob(str(top["token"]), _bytes_of(top), float(top["logprob"]))
                for top in row.get("top_logprobs") or ()
            ),
        )
        for row in logprobs.get("content") or ()
    )


def _bytes_of(row: dict[str, Any]) -> bytes:
    given = row.get("bytes")
    return bytes(given) if given is not None else str(row["token"]).encode()


def _message_of(error: Any) -> str:
    said = error.get("message") if isinstance(error, dict) else error
    return " ".join(str(said).split())[:300]
