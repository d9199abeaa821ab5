"""The parameters of a conversation, as they are kept with it."""

from __future__ import annotations

import msgspec

from mlx_manager.ir import Sampling, Thinking


class ChatParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen; None and empty leave it to the model's profile, then to the server."""

    system_prompt: str = ""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    is_thinking: bool | None = None
    tool_servers: tuple[str, ...] = ()
    """Those whose tools are offered."""
    allowed_tools: tuple[str, ...] = ()
    """Server and tool as one text: those that may be called without asking."""

    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            min_p=self.min_p,
            top_k=self.top_k,
            max_tokens=self.max_tokens,
            seed=self.seed,
        )

    def thinking(self) -> Thinking:
        """Whether the model is to think."""
        return Thinking(is_enabled=self.is_thinking)
