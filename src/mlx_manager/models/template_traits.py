"""What a chat template takes and shows, found out by rendering small conversations with it.

Templates of one family differ between releases and conversions, and none says what it leaves out: so they are asked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

REFUSALS = (
    TemplateError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    ArithmeticError,
    MemoryError,
    RecursionError,
)
"""What templates, and mlx-lm's renderers that stand in for some, raise for a conversation that they do not take."""

Message = dict[str, Any]
Render = Callable[[Sequence[Message], Sequence[Message]], str]
"""Renders messages and tools, with what the model is to go on from. Raises one of `REFUSALS`."""

_SYSTEM, _LATE_SYSTEM = "probesystem", "probelater"
_FIRST = "probefirst"
_RESULT, _OTHER_RESULT = "proberesult", "probesecond"
_NAME, _VALUE, _OTHER_VALUE = "probe_tool", "probevalue", "probeother"
_LONG_ID, _OTHER_LONG_ID = "call_0123456789abcdef01234567", "call_0123456789abcdef76543210"
_SHORT_ID_LENGTH = 9
_USER: Message = {"role": "user", "content": "Hello"}
_ASSISTANT: Message = {"role": "assistant", "content": "Hello"}


@dataclass(frozen=True)
class CallForm:
    """How calls and their results have to be put into messages for a template to show them."""

    has_short_ids: bool = False
    """Ids of nine letters and digits."""
    has_text_arguments: bool = False
    """Arguments as the text of a JSON object, not as an object."""
    has_null_content: bool = False
    """The content of a message with calls is null where there is no text."""
    has_named_results: bool = False
    """A result names its tool."""


_FORMS = (
    CallForm(),
    CallForm(has_short_ids=True),
    CallForm(has_named_results=True),
    CallForm(has_text_arguments=True),
    CallForm(has_text_arguments=True, has_null_content=True),
    CallForm(has_short_ids=True, has_named_results=True),
)


@dataclass(frozen=True)
class TemplateTraits:
    """What one chat template takes and shows."""

    takes_system: bool
    """A system message at the beginning."""
    takes_late_system: bool
    """A system message in the middle."""
    takes_system_alone: bool
    """A system message and nothing else, with tools and without."""
    keeps_system_behind_results: bool
    """It shows the system message also where the result of a call comes last."""
    takes_turns_in_a_row: bool
    """Two messages of one role, one after the other."""
    takes_assistant_first: bool
    """A conversation that the assistant begins."""
    takes_user_behind_results: bool
    """Something that the user says behind the result of a call, with no answer between."""
    shows_tools: bool
    needs_system_for_tools: bool
    """It shows tools only behind a system message."""
    needs_descriptions: bool
    """It shows tools only when each of their parameters has a description."""
    calls: CallForm | None
    """How calls are shown; None where they are left out."""
    shows_results: bool
    shows_lone_results: bool
    """Results without their call."""
    shows_several_calls: bool
    """Several calls of one message, and their results."""


def find_traits(render: Render) -> TemplateTraits:
    """Ask the template behind `render`."""

    def shows(messages: Sequence[Message], tools: Sequence[Message], *words: str) -> bool:
        try:
            text = render(messages, tools)
        except REFUSALS:
            return False
        return all(word in text for word in words)

    system, late = _said("system", _SYSTEM), _said("system", _LATE_SYSTEM)
    takes_system = shows([system, _USER], [], _SYSTEM)
    early = ([system], (_SYSTEM,)) if takes_system else ([], ())
    bare, described = [_tool()], [_tool(description="Text")]
    asked: list[list[Message]] = [[_USER], [_said("system", ""), _USER]]
    shown = next(
        ((messages, tools) for messages in asked for tools in (bare, described) if shows(messages, tools, _NAME)), None
    )
    tools = shown[1] if shown else bare
    first, second = (_LONG_ID, _VALUE, _RESULT), (_OTHER_LONG_ID, _OTHER_VALUE, _OTHER_RESULT)
    form = next((form for form in _FORMS if shows(in_form(_called(first), form), tools, _VALUE)), None)
    # where calls are going to be written as text, results are asked for behind text
    answered = in_form(_called(first), form) if form else [_USER, _ASSISTANT, *_called(first)[2:]]
    shows_results = shows(answered, tools, _RESULT)
    lone = [_USER, *in_form(_called(first)[2:], form or CallForm())]
    several = in_form(_called(first, second), form or CallForm())
    return TemplateTraits(
        takes_system=takes_system,
        takes_late_system=shows([*early[0], _USER, _ASSISTANT, late, _USER], [], *early[1], _LATE_SYSTEM),
        takes_system_alone=not takes_system or all(shows([system], each, _SYSTEM) for each in ([], tools)),
        keeps_system_behind_results=not (takes_system and shows_results) or shows([system, *answered], tools, _SYSTEM),
        takes_turns_in_a_row=shows([_USER, _USER], []),
        takes_assistant_first=shows([_said("assistant", _FIRST), _USER], [], _FIRST),
        takes_user_behind_results=not shows_results or shows([*answered, _USER], tools, _RESULT),
        shows_tools=shown is not None,
        needs_system_for_tools=shown is not None and len(shown[0]) > 1,
        needs_descriptions=shown is not None and shown[1] is described,
        calls=form,
        shows_results=shows_results,
        shows_lone_results=form is None or not shows_results or shows(lone, tools, _RESULT),
        shows_several_calls=shows(several, tools, _VALUE, _OTHER_VALUE, _RESULT, _OTHER_RESULT),
    )


def _tool(**more: str) -> Message:
    schema = {"type": "object", "properties": {"text": {"type": "string", **more}}, "required": ["text"]}
    return {"type": "function", "function": {"name": _NAME, "parameters": schema, **more}}


def _called(*calls: tuple[str, str, str]) -> list[Message]:
    """A conversation with calls and results: ids, values of arguments and results."""
    asked: Message = {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": call_id, "type": "function", "function": {"name": _NAME, "arguments": {"text": value}}}
            for call_id, value, _ in calls
        ],
    }
    results = [_said("tool", result) | {"tool_call_id": call_id} for call_id, _, result in calls]
    return [_USER, asked, *results]


def _said(role: str, text: str) -> Message:
    return {"role": role, "content": text}


def in_form(messages: Sequence[Message], form: CallForm) -> list[Message]:
    """The same messages with calls and results put as `form` says."""
    names = {call["id"]: call["function"]["name"] for message in messages for call in message.get("tool_calls", [])}
    return [_message_in_form(message, form, names) for message in messages]


def _message_in_form(message: Message, form: CallForm, names: Mapping[str, str]) -> Message:
    formed = dict(message)
    if message.get("tool_calls"):
        formed["tool_calls"] = [_call_in_form(call, form) for call in message["tool_calls"]]
        if form.has_null_content and not message["content"]:
            formed["content"] = None
    elif message["role"] == "tool" and (call_id := message.get("tool_call_id")):
        if form.has_named_results and call_id in names:
            formed.setdefault("name", names[call_id])
        if form.has_short_ids:
            formed["tool_call_id"] = _short_id(call_id)
    return formed


def _call_in_form(call: Message, form: CallForm) -> Message:
    if form.has_short_ids:
        call = call | {"id": _short_id(call["id"])}
    if form.has_text_arguments:
        arguments = json.dumps(call["function"]["arguments"], ensure_ascii=False)
        call = call | {"function": call["function"] | {"arguments": arguments}}
    return call


def _short_id(call_id: str) -> str:
    """Nine letters and digits that stand for `call_id`."""
    if len(call_id) == _SHORT_ID_LENGTH and call_id.isalnum():
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:_SHORT_ID_LENGTH]
