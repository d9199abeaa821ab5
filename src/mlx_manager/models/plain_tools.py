"""Tools for chat templates that know none: described in the system message, calls and their answers as text.

The form is that of Hermes (NousResearch, Hermes-Function-Calling) and Qwen, which the most models have seen.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mlx_manager.parsing import ToolFormat
from mlx_manager.parsing.tool_formats import HERMES

_DESCRIPTION = """You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{signatures}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


def without_tool_roles(messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same conversation in messages of system, user and assistant with nothing but text."""
    plain = [as_plain_result(calls_as_text(message, HERMES)) for message in messages]
    if not tools:
        return plain
    signatures = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    description = _DESCRIPTION.format(signatures=signatures)
    if plain and plain[0]["role"] == "system":
        return [plain[0] | {"content": f"{description}\n\n{plain[0]['content']}"}, *plain[1:]]
    return [{"role": "system", "content": description}, *plain]


def as_plain_result(message: dict[str, Any]) -> dict[str, Any]:
    """The result of a call as something that the user says; any other message as it is."""
    if message["role"] != "tool":
        return message
    return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}


def calls_as_text(message: dict[str, Any], tool_format: ToolFormat) -> dict[str, Any]:
    """An assistant's calls as a part of its text, as the model writes them."""
    calls = message.get("tool_calls")
    if not calls:
        return message
    spelled = tool_format.spell([(call["function"]["name"], call["function"]["arguments"]) for call in calls])
    texts = [text for text in (message["content"], spelled) if text]
    return {key: value for key, value in message.items() if key != "tool_calls"} | {"content": "\n".join(texts)}
