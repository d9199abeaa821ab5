"""Questions that have to be answered by calling a tool: schemas of this room as the arguments of functions."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from mlx_manager.ir import ChatPrompt, GenerationRequest, Thinking, Tool, ToolChoice, ToolChoiceMode
from tests.structured.asking import question
from tests.structured.schemas import NESTED, OBJECTS, PATTERNS, RECURSIVE, UNIONS, Schema, items, record

NUM_CUT_TOKENS = 16
_ITEM = "item"
_LEFT_OUT = ("ten properties", "property with odd names", "with titles and defaults", "one optional", "draft 7")
ARGUMENTS: dict[str, Schema] = {
    **{name: schema for name, schema in OBJECTS.items() if name not in _LEFT_OUT},
    **{name: NESTED[name] for name in ("five deep", "order")},
    "pattern": PATTERNS["pattern inside a record"],
    "union": UNIONS["union inside a record"],
    **{name: RECURSIVE[name] for name in ("shared definition", "definition of an enum", "reference into properties")},
}
"""By the name of the tool's case, the schema of its arguments."""
# two tools whose definitions have one name and are different
_DEFINED = {
    "count": record({"item": {"$ref": "#/$defs/item"}}) | {"$defs": {_ITEM: {"type": "integer", "maximum": 9}}},
    "label": record({"item": {"$ref": "#/$defs/item"}}) | {"$defs": {_ITEM: {"enum": ["red", "blue"]}}},
}
SEVERAL: dict[str, Schema] = {"point": OBJECTS["point"], "flags": record({"on": items({"type": "boolean"}, 1, 2)})}


def tool_of(name: str, schema: Schema, **more: Any) -> Tool:
    return Tool(name=name, parameters=json.dumps(schema), **more)


def calling(
    request_id: str, tools: tuple[Tool, ...], *, choice: ToolChoice, text: str = "Call it.", **asked: Any
) -> GenerationRequest:
    """A question with tools."""
    request = question(request_id, text, **asked)
    assert isinstance(request.prompt, ChatPrompt)
    prompt = msgspec.structs.replace(
        request.prompt, tools=tools, tool_choice=choice, parallel_tool_calls=False, thinking=Thinking()
    )
    return msgspec.structs.replace(request, prompt=prompt)


def named(name: str) -> ToolChoice:
    return ToolChoice(mode=ToolChoiceMode.REQUIRED, names=(name,))


REQUIRED = ToolChoice(mode=ToolChoiceMode.REQUIRED)
_SEVERAL_TOOLS = tuple(tool_of(name, schema) for name, schema in SEVERAL.items())
_DEFINED_TOOLS = tuple(tool_of(name, schema) for name, schema in _DEFINED.items())
CALLED: dict[str, dict[str, Schema]] = {
    **{f"call: {name}": {f"tool_{index}": schema} for index, (name, schema) in enumerate(ARGUMENTS.items())},
    "call: any of several": SEVERAL,
    "call: forked": SEVERAL,
    **{f"call: {name} of two": {name: schema} for name, schema in _DEFINED.items()},
}
"""By question, the tools that may be called, with the schemas of their arguments."""
CALLS: dict[str, GenerationRequest] = {
    **{
        key: calling(key, tuple(tool_of(name, schema) for name, schema in tools.items()), choice=REQUIRED)
        for key, tools in CALLED.items()
        if len(tools) == 1 and "of two" not in key
    },
    "call: any of several": calling("several", _SEVERAL_TOOLS, choice=REQUIRED),
    "call: forked": calling(
        "forked-call", _SEVERAL_TOOLS, choice=REQUIRED, num_choices=4, temperature=1.0, seed=3, max_tokens=120
    ),
    **{f"call: {name} of two": calling(f"{name}-of-two", _DEFINED_TOOLS, choice=named(name)) for name in _DEFINED},
    "call: cut": calling(
        "cut-call", (tool_of("order", NESTED["order"]),), choice=REQUIRED, num_choices=2, max_tokens=NUM_CUT_TOKENS
    ),
    "strict: free": calling(
        "strict-free", (tool_of("point", OBJECTS["point"], strict=True),), choice=ToolChoice(), max_tokens=12
    ),
    "call: not enforceable": calling(
        "not-enforceable",
        (tool_of("point", OBJECTS["point"]), tool_of("odd", record({"x": {"type": "array", "uniqueItems": True}}))),
        choice=REQUIRED,
    ),
    "call: loop": calling(
        "loop",
        (tool_of("odd", record({"x": {"$ref": "#/$defs/N"}}) | {"$defs": {"N": {"$ref": "#/$defs/N"}}}, strict=True),),
        choice=ToolChoice(),
    ),
}
