"""Leaving out the oldest of a conversation that does not fit the model, for clients who ask for that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from msgspec.structs import replace

from mlx_manager.errors import UnsupportedParameter
from mlx_manager.ir import ChatPrompt, GenerationRequest, Message, Role, TokenizeRequest, Tokens

_SHARE_FOR_ANSWER = 8
"""Where the request does not say how long the answer may be, room for it is this part of the context."""


async def truncated(
    request: GenerationRequest, count: Callable[[TokenizeRequest], Awaitable[Tokens]]
) -> tuple[GenerationRequest, int]:
    """`request` without the oldest turns that do not fit, and how many messages those are.

    A turn is what a user says with everything up to the next user's; calls stay with their answers. Instructions before
    the first turn stay, and so does the last turn, even when it is too long by itself. `count` tokenizes a prompt; it
    is asked once, and where the prompt does not fit, once more for each halving of the turns.
    """
    prompt = request.prompt
    if not isinstance(prompt, ChatPrompt):
        return request, 0

    async def num_tokens(of: ChatPrompt) -> tuple[int, int | None]:
        tokens = await count(TokenizeRequest(request_id=request.request_id, model=request.model, prompt=of))
        return len(tokens.token_ids), tokens.max_context

    try:
        num, max_context = await num_tokens(prompt)
    except UnsupportedParameter:
        # a provider answers, and nobody here knows what fits
        return request, 0
    wanted = request.sampling.max_tokens
    if max_context is None or num + (wanted or 1) <= max_context:
        return request, 0
    most = max_context - (wanted or max_context // _SHARE_FOR_ANSWER)
    starts = _turns(prompt.messages)
    fewest, enough = 0, len(starts) - 1
    while fewest < enough:
        middle = (fewest + enough) // 2
        num, _ = await num_tokens(_without(prompt, starts, middle))
        if num <= most:
            enough = middle
        else:
            fewest = middle + 1
    shorter = _without(prompt, starts, enough)
    return replace(request, prompt=shorter), len(prompt.messages) - len(shorter.messages)


def _turns(messages: Sequence[Message]) -> list[int]:
    """Where turns begin; at least one does."""
    num_leading = next((i for i, message in enumerate(messages) if message.role is not Role.SYSTEM), len(messages))
    later = [i for i in range(num_leading + 1, len(messages)) if messages[i].role is Role.USER]
    return [num_leading, *later]


def _without(prompt: ChatPrompt, starts: Sequence[int], num_turns: int) -> ChatPrompt:
    kept = (*prompt.messages[: starts[0]], *prompt.messages[starts[num_turns] :])
    return replace(prompt, messages=kept)
