"""The backend that answers through a provider that speaks Anthropic's Messages."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from mlx_manager.backends.cloud import CloudBackend
from mlx_manager.errors import ProviderFailed, UnsupportedParameter
from mlx_manager.ir import (
    ChatPrompt,
    DetokenizeRequest,
    GenerationRequest,
    Message,
    Role,
    Sampling,
    Thinking,
    TokenizeRequest,
    Tokens,
    ToolChoiceMode,
)
from mlx_manager.protocols.anthropic.client_request import (
    COUNT_PATH,
    DEFAULT_MAX_TOKENS,
    MESSAGES_PATH,
    render_count,
    render_request,
)
from mlx_manager.protocols.anthropic.client_stream import MessageDecoder
from mlx_manager.protocols.anthropic.signature import is_ours

_VERSION = "2023-06-01"
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 23808, "max": 23808}
"""Tokens of thinking for the words of other dialects. With room for the answer they fit all models that think."""
_LEAST_BUDGET = 1024
_LEAST_TOP_P = 0.95
"""While the model thinks."""


class AnthropicBackend(CloudBackend):
    """Sends conversations as all models of the provider take them, older ones too."""

    models_path = "models?limit=1000"
    own_dialects = ("messages",)

    def _headers(self, key: str | None) -> dict[str, str]:
        return {"anthropic-version": _VERSION} | ({"x-api-key": key} if key else {})

    def _headers_of(self, request: GenerationRequest) -> dict[str, str]:
        betas = request.passed_on.betas
        return {"anthropic-beta": ",".join(betas)} if betas else {}

    def _render(self, request: GenerationRequest) -> tuple[str, dict[str, Any]]:
        return MESSAGES_PATH, render_request(_as_taken(request, self.name), provider=self.name)

    async def tokenize(self, request: TokenizeRequest | DetokenizeRequest) -> Tokens:
        """How many tokens a conversation has. Raises `UnsupportedParameter` for who wants to know which."""
        if not isinstance(request, TokenizeRequest) or not request.wants_count_only:
            return await super().tokenize(request)
        asked = GenerationRequest(request_id=request.request_id, model=request.model, prompt=request.prompt)
        body = render_count(_as_taken(asked, self.name), provider=self.name)
        answer = await self._upstream.post(COUNT_PATH, body)
        try:
            return Tokens(token_ids=(), text="", num_counted=int(answer["input_tokens"]))
        except (KeyError, TypeError, ValueError):
            raise ProviderFailed(f"{self.name} counted tokens in another form than Anthropic's.") from None

    def _decoder(self, request: GenerationRequest) -> MessageDecoder:
        return MessageDecoder()


def _as_taken(request: GenerationRequest, provider: str) -> GenerationRequest:
    if not isinstance(request.prompt, ChatPrompt):
        return request
    prompt = request.prompt
    system = tuple(message for message in prompt.messages if message.role is Role.SYSTEM)
    # not every model takes a system message in the middle of a conversation
    messages = (*system, *(_signed(message) for message in prompt.messages if message.role is not Role.SYSTEM))
    thinking, max_tokens = _within_bounds(prompt.thinking, request.sampling.max_tokens)
    if thinking.is_enabled and not thinking.is_adaptive:
        _check_beside_thinking(request.sampling, prompt, provider)
    return replace(
        request,
        prompt=replace(prompt, messages=messages, thinking=thinking),
        sampling=replace(request.sampling, max_tokens=max_tokens),
    )


def _signed(message: Message) -> Message:
    """Only what this provider signed may be sent back; what another model thought is not its to remember."""
    if message.reasoning_signature and not is_ours(message.reasoning_signature):
        return message
    return replace(message, reasoning="", reasoning_signature="")


def _within_bounds(thinking: Thinking, max_tokens: int | None) -> tuple[Thinking, int]:
    """An effort as a budget, which all models understand that think; and the tokens of the whole answer.

    What is thought counts among those: half of them are left for the answer, and all that it has without thinking where
    the request does not bound them.
    """
    if thinking.is_adaptive or not thinking.is_enabled:
        return thinking, max_tokens or DEFAULT_MAX_TOKENS
    if thinking.budget_tokens is not None:
        total = max_tokens or DEFAULT_MAX_TOKENS + thinking.budget_tokens
        budget, effort = min(max(thinking.budget_tokens, _LEAST_BUDGET), total - 1), thinking.effort
    else:
        wanted, effort = _BUDGETS.get(thinking.effort or "medium", _BUDGETS["medium"]), None
        total = max_tokens or DEFAULT_MAX_TOKENS + wanted
        budget = min(wanted, total // 2) if max_tokens else wanted
    # without room to think in, the answer is short either way
    return replace(thinking, budget_tokens=budget, effort=effort) if budget >= _LEAST_BUDGET else Thinking(), total


def _check_beside_thinking(sampling: Sampling, prompt: ChatPrompt, provider: str) -> None:
    """What the dialect does not take together with thinking."""
    asked = {
        "temperature": sampling.temperature not in (None, 1),
        "top_p": sampling.top_p is not None and sampling.top_p < _LEAST_TOP_P,
        "top_k": bool(sampling.top_k),
        "tool_choice": prompt.tool_choice.mode is ToolChoiceMode.REQUIRED,
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise UnsupportedParameter(
                f"{provider} does not take this {name} while the model thinks: leave it out, or have it not think.",
                param=name,
            )
