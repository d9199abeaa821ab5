"""The stream of somebody who speaks Anthropic's Messages, as ir events. The other way round: `stream`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from mlx_manager.errors import ProviderBusy, ProviderFailed
from mlx_manager.ir import (
    ChoiceEnd,
    Event,
    Finished,
    FinishReason,
    PartDelta,
    PartEnd,
    PartKind,
    PartStart,
    PromptReady,
    Usage,
)

_REASONS = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "refusal": FinishReason.STOP,
    "pause_turn": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
}
_KINDS = {"text": PartKind.TEXT, "thinking": PartKind.REASONING, "tool_use": PartKind.TOOL_CALL}
_BUSY = ("overloaded_error", "rate_limit_error")


class MessageDecoder:
    """Decodes one answer. Raises `ProviderFailed` for what is not the dialect."""

    def __init__(self) -> None:
        self._kind: PartKind | None = None
        """Of the open block; None outside of blocks, and in one of a kind that has no part."""
        self._signature = ""
        self._num_prompt_tokens = 0
        self._num_cached_tokens = 0
        self._num_completion_tokens = 0
        self._end: ChoiceEnd | None = None
        self.is_done = False
        """Whether the provider said that nothing follows."""

    def decode(self, data: bytes) -> Iterator[Event]:
        """The events that one message of the stream adds."""
        try:
            message = msgspec.json.decode(data)
            yield from self._decode(message)
        except msgspec.DecodeError as error:
            raise ProviderFailed(f"The provider sent what is no JSON ({error}).") from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProviderFailed(f"The provider sent a message in another form than Anthropic's ({error!r}).") from None

    def end(self) -> Iterator[Event]:
        """The last events. Raises `ProviderFailed` where the answer is not complete."""
        if not self.is_done or self._end is None:
            raise ProviderFailed("The provider's stream broke off before the end of the answer.")
        yield self._end
        yield Finished(
            Usage(
                num_prompt_tokens=self._num_prompt_tokens,
                num_cached_tokens=self._num_cached_tokens,
                num_completion_tokens=self._num_completion_tokens,
            )
        )

    def _decode(self, message: dict[str, Any]) -> Iterator[Event]:
        match message["type"]:
            case "message_start":
                self._see_usage(message["message"].get("usage") or {})
                yield PromptReady(self._num_prompt_tokens)
            case "content_block_start":
                yield from self._begin(message["content_block"])
            case "content_block_delta":
                yield from self._more(message["delta"])
            case "content_block_stop":
                if self._kind is not None:
                    yield PartEnd(0, signature=self._signature)
                self._kind, self._signature = None, ""
            case "message_delta":
                self._see_usage(message.get("usage") or {})
                delta = message["delta"]
                if delta.get("stop_reason") is not None:
                    reason = _REASONS.get(delta["stop_reason"], FinishReason.STOP)
                    self._end = ChoiceEnd(0, reason, stop_sequence=delta.get("stop_sequence"))
            case "message_stop":
                self.is_done = True
            case "error":
                error = message["error"]
                failure = ProviderBusy if error.get("type") in _BUSY else ProviderFailed
                raise failure(f"The provider broke off: {' '.join(str(error.get('message')).split())[:300]}")
            case _:
                # pings, and what the dialect may add: clients are asked to pass over it
                pass

    def _begin(self, block: dict[str, Any]) -> Iterator[Event]:
        self._kind = _KINDS.get(block["type"])
        match self._kind:
            case PartKind.TOOL_CALL:
                yield PartStart(0, PartKind.TOOL_CALL, str(block["id"]), str(block["name"]))
            case None:
                pass
            case kind:
                yield PartStart(0, kind)
                if first := block.get("text") or block.get("thinking"):
                    yield PartDelta(0, first)

    def _more(self, delta: dict[str, Any]) -> Iterator[Event]:
        if self._kind is None:
            return
        match delta["type"]:
            case "text_delta":
                yield PartDelta(0, delta["text"])
            case "thinking_delta":
                yield PartDelta(0, delta["thinking"])
            case "input_json_delta":
                yield PartDelta(0, delta["partial_json"])
            case "signature_delta":
                self._signature += delta["signature"]
            case _:
                pass

    def _see_usage(self, usage: dict[str, Any]) -> None:
        """Prompt tokens count in three parts: new, written to the provider's cache, and read from it."""
        if usage.get("input_tokens") is not None:
            read = int(usage.get("cache_read_input_tokens") or 0)
            written = int(usage.get("cache_creation_input_tokens") or 0)
            self._num_cached_tokens = read
            self._num_prompt_tokens = int(usage["input_tokens"]) + read + written
        if usage.get("output_tokens") is not None:
            self._num_completion_tokens = int(usage["output_tokens"])
