"""What the operator set for one model, filled into requests that say nothing about it."""

from __future__ import annotations

import msgspec

from mlx_manager.catalog import ModelOverrides
from mlx_manager.ir import ChatPrompt, GenerationRequest, Message, Priority, Role, TextContent

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens")


def with_overrides(request: GenerationRequest, overrides: ModelOverrides) -> GenerationRequest:
    """`request` with the model's own defaults. What the request says itself always wins.

    A priority of normal counts as none: a request cannot be told from one that asks for it.
    """
    unsaid = {name: getattr(overrides, name) for name in _SAMPLING if getattr(request.sampling, name) is None}
    changes: dict[str, object] = {}
    if any(value is not None for value in unsaid.values()):
        changes["sampling"] = msgspec.structs.replace(request.sampling, **unsaid)
    if overrides.priority is not None and request.priority is Priority.NORMAL:
        changes["priority"] = Priority(overrides.priority)
    if overrides.system_prompt is not None and isinstance(request.prompt, ChatPrompt):
        changes["prompt"] = with_system_prompt(request.prompt, overrides.system_prompt)
    return msgspec.structs.replace(request, **changes) if changes else request


def with_system_prompt(prompt: ChatPrompt, text: str | None) -> ChatPrompt:
    """`prompt` with the system message `text`, unless there is none to add or it has one of its own."""
    if text is None or any(message.role is Role.SYSTEM for message in prompt.messages):
        return prompt
    system = Message(role=Role.SYSTEM, content=(TextContent(text),))
    return msgspec.structs.replace(prompt, messages=(system, *prompt.messages))
