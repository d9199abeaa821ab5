"""Messages in the order of roles that a chat template takes: who begins, who follows whom, who gives instructions."""

from __future__ import annotations

from collections.abc import Sequence

from mlx_manager.models.plain_tools import as_plain_result
from mlx_manager.models.template_traits import Message, TemplateTraits

_ACKNOWLEDGED = "OK."
"""What the assistant is taken to have said between a result and the next thing that the user says. Not empty, because
some templates refuse that."""


def with_somebody_asking(messages: list[Message], traits: TemplateTraits) -> list[Message]:
    """Instructions alone are said by the user, where the template does not show them without one."""
    is_instructed_only = all(message["role"] == "system" for message in messages)
    if not messages or not is_instructed_only or traits.takes_system_alone:
        return messages
    return [*messages[:-1], _said("user", messages[-1]["content"])]


def with_plain_lone_results(messages: list[Message], traits: TemplateTraits) -> list[Message]:
    """Results of calls that are not there any more are said by the user, where the template loses them."""
    if traits.shows_lone_results:
        return messages
    known: set[str] = set()
    placed = []
    for message in messages:
        known.update(call["id"] for call in message.get("tool_calls", []))
        is_lone = message["role"] == "tool" and message.get("tool_call_id") not in known
        placed.append(as_plain_result(message) if is_lone else message)
    return placed


def with_system(messages: list[Message], traits: TemplateTraits) -> list[Message]:
    """Instructions that the template refuses or loses are said by the user."""
    is_first_shown = traits.takes_system and (
        traits.keeps_system_behind_results or (bool(messages) and messages[-1]["role"] == "user")
    )
    placed: list[Message] = []
    for index, message in enumerate(messages):
        takes = traits.takes_late_system if index else is_first_shown
        is_refused = message["role"] == "system" and not takes
        placed.append(_said("user", message["content"]) if is_refused else message)
    return placed


def in_turns(messages: list[Message], traits: TemplateTraits) -> list[Message]:
    """Messages that one role says one after the other as one, and what is missing between two put there, where the
    template wants turns."""
    if not traits.takes_turns_in_a_row:
        messages = _joined(messages)
    if not traits.takes_assistant_first:
        messages = _begun_by_user(messages)
    if not traits.takes_user_behind_results:
        messages = _with_acknowledgements(messages)
    return messages


def _joined(messages: Sequence[Message]) -> list[Message]:
    turns: list[Message] = []
    for message in messages:
        last = turns[-1] if turns else {}
        is_same = message["role"] == last.get("role") and message["role"] in ("user", "assistant")
        if is_same and not last.get("tool_calls"):
            texts = [text for text in (last["content"], message["content"]) if text]
            turns[-1] = last | message | {"content": "\n\n".join(texts)}
        else:
            turns.append(message)
    return turns


def _begun_by_user(messages: list[Message]) -> list[Message]:
    num_leading = 1 if messages and messages[0]["role"] == "system" else 0
    if len(messages) == num_leading or messages[num_leading]["role"] != "assistant":
        return messages
    return [*messages[:num_leading], _said("user", ""), *messages[num_leading:]]


def _with_acknowledgements(messages: Sequence[Message]) -> list[Message]:
    """The user speaks behind something that the assistant said, calls and their results left out."""
    turns: list[Message] = []
    last_role = ""
    for message in messages:
        is_call_or_result = message["role"] == "tool" or bool(message.get("tool_calls"))
        if message["role"] == last_role == "user" and turns[-1]["role"] != "user":
            turns.append(_said("assistant", _ACKNOWLEDGED))
        turns.append(message)
        if not is_call_or_result:
            last_role = message["role"]
    return turns


def _said(role: str, text: str) -> Message:
    return {"role": role, "content": text}
