"""The backend that answers through a provider that speaks Anthropic's Messages."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from mlx_manager.backends.cloud import CloudBackend
from mlx_manager.ir import ChatPrompt, GenerationRequest, Message, Role, Thinking
from mlx_manager.protocols.anthropic.client_request import DEFAULT_MAX_TOKENS, MESSAGES_PATH, render_request
from mlx_manager.protocols.anthropic.client_stream import MessageDecoder
from mlx_manager.protocols.anthropic.signature import is_ours

_VERSION = "2023-06-01"
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 24576, "xhigh": 32768, "max": 32768}
"""Tokens of thinking for the words of other dialects."""
_LEAST_BUDGET = 1024


class AnthropicBackend(CloudBackend):
    """Sends conversations as all models of the provider take them, older ones too."""

    models_path = "models?limit=1000"

    def _headers(self, key: str | None) -> dict[str, str]:
        return {"anthropic-version": _VERSION} | ({"x-api-key": key} if key else {})

    def _render(self, request: GenerationRequest) -> tuple[str, dict[str, Any]]:
        return MESSAGES_PATH, render_request(_as_taken(request), provider=self.name)

    def _decoder(self, request: GenerationRequest) -> MessageDecoder:
        return MessageDecoder()


def _as_taken(request: GenerationRequest) -> GenerationRequest:
    if not isinstance(request.prompt, ChatPrompt):
        return request
    prompt = request.prompt
    system = tuple(message for message in prompt.messages if message.role is Role.SYSTEM)
    # not every model takes a system message in the middle of a conversation
    messages = (*system, *(_signed(message) for message in prompt.messages if message.role is not Role.SYSTEM))
    thinking = _within_bounds(prompt.thinking, request.sampling.max_tokens or DEFAULT_MAX_TOKENS)
    return replace(request, prompt=replace(prompt, messages=messages, thinking=thinking))


def _signed(message: Message) -> Message:
    """Only what this provider signed may be sent back; what another model thought is not its to remember."""
    if message.reasoning_signature and not is_ours(message.reasoning_signature):
        return message
    return replace(message, reasoning="", reasoning_signature="")


def _within_bounds(thinking: Thinking, max_tokens: int) -> Thinking:
    """An effort as a budget, which all models understand that think."""
    if thinking.is_adaptive or not thinking.is_enabled:
        return thinking
    wanted, effort = thinking.budget_tokens, thinking.effort
    if wanted is None:
        wanted, effort = _BUDGETS.get(thinking.effort or "medium", _BUDGETS["medium"]), None
    budget = min(max(wanted, _LEAST_BUDGET), max_tokens - 1)
    # without room to think in, the answer is short either way
    return replace(thinking, budget_tokens=budget, effort=effort) if budget >= _LEAST_BUDGET else Thinking()
