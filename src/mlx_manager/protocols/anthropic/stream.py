"""The events of an answer as the events of a stream, in the order that the dialect wants."""

from __future__ import annotations

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
from mlx_manager.protocols.anthropic.answers import (
    BlockObject,
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    DeltaObject,
    InputJsonDelta,
    MessageDelta,
    MessageObject,
    MessageStart,
    MessageStop,
    SignatureDelta,
    StopObject,
    TextDelta,
    TextObject,
    ThinkingDelta,
    ThinkingObject,
    ToolUseObject,
    frame,
)
from mlx_manager.protocols.anthropic.message import AnswerForm, render_first_usage, render_usage, stop_reason
from mlx_manager.protocols.anthropic.signature import sign


class MessageEncoder:
    """Encodes one streamed answer.

    Order: message_start, then for each block content_block_start, its deltas and content_block_stop, then message_delta
    and message_stop. A call whose arguments may still turn out to be none is held back until it is complete.
    """

    def __init__(self, form: AnswerForm) -> None:
        self._form = form
        self._has_started = False
        self._kind = PartKind.TEXT
        """Of the open part."""
        self._index = 0
        """Of the open block, or the next one."""
        self._thinking: list[str] = []
        self._held: list[bytes] = []
        """Frames of the open call."""
        self._end = ChoiceEnd(0, FinishReason.STOP)

    def encode(self, event: Event) -> bytes:
        """The frames that `event` adds, each complete; often one, sometimes none."""
        match event:
            case PartDelta(text=text):
                return self._more(text) if text else b""
            case PromptReady():
                return self._start(event)
            case PartStart():
                return self._start(PromptReady(0)) + self._begin(event)
            case PartEnd():
                return self._close(event)
            case ChoiceEnd():
                self._end = event
                return b""
            case Finished(usage):
                return self._start(PromptReady(usage.num_prompt_tokens)) + self._finish(usage)

    def _start(self, prompt: PromptReady) -> bytes:
        if self._has_started:
            return b""
        self._has_started = True
        usage = render_first_usage(prompt, self._form)
        return frame(MessageStart(MessageObject(id=self._form.id, model=self._form.model, content=[], usage=usage)))

    def _begin(self, start: PartStart) -> bytes:
        self._kind = start.kind
        self._thinking = []
        block: BlockObject
        match start.kind:
            case PartKind.TOOL_CALL:
                block = ToolUseObject(id=start.call_id or "", name=start.tool_name or "")
            case PartKind.REASONING:
                block = ThinkingObject()
            case PartKind.TEXT:
                block = TextObject()
        return self._out(frame(ContentBlockStart(index=self._index, content_block=block)))

    def _more(self, text: str) -> bytes:
        match self._kind:
            case PartKind.TOOL_CALL:
                return self._delta(InputJsonDelta(text))
            case PartKind.REASONING:
                self._thinking.append(text)
                return b"" if self._form.omits_thinking else self._delta(ThinkingDelta(text))
            case PartKind.TEXT:
                return self._delta(TextDelta(text))

    def _close(self, end: PartEnd) -> bytes:
        if end.is_withdrawn and self._holds:
            self._held = []
            return b""
        sealed = b""
        if self._kind is PartKind.REASONING:
            sealed = self._delta(SignatureDelta(end.signature or sign("".join(self._thinking))))
        held, self._held = b"".join(self._held), []
        stop = frame(ContentBlockStop(self._index))
        self._index += 1
        return held + sealed + stop

    def _finish(self, usage: Usage) -> bytes:
        stop = StopObject(stop_reason=stop_reason(self._end), stop_sequence=self._end.stop_sequence)
        delta = MessageDelta(delta=stop, usage=render_usage(usage, self._form))
        return frame(delta) + frame(MessageStop())

    @property
    def _holds(self) -> bool:
        return self._kind is PartKind.TOOL_CALL and not self._form.streams_arguments

    def _delta(self, delta: DeltaObject) -> bytes:
        return self._out(frame(ContentBlockDelta(index=self._index, delta=delta)))

    def _out(self, sent: bytes) -> bytes:
        if not self._holds:
            return sent
        self._held.append(sent)
        return b""
