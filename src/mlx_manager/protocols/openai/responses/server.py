"""From the body of POST /v1/responses to an `ir.GenerationRequest` and the response that begins to answer it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from mlx_manager.errors import InvalidRequest, UnsupportedParameter
from mlx_manager.ir import ChatPrompt, GenerationRequest, Grammar, GrammarKind, Message, PassedOn, Role, TextContent
from mlx_manager.protocols.field_names import FieldNames
from mlx_manager.protocols.model_name import with_model
from mlx_manager.protocols.openai.conversation import parse_template_kwargs, parse_thinking
from mlx_manager.protocols.openai.responses.answers import ResponseObject
from mlx_manager.protocols.openai.responses.items import ItemReader
from mlx_manager.protocols.openai.responses.parameters import RESPONSE_PARAMETERS
from mlx_manager.protocols.openai.responses.tools import (
    ToolNames,
    names_one_tool,
    parse_response_choice,
    parse_response_tools,
)
from mlx_manager.protocols.openai.responses.wire import (
    Item,
    ResponsesRequest,
    SentMessage,
    SentReference,
)
from mlx_manager.protocols.openai.sampling import check_calls, parse_sampling
from mlx_manager.protocols.parameters import passed_on_of, screen_rows
from mlx_manager.protocols.priority import parse_priority
from mlx_manager.protocols.wire import parse_wire

FIELD_NAMES = FieldNames("input", "max_output_tokens")
ENCRYPTED_REASONING = "reasoning.encrypted_content"
OUTPUT_LOGPROBS = "message.output_text.logprobs"
_ITEMS: TypeAdapter[list[Item]] = TypeAdapter(list[Item])


@dataclass(frozen=True)
class AnswerForm:
    """How the parts of the answer are to be told."""

    names: ToolNames
    has_summary: bool
    """Thinking is told as a summary, not as the text of the reasoning."""
    has_encrypted_reasoning: bool


@dataclass(frozen=True)
class ResponseCall:
    """A parsed HTTP request: what to generate, and in which form to answer."""

    request: GenerationRequest
    opening: ResponseObject
    """The response before anything of it is there."""
    form: AnswerForm
    input_items: tuple[dict[str, Any], ...]
    """This request's own items, as JSON, each with an id."""
    stream: bool
    store: bool
    background: bool
    truncates: bool
    """Whether the oldest turns are left out where the conversation does not fit."""
    ignored: tuple[str, ...]
    """Parameters accepted without effect, to be named in the answer's header."""


def read_response_request(body: bytes, default_model: str | None = None) -> ResponsesRequest:
    """Read the body of POST /v1/responses; `default_model` answers where none is named. Raises `InvalidRequest`."""
    return with_model(parse_wire(ResponsesRequest, body), default_model)


def references_of(wire: ResponsesRequest) -> tuple[str, ...]:
    """The ids of the stored items that the input refers to."""
    items = () if isinstance(wire.input, str) else wire.input
    return tuple(item.id for item in items if isinstance(item, SentReference))


def parse_response(
    wire: ResponsesRequest,
    *,
    earlier: Sequence[dict[str, Any]] = (),
    referenced: dict[str, dict[str, Any]],
    answer_id: str,
    created_unix_s: int,
    priority_header: str | None = None,
) -> ResponseCall:
    """What `wire` asks for. `answer_id` must be unique.

    `earlier` are the items of the stored conversation that it goes on with, `referenced` the stored items that it
    refers to, by id. Raises `InvalidRequest`.
    """
    ignored = screen_rows(RESPONSE_PARAMETERS, wire.model_extra or {})
    _check_served(wire)
    own = _own_items(wire, referenced)
    reader = ItemReader()
    reader.read(_ITEMS.validate_python(list(earlier)), "previous_response_id")
    reader.read(own, "input")
    tools, names, left_out = parse_response_tools(wire)
    reasoning = wire.reasoning
    effort = reasoning.effort if reasoning else None
    prompt = ChatPrompt(
        messages=(*_instructions(wire), *reader.finish()),
        tools=tools,
        tool_choice=parse_response_choice(wire, tools),
        parallel_tool_calls=wire.parallel_tool_calls is not False and not names_one_tool(wire),
        thinking=parse_thinking(wire.enable_thinking, effort, wire.chat_template_kwargs),
        template_kwargs=parse_template_kwargs(wire.chat_template_kwargs),
    )
    include, unknown = _parse_include(wire)
    sampling = parse_sampling(
        wire,
        max_tokens=wire.max_output_tokens,
        grammar=_parse_format(wire),
        logprobs=OUTPUT_LOGPROBS in include or bool(wire.top_logprobs),
        top_logprobs=wire.top_logprobs or 0,
    )
    check_calls(prompt, sampling)
    verbosity = {"verbosity": wire.text.verbosity} if wire.text and wire.text.verbosity else {}
    told = passed_on_of("responses", RESPONSE_PARAMETERS, wire.model_extra or {})
    if verbosity:
        told = PassedOn(dialect="responses", fields=told.fields | verbosity)
    return ResponseCall(
        request=GenerationRequest(
            request_id=answer_id,
            model=wire.model,
            prompt=prompt,
            sampling=sampling,
            priority=parse_priority(wire.priority, priority_header),
            passed_on=told,
        ),
        opening=_opening(wire, answer_id, created_unix_s),
        form=AnswerForm(
            names=names,
            has_summary=_summary_of(wire) is not None,
            has_encrypted_reasoning=ENCRYPTED_REASONING in include,
        ),
        input_items=tuple(_as_stored(item) for item in own),
        stream=bool(wire.stream),
        store=wire.store is not False,
        background=bool(wire.background),
        truncates=wire.truncation == "auto",
        ignored=(*ignored, *left_out, *(f"text.{name}" for name in verbosity), *unknown, *reader.unread),
    )


def _check_served(wire: ResponsesRequest) -> None:
    if not wire.background:
        return
    if wire.stream:
        raise UnsupportedParameter(
            "background does not go with stream: ask for the response until it is complete.", param="background"
        )
    if wire.store is False:
        raise InvalidRequest("background needs store: who asks for the response later finds it there.", param="store")


def _own_items(wire: ResponsesRequest, referenced: dict[str, dict[str, Any]]) -> list[Item]:
    if isinstance(wire.input, str):
        return [SentMessage(role="user", content=wire.input)]
    if not wire.input and wire.previous_response_id is None and not wire.instructions:
        raise InvalidRequest("input holds no items: send at least one, or a text.", param="input")
    return [
        _ITEMS.validate_python([referenced[item.id]])[0]
        if isinstance(item, SentReference) and item.id in referenced
        else item
        for item in wire.input
    ]


def _instructions(wire: ResponsesRequest) -> tuple[Message, ...]:
    return (Message(role=Role.SYSTEM, content=(TextContent(wire.instructions),)),) if wire.instructions else ()


def _parse_include(wire: ResponsesRequest) -> tuple[frozenset[str], tuple[str, ...]]:
    """What is to be included, and the fields that ask for what is not known here."""
    asked = wire.include or ()
    known = {ENCRYPTED_REASONING, OUTPUT_LOGPROBS, *_OF_TOOLS_NOT_SERVED}
    return frozenset(asked), tuple(f"include[{index}]" for index, name in enumerate(asked) if name not in known)


_OF_TOOLS_NOT_SERVED = (
    "web_search_call.action.sources",
    "web_search_call.results",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
)
"""What belongs to items that are never in an answer of ours."""


def _parse_format(wire: ResponsesRequest) -> Grammar | None:
    sent = wire.text.format if wire.text else None
    if sent is None or sent.type == "text":
        return None
    if wire.ignore_eos:
        raise InvalidRequest("ignore_eos would go on behind the end of text.format: leave it out.", param="ignore_eos")
    if sent.type == "json_object":
        return Grammar(kind=GrammarKind.JSON_OBJECT, param="text.format")
    if sent.schema_ is None:
        raise InvalidRequest(
            "text.format.schema is required for a schema: send "
            '{"type": "json_schema", "name": "...", "schema": {...}}.',
            param="text.format.schema",
        )
    return Grammar(kind=GrammarKind.JSON_SCHEMA, param="text.format.schema", text=json.dumps(sent.schema_))


def _summary_of(wire: ResponsesRequest) -> str | None:
    if wire.reasoning is None:
        return None
    asked = wire.reasoning.summary or wire.reasoning.generate_summary
    return None if asked == "none" else asked


def _opening(wire: ResponsesRequest, answer_id: str, created_unix_s: int) -> ResponseObject:
    said: dict[str, Any] = wire.model_dump(mode="json", by_alias=True, exclude_unset=True, include=_SAID_BACK)
    extra = wire.model_extra or {}
    text = said.get("text") or {}
    return ResponseObject(
        id=answer_id,
        created_at=created_unix_s,
        status="queued" if wire.background else "in_progress",
        background=bool(wire.background),
        model=wire.model,
        instructions=wire.instructions,
        max_output_tokens=wire.max_output_tokens,
        metadata=wire.metadata or {},
        parallel_tool_calls=wire.parallel_tool_calls is not False,
        previous_response_id=wire.previous_response_id,
        prompt_cache_key=_text_or_none(extra.get("prompt_cache_key")),
        reasoning={"effort": wire.reasoning.effort if wire.reasoning else None, "summary": _summary_of(wire)},
        safety_identifier=_text_or_none(extra.get("safety_identifier")),
        store=wire.store is not False,
        temperature=wire.temperature,
        text={**text, "format": text.get("format") or {"type": "text"}},
        tool_choice=said.get("tool_choice") or "auto",
        tools=said.get("tools") or [],
        top_logprobs=wire.top_logprobs or 0,
        top_p=wire.top_p,
        truncation=wire.truncation or "disabled",
        user=_text_or_none(extra.get("user")),
    )


_SAID_BACK = {"text", "tools", "tool_choice"}


def _text_or_none(sent: object) -> str | None:
    return sent if isinstance(sent, str) else None


def _as_stored(item: Item) -> dict[str, Any]:
    stored: dict[str, Any] = item.model_dump(mode="json", by_alias=True, exclude_unset=True)
    stored["type"] = item.type
    stored["id"] = stored.get("id") or f"{_ID_PREFIXES.get(item.type, 'item')}_{secrets.token_hex(16)}"
    if stored["type"] == "message" and isinstance(stored["content"], str):
        kind = "output_text" if stored["role"] == "assistant" else "input_text"
        stored["content"] = [{"type": kind, "text": stored["content"]}]
    return {"status": "completed", **stored}


_ID_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}
