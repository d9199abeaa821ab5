"""A conversation as a file: Markdown to be read, JSON with every branch."""

from __future__ import annotations

import base64
import json
import re
import time
from typing import Any

from mlx_manager.ir import Role
from mlx_manager.ui.conversation import Conversation, ToolUse, Turn


def export_markdown(conversation: Conversation) -> bytes:
    """What is shown, in order."""
    parts = [f"# {conversation.title}"]
    if conversation.parameters.system_prompt.strip():
        parts.append(f"*System prompt:* {conversation.parameters.system_prompt.strip()}")
    for turn in conversation.path():
        parts.append(f"## {'You' if turn.role is Role.USER else turn.model}")
        parts += [f"*Attached: {file.name}*" for file in turn.attachments]
        parts += [_markdown_of(use) for one in turn.rounds for use in one.calls]
        parts.append(turn.text)
        if turn.error is not None:
            parts.append(f"*{turn.error}*")
    return ("\n\n".join(parts) + "\n").encode("utf-8", "replace")


def export_json(conversation: Conversation) -> bytes:
    """`messages` is what is shown, as OpenAI's dialect has it; `turns` is everything, branches too."""
    told = {
        "name": conversation.title,
        "created": _stamp(conversation.created_unix_s),
        "system_prompt": conversation.parameters.system_prompt,
        "messages": [_message(turn) for turn in conversation.path()],
        "turns": [_turn(turn) for turn in sorted(conversation.turns(), key=lambda turn: turn.number) if turn.number],
    }
    return json.dumps(told, ensure_ascii=False, indent=2).encode("utf-8", "replace")


def file_name(conversation: Conversation, extension: str) -> str:
    """After the conversation's name, in what every system takes."""
    stem = re.sub(r"[^\w-]+", "-", conversation.title).strip("-")[:60]
    return f"{stem or 'conversation'}.{extension}"


def _message(turn: Turn) -> dict[str, Any]:
    pictures = [
        {
            "type": "image_url",
            "image_url": {"url": f"data:{file.media_type};base64,{base64.b64encode(file.content).decode()}"},
        }
        for file in turn.attachments
        if file.is_image
    ]
    text = next(turn.messages()).text
    content: Any = [*pictures, {"type": "text", "text": text}] if pictures else text
    return {"role": turn.role.value, "content": content, **({"model": turn.model} if turn.model else {})}


def _turn(turn: Turn) -> dict[str, Any]:
    return {
        "number": turn.number,
        "follows": turn.parent.number if turn.parent is not None else None,
        "role": turn.role.value,
        "text": turn.text,
        "reasoning": "\n\n".join(one.reasoning for one in turn.rounds if one.reasoning),
        "tool_calls": [_call(use) for one in turn.rounds for use in one.calls],
        "model": turn.model,
        "answered_by": turn.answered_by,
        "state": turn.state.value,
        "error": turn.error,
        "attached": [file.name for file in turn.attachments],
    }


def _markdown_of(use: ToolUse) -> str:
    return f"*Called {use.name} of {use.server}* with\n\n{_fenced(use.arguments)}\n\n{_fenced(use.result)}"


def _fenced(text: str) -> str:
    """A code block that ends where we end it, whatever is in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def _call(use: ToolUse) -> dict[str, Any]:
    return {
        "server": use.server,
        "name": use.name,
        "arguments": use.arguments,
        "state": use.state.value,
        "result": use.result,
    }


def _stamp(unix_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_s))
