"""Bounds of one conversation, whatever dialect it came in."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_manager.errors import InvalidRequest
from mlx_manager.ir import ChatPrompt, Prompt


@dataclass(frozen=True)
class PromptLimits:
    """The defaults are those of the settings."""

    max_messages: int = 10_000
    max_tools: int = 1_000

    def check(self, prompt: Prompt) -> None:
        """Raise `InvalidRequest` for a conversation beyond them."""
        if not isinstance(prompt, ChatPrompt):
            return
        if len(prompt.messages) > self.max_messages:
            raise InvalidRequest(
                f"The conversation has {len(prompt.messages)} messages, and {self.max_messages} are accepted (setting "
                "max_messages): shorten it.",
                param="messages",
            )
        if len(prompt.tools) > self.max_tools:
            raise InvalidRequest(
                f"The request has {len(prompt.tools)} tools, and {self.max_tools} are accepted (setting max_tools).",
                param="tools",
            )
