"""Streams of servers that say OpenAI's dialect in their own way, by the model that they are asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


def _chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def _call(index: int, **function: Any) -> dict[str, Any]:
    begun = {"id": f"call_{index + 1}", "type": "function"} if "name" in function else {}
    return {"index": index, "function": function} | begun


def _frames(*chunks: dict[str, Any], end: str = "\n\n") -> list[bytes]:
    return [f"data: {said}{end}".encode() for said in (*(json.dumps(chunk) for chunk in chunks), "[DONE]")]


_HI, _STOP, _CALLED = _chunk({"content": "Hi"}), _chunk({}, "stop"), _chunk({}, "tool_calls")
_FIRST, _SECOND = _call(0, name="f", arguments=""), _call(1, name="g", arguments="")

ODD_STREAMS: Mapping[str, list[bytes]] = MappingProxyType(
    {
        "empty-reasons": _frames(_chunk({"content": "Hi"}, ""), _chunk({"content": " you"}, ""), _STOP),
        "parts": _frames(
            _chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}),
            _chunk({"content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": " you"}]}),
            _STOP,
        ),
        "interleaved": _frames(
            _chunk({"tool_calls": [_FIRST, _SECOND]}),
            _chunk({"tool_calls": [_call(1, arguments='{"b"')]}),
            _chunk({"tool_calls": [_call(0, arguments='{"a": 1}')]}),
            _chunk({"tool_calls": [_call(1, arguments=": 2}")]}),
            _CALLED,
        ),
        "without-arguments": _frames(_chunk({"tool_calls": [_FIRST, _SECOND]}), _CALLED),
        "objects": _frames(_chunk({"tool_calls": [_call(0, name="f", arguments={"a": 1})]}), _CALLED),
        "returns": _frames(_HI, _chunk({"content": " you"}), _STOP, end="\r\r"),
        "pairs": [b"".join(_frames(_HI, _chunk({"content": " you"}), _STOP, end="\r\n\r\n"))],
        "filtered": _frames(_HI, _chunk({}, "content_filter")),
        "busy-inside": [b'data: {"error": {"code": 429, "message": "slow down"}}\n\n'],
        "priced": _frames(
            _HI, _STOP, {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "cost": 0.25}}
        ),
    }
)
