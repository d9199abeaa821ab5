"""The other direction: `ir.GenerationRequest` to a request's body, and a provider's stream to `ir` events.

The wire schemas are the server's own (`answers`), so that what one side says the other understands.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from mlx_manager.errors import (
    GenerationFailed,
    InvalidRequest,
    MlxManagerError,
    PayloadTooLarge,
    QueueFull,
    Unavailable,
    UnsupportedParameter,
)
from mlx_manager.ir import (
    ChatPrompt,
    ChoiceEnd,
    Content,
    Event,
    Finished,
    FinishReason,
    GenerationRequest,
    GrammarKind,
    ImageContent,
    Message,
    PartDelta,
    PartEnd,
    PartKind,
    PartStart,
    PromptReady,
    Role,
    TextContent,
    Tool,
    ToolChoiceMode,
    Usage,
)
from mlx_manager.protocols.anthropic.answers import (
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    DeltaObject,
    ErrorBody,
    InputJsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    Ping,
    SignatureDelta,
    StreamObject,
    TextDelta,
    TextObject,
    ThinkingDelta,
    ThinkingObject,
    ToolUseObject,
    UsageObject,
)
from mlx_manager.protocols.anthropic.signature import is_ours, sign

DEFAULT_MAX_TOKENS = 4096
"""The dialect wants a number where a request has none."""
_decoder: msgspec.json.Decoder[StreamObject] = msgspec.json.Decoder(StreamObject)


def render_request(request: GenerationRequest, *, stream: bool = True) -> dict[str, Any]:
    """The body of POST /v1/messages. Raises `UnsupportedParameter` for what the dialect cannot say."""
    prompt, sampling = request.prompt, request.sampling
    if not isinstance(prompt, ChatPrompt):
        raise UnsupportedParameter("Anthropic's dialect has conversations only, no raw prompts.", param="prompt")
    num_leading = next((i for i, m in enumerate(prompt.messages) if m.role is not Role.SYSTEM), len(prompt.messages))
    body: dict[str, Any] = {
        "model": request.model,
        "max_tokens": sampling.max_tokens or DEFAULT_MAX_TOKENS,
        "messages": _render_turns(prompt.messages[num_leading:]),
        "stream": stream,
        "thinking": _render_thinking(prompt),
    }
    system = [block for message in prompt.messages[:num_leading] for block in _render_contents(message.content)]
    optional = {
        "system": system,
        "tools": [_render_tool(tool) for tool in prompt.tools],
        "tool_choice": _render_tool_choice(prompt),
        "stop_sequences": list(sampling.stop),
        "output_config": _render_output_config(request),
    }
    sampled = {name: getattr(sampling, name) for name in ("temperature", "top_p", "top_k")}
    body |= {name: value for name, value in optional.items() if value}
    return body | {name: value for name, value in sampled.items() if value is not None}


class StreamDecoder:
    """Turns the `data` of one stream's events into `ir` events, in the order that `ir.events` draws."""

    def __init__(self) -> None:
        self._kind = PartKind.TEXT
        self._signature = ""
        self._has_arguments = False
        self._end = ChoiceEnd(0, FinishReason.STOP)
        self._usage = UsageObject()

    def decode(self, data: bytes) -> list[Event]:
        """The events that one event of the stream adds. An event of an unknown type adds none.

        Raises the error that the stream says, and `GenerationFailed` for what is no event at all.
        """
        try:
            event = _decoder.decode(data)
        except msgspec.ValidationError:
            return []
        except msgspec.DecodeError as error:
            raise GenerationFailed(f"The provider sent what is no event: {error}.") from None
        return list(self._read(event))

    def _read(self, event: StreamObject) -> Iterator[Event]:
        match event:
            case MessageStart(message):
                self._usage = message.usage
                yield PromptReady(_num_prompt_tokens(self._usage))
            case ContentBlockStart(content_block=block):
                yield from self._begin(block)
            case ContentBlockDelta(delta=delta):
                yield from self._more(delta)
            case ContentBlockStop():
                if self._kind is PartKind.TOOL_CALL and not self._has_arguments:
                    yield PartDelta(0, "{}")
                yield PartEnd(0, signature=self._signature)
            case MessageDelta(delta=delta, usage=usage):
                self._end = _end_of(delta.stop_reason, delta.stop_sequence)
                self._usage = _newer(self._usage, usage)
            case MessageStop():
                yield self._end
                yield Finished(_usage_of(self._usage))
            case ErrorBody(error=error):
                raise error_of(error.type, error.message)
            case Ping():
                pass

    def _begin(self, block: TextObject | ThinkingObject | ToolUseObject) -> Iterator[Event]:
        self._signature, self._has_arguments = "", False
        match block:
            case ToolUseObject(id=call_id, name=name, input=given):
                self._kind = PartKind.TOOL_CALL
                yield PartStart(0, self._kind, call_id, name)
                text = json.dumps(given, ensure_ascii=False) if isinstance(given, dict) and given else ""
            case ThinkingObject(thinking=text):
                self._kind = PartKind.REASONING
                yield PartStart(0, self._kind)
            case TextObject(text=text):
                self._kind = PartKind.TEXT
                yield PartStart(0)
        if text:
            self._has_arguments = True
            yield PartDelta(0, text)

    def _more(self, delta: DeltaObject) -> Iterator[Event]:
        match delta:
            case SignatureDelta(signature):
                self._signature = "" if is_ours(signature) else signature
            case InputJsonDelta(text) | TextDelta(text) | ThinkingDelta(text):
                if text:
                    self._has_arguments = True
                    yield PartDelta(0, text)


def error_of(kind: str, message: str) -> MlxManagerError:
    """The error of ours that a provider's is, by its `type`."""
    match kind:
        case "overloaded_error" | "rate_limit_error":
            return QueueFull(message)
        case "invalid_request_error" | "not_found_error":
            return InvalidRequest(message)
        case "request_too_large":
            return PayloadTooLarge(message)
        case _:
            return Unavailable(message)


def _render_turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Results of tools are blocks of the user's turn, before what the user says."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "user" if message.role is Role.TOOL else message.role.value
        blocks = [_render_result(message)] if message.role is Role.TOOL else _render_message(message)
        is_behind_results = turns and turns[-1]["role"] == "user" and _ends_with_result(turns[-1]["content"])
        if role == "user" and is_behind_results:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    return turns


def _ends_with_result(blocks: Sequence[dict[str, Any]]) -> bool:
    return bool(blocks) and blocks[-1]["type"] == "tool_result"


def _render_message(message: Message) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if message.reasoning or message.reasoning_signature:
        signature = message.reasoning_signature or sign(message.reasoning)
        blocks.append({"type": "thinking", "thinking": message.reasoning, "signature": signature})
    blocks += _render_contents(message.content)
    for call in message.tool_calls:
        given = json.loads(call.arguments)
        blocks.append({"type": "tool_use", "id": call.call_id, "name": call.name, "input": given})
    return blocks


def _render_result(message: Message) -> dict[str, Any]:
    block: dict[str, Any] = {
        "type": "tool_result",
        "tool_use_id": message.tool_call_id,
        "content": _render_contents(message.content),
    }
    return block | ({"is_error": True} if message.is_error else {})


def _render_contents(content: Sequence[Content]) -> list[dict[str, Any]]:
    return [_render_content(piece) for piece in content]


def _render_content(piece: Content) -> dict[str, Any]:
    match piece:
        case TextContent(text):
            return {"type": "text", "text": text}
        case ImageContent(data=b"", url=url):
            return {"type": "image", "source": {"type": "url", "url": url}}
        case ImageContent():
            data = base64.b64encode(piece.data).decode()
            return {"type": "image", "source": {"type": "base64", "media_type": piece.media_type, "data": data}}
        case _:
            raise UnsupportedParameter("Anthropic's dialect has no place for this content.", param="messages")


def _render_tool(tool: Tool) -> dict[str, Any]:
    rendered: dict[str, Any] = {"name": tool.name, "input_schema": json.loads(tool.parameters)}
    if tool.description:
        rendered["description"] = tool.description
    return rendered | ({"strict": True} if tool.strict else {})


def _render_tool_choice(prompt: ChatPrompt) -> dict[str, Any]:
    choice = prompt.tool_choice
    rendered: dict[str, Any] = {"type": "auto"}
    match choice.mode:
        case ToolChoiceMode.NONE:
            rendered = {"type": "none"}
        case ToolChoiceMode.REQUIRED if len(choice.names) == 1:
            rendered = {"type": "tool", "name": choice.names[0]}
        case ToolChoiceMode.REQUIRED if not choice.names:
            rendered = {"type": "any"}
        case _ if choice.names:
            raise UnsupportedParameter(
                "Anthropic's dialect allows one tool by its name, or all: leave the others out.", param="tool_choice"
            )
    if not prompt.parallel_tool_calls:
        rendered["disable_parallel_tool_use"] = True
    return {} if rendered == {"type": "auto"} else rendered


def _render_thinking(prompt: ChatPrompt) -> dict[str, Any]:
    thinking = prompt.thinking
    if thinking.is_enabled is None:
        return {"type": "adaptive"}
    if not thinking.is_enabled:
        return {"type": "disabled"}
    budget = {} if thinking.budget_tokens is None else {"budget_tokens": thinking.budget_tokens}
    return {"type": "enabled"} | budget


def _render_output_config(request: GenerationRequest) -> dict[str, Any]:
    assert isinstance(request.prompt, ChatPrompt)
    config: dict[str, Any] = {}
    if request.prompt.thinking.effort is not None:
        config["effort"] = request.prompt.thinking.effort
    grammar = request.sampling.grammar
    if grammar is not None:
        if grammar.kind is not GrammarKind.JSON_SCHEMA:
            raise UnsupportedParameter(
                f"{grammar.param} cannot be said in Anthropic's dialect: send a JSON schema.", param=grammar.param
            )
        config["format"] = {"type": "json_schema", "schema": json.loads(grammar.text)}
    return config


def _end_of(reason: str | None, stop_sequence: str | None) -> ChoiceEnd:
    match reason:
        case "tool_use":
            return ChoiceEnd(0, FinishReason.TOOL_CALLS)
        case "max_tokens":
            return ChoiceEnd(0, FinishReason.LENGTH)
        case "model_context_window_exceeded":
            return ChoiceEnd(0, FinishReason.LENGTH, is_context_full=True)
        case _:
            return ChoiceEnd(0, FinishReason.STOP, stop_sequence)


def _newer(before: UsageObject, now: UsageObject) -> UsageObject:
    """Counts of a later event are totals; those that it leaves out stand."""
    said = {name: value for name in now.__struct_fields__ if (value := getattr(now, name)) is not None}
    return msgspec.structs.replace(before, **said)


def _num_prompt_tokens(usage: UsageObject) -> int:
    parts = (usage.input_tokens, usage.cache_creation_input_tokens, usage.cache_read_input_tokens)
    return sum(part or 0 for part in parts)


def _usage_of(usage: UsageObject) -> Usage:
    return Usage(
        num_prompt_tokens=_num_prompt_tokens(usage),
        num_cached_tokens=usage.cache_read_input_tokens or 0,
        num_completion_tokens=usage.output_tokens or 0,
        num_reasoning_tokens=usage.output_tokens_details.thinking_tokens if usage.output_tokens_details else 0,
    )
