"""The folded answer as one body, and what its usage and its end are called in this dialect."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from mlx_manager.ir import Answer, Choice, ChoiceEnd, FinishReason, Part, PartKind, PromptReady, Usage
from mlx_manager.protocols.anthropic.answers import (
    BlockObject,
    MessageObject,
    OutputTokensDetails,
    TextObject,
    ThinkingObject,
    ToolUseObject,
    UsageObject,
)
from mlx_manager.protocols.anthropic.signature import sign

_CACHE_UNIT = 32
"""Tokens of a block of the prefix cache: a prompt's last ones, that fill none, are not cached."""


@dataclass(frozen=True)
class AnswerForm:
    """What the request says about the form of its answer."""

    id: str
    model: str
    omits_thinking: bool = False
    """Of what is thought only the signature is sent."""
    has_cache_marks: bool = False
    """Whether the request marks what it wants cached: then its usage tells what was newly cached."""
    streams_arguments: bool = False
    """Whether the arguments of a call are sent before it is certain that it is one."""
    is_warm_up: bool = False
    """Whether nothing is to be generated: the request only fills the prefix cache."""


def render_message(answer: Answer, form: AnswerForm) -> MessageObject:
    """The whole answer as one body."""
    choice = answer.choices[0]
    if form.is_warm_up:
        choice = Choice(finish_reason=FinishReason.LENGTH)
    end = ChoiceEnd(0, choice.finish_reason, choice.stop_sequence, choice.is_context_full)
    return MessageObject(
        id=form.id,
        model=form.model,
        content=[_render_part(part, form) for part in choice.parts],
        stop_reason=stop_reason(end),
        stop_sequence=choice.stop_sequence,
        usage=render_usage(answer.usage, form),
    )


def stop_reason(end: ChoiceEnd) -> str:
    """Why an answer ended, in the dialect's words."""
    match end.reason:
        case FinishReason.TOOL_CALLS:
            return "tool_use"
        case FinishReason.LENGTH:
            return "model_context_window_exceeded" if end.is_context_full else "max_tokens"
        case FinishReason.CONTENT_FILTER:
            return "refusal"
        case FinishReason.STOP:
            return "end_turn" if end.stop_sequence is None else "stop_sequence"


def render_usage(usage: Usage, form: AnswerForm) -> UsageObject:
    """The usage of a complete answer."""
    return _usage(
        usage.num_prompt_tokens,
        usage.num_cached_tokens,
        0 if form.is_warm_up else usage.num_completion_tokens,
        form,
        details=OutputTokensDetails(usage.num_reasoning_tokens),
        num_written=usage.num_cache_written_tokens,
    )


def render_first_usage(prompt: PromptReady, form: AnswerForm) -> UsageObject:
    """The usage before the first token of the answer."""
    num_cached = prompt.prefix.num_matched_tokens if prompt.prefix else 0
    return _usage(prompt.num_prompt_tokens, num_cached, 0, form)


def _usage(
    num_prompt: int,
    num_cached: int,
    num_output: int,
    form: AnswerForm,
    *,
    details: OutputTokensDetails | None = None,
    num_written: int | None = None,
) -> UsageObject:
    """`num_written`: tokens that a provider put into its cache; None for a model here."""
    num_new = num_prompt - num_cached
    num_created = num_written
    if num_created is None:
        num_created = max(num_prompt // _CACHE_UNIT * _CACHE_UNIT - num_cached, 0) if form.has_cache_marks else 0
    return UsageObject(
        input_tokens=num_new - num_created,
        cache_creation_input_tokens=num_created,
        cache_read_input_tokens=num_cached,
        output_tokens=num_output,
        output_tokens_details=details,
    )


def _render_part(part: Part, form: AnswerForm) -> BlockObject:
    if part.kind is PartKind.TEXT:
        return TextObject(text=part.text)
    if part.kind is PartKind.REASONING:
        shown = "" if form.omits_thinking else part.text
        return ThinkingObject(thinking=shown, signature=part.signature or sign(part.text))
    return ToolUseObject(id=part.call_id or "", name=part.tool_name or "", input=msgspec.Raw(_object_of(part.text)))


def _object_of(arguments: str) -> bytes:
    """The text of a JSON object. What an answer that was cut off left of one is no object: its input is empty."""
    try:
        parsed = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return b"{}"
    return arguments.encode() if isinstance(parsed, dict) else b"{}"
