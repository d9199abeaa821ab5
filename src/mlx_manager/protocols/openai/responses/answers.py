"""The wire schemas of what POST /v1/responses answers: the response, its items, and the events of a stream."""

from __future__ import annotations

from typing import Any

import msgspec

from mlx_manager.protocols.openai.answers import TokenLogprobObject


class OutputText(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="output_text"):
    """Text of a message."""

    text: str
    annotations: list[Any] = []
    logprobs: list[TokenLogprobObject] = []


class ReasoningText(msgspec.Struct, frozen=True, tag_field="type", tag="reasoning_text"):
    """What the model has thought."""

    text: str


class SummaryText(msgspec.Struct, frozen=True, tag_field="type", tag="summary_text"):
    """What the model has thought, told as a summary."""

    text: str


class MessageItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="message"):
    """What the model says."""

    id: str
    status: str
    role: str = "assistant"
    content: list[OutputText] = []


class ReasoningItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="reasoning"):
    """What the model thinks."""

    id: str
    status: str
    summary: list[SummaryText]
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = None


class FunctionCallItem(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="function_call"
):
    """A call that the model makes."""

    id: str
    status: str
    call_id: str
    name: str
    arguments: str
    namespace: str | None = None


OutputItem = MessageItem | ReasoningItem | FunctionCallItem


class InputDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Where the prompt's tokens came from."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(msgspec.Struct, frozen=True):
    """What the answer's tokens were used for."""

    reasoning_tokens: int


class ResponseUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What the response cost."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class ResponseError(msgspec.Struct, frozen=True):
    """Why a response has failed."""

    code: str
    message: str


class IncompleteDetails(msgspec.Struct, frozen=True):
    """Why a response is incomplete."""

    reason: str


class ResponseObject(msgspec.Struct, frozen=True, kw_only=True):
    """A response: what was asked, how far it is, and what there is of the answer."""

    id: str
    object: str = "response"
    created_at: int
    status: str = "in_progress"
    """queued, in_progress, completed, incomplete, failed or cancelled."""
    background: bool = False
    completed_at: int | None = None
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None = None
    metadata: dict[str, str]
    model: str
    output: list[OutputItem] = []
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: dict[str, Any]
    safety_identifier: str | None
    service_tier: str = "default"
    store: bool
    temperature: float | None
    text: dict[str, Any]
    tool_choice: Any
    tools: list[Any]
    top_logprobs: int
    top_p: float | None
    truncation: str
    usage: ResponseUsage | None = None
    user: str | None


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    sequence_number: int


class _LifeEvent(_Event, frozen=True, kw_only=True):
    response: ResponseObject


class Created(_LifeEvent, frozen=True, kw_only=True, tag="response.created"):
    """The first event."""


class Queued(_LifeEvent, frozen=True, kw_only=True, tag="response.queued"):
    """The response waits for its turn."""


class InProgress(_LifeEvent, frozen=True, kw_only=True, tag="response.in_progress"):
    """Work on the response begins."""


class Completed(_LifeEvent, frozen=True, kw_only=True, tag="response.completed"):
    """The response is complete; the last event."""


class Incomplete(_LifeEvent, frozen=True, kw_only=True, tag="response.incomplete"):
    """The response was cut; the last event."""


class Failed(_LifeEvent, frozen=True, kw_only=True, tag="response.failed"):
    """The response has failed; the last event."""


class ErrorEvent(_Event, frozen=True, kw_only=True, tag="error"):
    """Something went wrong. `error` says the same once more, where the official SDKs look for it."""

    code: str | None
    message: str
    param: str | None
    error: dict[str, Any]


class _ItemEvent(_Event, frozen=True, kw_only=True):
    output_index: int
    item: OutputItem


class ItemAdded(_ItemEvent, frozen=True, kw_only=True, tag="response.output_item.added"):
    """An item begins."""


class ItemDone(_ItemEvent, frozen=True, kw_only=True, tag="response.output_item.done"):
    """An item is complete, or cut."""


class _InItem(_Event, frozen=True, kw_only=True):
    item_id: str
    output_index: int


class _PartEvent(_InItem, frozen=True, kw_only=True):
    content_index: int = 0
    part: OutputText | ReasoningText


class PartAdded(_PartEvent, frozen=True, kw_only=True, tag="response.content_part.added"):
    """A part of an item begins."""


class PartDone(_PartEvent, frozen=True, kw_only=True, tag="response.content_part.done"):
    """A part of an item is complete."""


class TextDelta(_InItem, frozen=True, kw_only=True, tag="response.output_text.delta"):
    """More text."""

    content_index: int = 0
    delta: str
    logprobs: list[TokenLogprobObject] = []


class TextDone(_InItem, frozen=True, kw_only=True, tag="response.output_text.done"):
    """All of a text."""

    content_index: int = 0
    text: str
    logprobs: list[TokenLogprobObject] = []


class ReasoningDelta(_InItem, frozen=True, kw_only=True, tag="response.reasoning_text.delta"):
    """More thinking."""

    content_index: int = 0
    delta: str


class ReasoningDone(_InItem, frozen=True, kw_only=True, tag="response.reasoning_text.done"):
    """All of the thinking."""

    content_index: int = 0
    text: str


class _SummaryPart(_InItem, frozen=True, kw_only=True):
    summary_index: int = 0
    part: SummaryText


class SummaryAdded(_SummaryPart, frozen=True, kw_only=True, tag="response.reasoning_summary_part.added"):
    """A summary begins."""


class SummaryDone(_SummaryPart, frozen=True, kw_only=True, tag="response.reasoning_summary_part.done"):
    """A summary is complete."""


class SummaryDelta(_InItem, frozen=True, kw_only=True, tag="response.reasoning_summary_text.delta"):
    """More of a summary."""

    summary_index: int = 0
    delta: str


class SummaryTextDone(_InItem, frozen=True, kw_only=True, tag="response.reasoning_summary_text.done"):
    """All of a summary."""

    summary_index: int = 0
    text: str


class ArgumentsDelta(_InItem, frozen=True, kw_only=True, tag="response.function_call_arguments.delta"):
    """More of a call's arguments."""

    delta: str


class ArgumentsDone(_InItem, frozen=True, kw_only=True, tag="response.function_call_arguments.done"):
    """All of a call's arguments."""

    name: str
    arguments: str


StreamEvent = (
    Created
    | Queued
    | InProgress
    | Completed
    | Incomplete
    | Failed
    | ErrorEvent
    | ItemAdded
    | ItemDone
    | PartAdded
    | PartDone
    | TextDelta
    | TextDone
    | ReasoningDelta
    | ReasoningDone
    | SummaryAdded
    | SummaryDone
    | SummaryDelta
    | SummaryTextDone
    | ArgumentsDelta
    | ArgumentsDone
)
