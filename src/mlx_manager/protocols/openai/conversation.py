"""A conversation of the OpenAI dialect as `ir.ChatPrompt`: its messages, and how the answer to them is to be begun."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_manager.errors import InvalidRequest, UnsupportedParameter
from mlx_manager.ir import ChatPrompt, Content, Message, Role, TextContent, Thinking, ToolCall
from mlx_manager.protocols.documents import parse_file
from mlx_manager.protocols.images import parse_image_url
from mlx_manager.protocols.openai.tools import names_one_tool, parse_tool_choice, parse_tools
from mlx_manager.protocols.openai.wire import ChatMessage, ChatRequest, ContentPart
from mlx_manager.protocols.videos import parse_frames, parse_video_url

_ROLES = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
    "function": Role.TOOL,
}
_REFUSED_IN_MESSAGES = ("audio", "prefix")
"""Fields of a message that would change the prompt; null, empty and false ones are the same as none."""
_ONLY_PARTS = "send parts of type text, image_url, video_url or file."
_REFUSED_PARTS = {
    "input_audio": _ONLY_PARTS,
    "audio_url": _ONLY_PARTS,
    "input_image": "that is the form of /v1/responses; here the part is {type: image_url, image_url: {url: …}}.",
    "input_video": "the part is {type: video_url, video_url: {url: …}}.",
}
"""Types of parts that other servers take, and what to send instead."""
_REFUSED_OF_VIDEOS = (
    *("fps", "nframes", "min_frames", "max_frames", "video_start", "video_end"),
    *("min_pixels", "max_pixels", "total_pixels", "resized_height", "resized_width"),
)
"""Fields with which other servers let a request choose the frames; here the settings do."""
_NOT_FOR_TEMPLATES = (
    "add_generation_prompt",
    "chat_template",
    "continue_final_message",
    "conversation",
    "documents",
    "messages",
    "return_dict",
    "tokenize",
    "tools",
)
"""Names that the renderer of templates uses itself."""
_SWITCH = "enable_thinking"
_UNPARSED = "unparsed"
"""The member that holds the arguments of a call which are no JSON object."""


def parse_conversation(wire: ChatRequest) -> ChatPrompt:
    """The prompt of a chat request. Raises `InvalidRequest`."""
    tools = parse_tools(wire)
    return ChatPrompt(
        messages=_parse_messages(wire.messages),
        continue_final_message=_continues_final_message(wire),
        tools=tools,
        tool_choice=parse_tool_choice(wire, tools),
        # the older form has room for one call only
        parallel_tool_calls=wire.parallel_tool_calls is not False and not wire.functions and not names_one_tool(wire),
        thinking=parse_thinking(wire.enable_thinking, wire.reasoning_effort, wire.chat_template_kwargs),
        template_kwargs=parse_template_kwargs(wire.chat_template_kwargs),
    )


@dataclass
class _Calls:
    """The tool calls of the messages so far."""

    names: dict[str, str] = field(default_factory=dict)
    """By id."""
    open_ids: set[str] = field(default_factory=set)
    """Of those that have no answer yet."""
    last_function_id: str | None = None
    """Of the last call in the form before `tool_calls`, which has no ids of its own."""


def _parse_messages(sent: Sequence[ChatMessage]) -> tuple[Message, ...]:
    calls = _Calls()
    return tuple(_parse_message(message, f"messages[{index}]", calls) for index, message in enumerate(sent))


def _parse_message(message: ChatMessage, at: str, calls: _Calls) -> Message:
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidRequest(
            f"{at}.role cannot be {message.role[:40]!r}: send one of {', '.join(_ROLES)}.", param=f"{at}.role"
        )
    for name in _REFUSED_IN_MESSAGES:
        if (message.model_extra or {}).get(name):
            raise UnsupportedParameter(f"{at}.{name} is not supported: leave it out.", param=f"{at}.{name}")
    if message.content is None and role is not Role.ASSISTANT:
        raise InvalidRequest(f"{at}.content is required: send a string or a list of parts.", param=f"{at}.content")
    content = _parse_content(message.content, f"{at}.content")
    if role is Role.TOOL:
        return _parse_answered_call(message, content, at, calls)
    if role is not Role.ASSISTANT:
        for name, value in (("tool_calls", message.tool_calls), ("function_call", message.function_call)):
            if value:
                raise InvalidRequest(
                    f"{at}.{name} belongs to the assistant, and the role is {message.role}: leave it out.",
                    param=f"{at}.{name}",
                )
        return Message(role=role, content=content, name=message.name)
    return Message(
        role=role,
        content=content,
        name=message.name,
        reasoning=message.reasoning_content or message.reasoning or "",
        tool_calls=_parse_calls(message, at, calls),
    )


def _parse_calls(message: ChatMessage, at: str, calls: _Calls) -> tuple[ToolCall, ...]:
    if message.function_call is not None:
        if message.tool_calls:
            raise InvalidRequest(
                f"{at}.function_call and tool_calls exclude each other: send one of them.", param=f"{at}.function_call"
            )
        calls.last_function_id = f"call_{len(calls.names)}"
        sent = [(calls.last_function_id, message.function_call, f"{at}.function_call")]
    else:
        sent = [
            (call.id, call.function, f"{at}.tool_calls[{index}].function")
            for index, call in enumerate(message.tool_calls or ())
        ]
    parsed = []
    for call_id, function, function_at in sent:
        if call_id in calls.open_ids:
            param = f"{function_at.removesuffix('.function')}.id"
            raise InvalidRequest(
                f"{param} {call_id[:80]!r} is the id of a call before it that has no answer yet.", param=param
            )
        calls.names[call_id] = function.name
        calls.open_ids.add(call_id)
        arguments = parse_arguments(function.arguments)
        parsed.append(ToolCall(call_id=call_id, name=function.name, arguments=arguments))
    return tuple(parsed)


def parse_arguments(sent: str) -> str:
    """The arguments of a call, the text of a JSON object; some clients send nothing for a call without arguments.

    What a model wrote may have been cut off, or be no object: templates and providers take objects alone, so such a
    text is kept as the only member of one, and the conversation goes on.
    """
    if not sent.strip():
        return "{}"
    try:
        arguments = json.loads(sent)
    except (ValueError, RecursionError):
        arguments = None
    return sent if isinstance(arguments, dict) else json.dumps({_UNPARSED: sent}, ensure_ascii=False)


def _parse_answered_call(message: ChatMessage, content: tuple[Content, ...], at: str, calls: _Calls) -> Message:
    call_id, param = message.tool_call_id, f"{at}.tool_call_id"
    if message.role == "function":
        call_id, param = calls.last_function_id, f"{at}.role"
    if call_id is None or call_id not in calls.names:
        known = ", ".join(repr(known_id) for known_id in calls.names) or "none"
        asked = "is required" if call_id is None else f"cannot be {call_id[:80]!r}"
        raise InvalidRequest(
            f"{param} {asked}: name a tool call of an assistant message before it (there: {known}).", param=param
        )
    if call_id not in calls.open_ids:
        raise InvalidRequest(f"{param} {call_id[:80]!r} has an answer before it: send one for each call.", param=param)
    calls.open_ids.discard(call_id)
    return Message(role=Role.TOOL, content=content, name=message.name or calls.names[call_id], tool_call_id=call_id)


def _parse_content(content: str | list[ContentPart] | None, at: str) -> tuple[Content, ...]:
    if content is None or isinstance(content, str):
        return (TextContent(content),) if content else ()
    return tuple(_parse_part(part, f"{at}[{index}]") for index, part in enumerate(content))


def _parse_part(part: ContentPart, at: str) -> Content:
    if part.type == "text":
        if part.text is None:
            raise InvalidRequest(f"{at}.text is required: send a string.", param=f"{at}.text")
        return TextContent(part.text)
    if part.type == "refusal":
        return TextContent(part.refusal or "")
    if part.type == "image_url":
        return _parse_image(part, f"{at}.image_url")
    if part.type in ("video_url", "video"):
        return _parse_video(part, at)
    if part.type == "file":
        if part.file is None:
            raise InvalidRequest(f"{at}.file is required: send an object with file_data.", param=f"{at}.file")
        return parse_file(part.file.file_data, part.file.filename, at=f"{at}.file")
    if part.type in _REFUSED_PARTS:
        raise UnsupportedParameter(
            f"{at} is of type {part.type}, which is not supported: {_REFUSED_PARTS[part.type]}", param=f"{at}.type"
        )
    raise InvalidRequest(f"{at}.type cannot be {part.type[:40]!r}: {_ONLY_PARTS}", param=f"{at}.type")


def _parse_image(part: ContentPart, at: str) -> Content:
    sent = part.image_url
    if sent is None:
        raise InvalidRequest(f"{at} is required: send an object with the url of the picture.", param=at)
    if isinstance(sent, str):
        # the short form that some clients send
        return parse_image_url(sent, None, at=at)
    return parse_image_url(sent.url, sent.detail, at=f"{at}.url")


def _parse_video(part: ContentPart, at: str) -> Content:
    for name in _REFUSED_OF_VIDEOS:
        if (part.model_extra or {}).get(name) is not None:
            raise UnsupportedParameter(
                f"{at}.{name} is not supported: leave it out, or send the frames that are wanted as a list.",
                param=f"{at}.{name}",
            )
    at = f"{at}.{part.type}"
    sent = part.video_url if part.type == "video_url" else part.video
    if sent is None:
        form = "an object with the url of the video" if part.type == "video_url" else "the url of it, or of its frames"
        raise InvalidRequest(f"{at} is required: send {form}.", param=at)
    if isinstance(sent, list):
        return parse_frames(sent, at=at)
    return parse_video_url(sent, at=at) if isinstance(sent, str) else parse_video_url(sent.url, at=f"{at}.url")


def parse_thinking(is_enabled: bool | None, effort: str | None, template_kwargs: dict[str, Any] | None) -> Thinking:
    """An effort asks for thinking, but for the effort "none"; what `enable_thinking` says comes first."""
    if is_enabled is None:
        is_enabled = _switch_of(template_kwargs or {})
    if is_enabled is None and effort is not None:
        is_enabled = effort != "none"
    return Thinking(is_enabled=is_enabled, effort=effort)


def _switch_of(template_kwargs: dict[str, Any]) -> bool | None:
    """What `enable_thinking` among the variables of the template says: where other servers have it."""
    sent = template_kwargs.get(_SWITCH)
    return sent if isinstance(sent, bool) else None


def parse_template_kwargs(sent: dict[str, Any] | None) -> dict[str, Any]:
    """Further variables for the template. Raises `InvalidRequest` for names that the renderer uses itself."""
    kwargs = sent or {}
    for name in kwargs:
        if name in _NOT_FOR_TEMPLATES:
            at = f"chat_template_kwargs.{name}"
            raise InvalidRequest(f"{at} is made from the request itself: leave it out.", param=at)
    if _switch_of(kwargs) is None:
        return kwargs
    return {name: value for name, value in kwargs.items() if name != _SWITCH}


def _continues_final_message(wire: ChatRequest) -> bool:
    """Whether the last message is one to go on with, rather than a turn to answer."""
    wants_start = wire.add_generation_prompt
    if wire.continue_final_message and wants_start:
        raise InvalidRequest(
            "continue_final_message and add_generation_prompt exclude each other: send one of them.",
            param="continue_final_message",
        )
    if not wire.continue_final_message and wants_start is not False:
        return False
    param = "continue_final_message" if wire.continue_final_message else "add_generation_prompt"
    if wire.messages[-1].role != "assistant" or wire.messages[-1].tool_calls or wire.messages[-1].function_call:
        raise InvalidRequest(
            f"{param} asks to go on with the last message, which must then be the assistant's, without tool calls.",
            param=param,
        )
    return True
