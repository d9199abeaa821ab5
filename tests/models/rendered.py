"""One conversation as it is put to every model, kept under tests/data/templates/rendered; run it to write them anew."""

from __future__ import annotations

import json
from datetime import datetime

from mlx_manager.ir import ChatPrompt, Message, Role, TextContent, Tool, ToolCall
from tests.models.templates import FOLDER, TOLD, style_of

RENDERED = FOLDER / "rendered"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
TOOL = Tool(name="get_weather", description="Weather of a city", parameters=json.dumps(SCHEMA))
_TODAY = ("%d %b %Y", "%Y-%m-%d", "%B %d, %Y")
_IDS = ("call_0a1b2c3d4e5f60718293a4b5", "call_5b4a39281706f5e4d3c2b1a0")


def said(role: Role, text: str = "", **more: object) -> Message:
    return Message(role=role, content=(TextContent(text),) if text else (), **more)  # type: ignore[arg-type]


def called(call_id: str, **arguments: object) -> ToolCall:
    return ToolCall(call_id=call_id, name="get_weather", arguments=json.dumps(arguments))


CONVERSATION = (
    said(Role.SYSTEM, "Be brief."),
    said(Role.USER, "Paris and Rome?"),
    said(
        Role.ASSISTANT,
        reasoning="Two cities.",
        tool_calls=(called(_IDS[0], city="Paris"), called(_IDS[1], city="Rome", days=2)),
    ),
    said(Role.TOOL, "18 degrees", tool_call_id=_IDS[0]),
    said(Role.TOOL, "25 degrees", tool_call_id=_IDS[1]),
    said(Role.ASSISTANT, "18 and 25 degrees."),
    said(Role.SYSTEM, "Answer in French."),
    said(Role.USER, "And now?"),
    said(Role.USER, "In Rome, I mean."),
)
"""Everything that some template refuses or leaves out."""
PROMPT = ChatPrompt(messages=CONVERSATION, tools=(TOOL,))


def without_date(text: str) -> str:
    """Today as a word."""
    today = datetime.now().astimezone()
    for form in _TODAY:
        text = text.replace(today.strftime(form), "TODAY")
    return text


def render(name: str) -> str:
    return without_date(style_of(name).template.render(PROMPT))


if __name__ == "__main__":
    RENDERED.mkdir(exist_ok=True)
    for each in TOLD:
        (RENDERED / f"{each}.txt").write_text(render(each), encoding="utf-8")
