"""The account of one request, as plain values: what was asked, by whom, how it went and what it cost."""

from __future__ import annotations

import msgspec

from mlx_manager.ir.prefix import PrefixReason

_MAX_LENGTH = 512
"""Of what is printed: the longest name of a model that is read."""


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One request, accounted for. Durations count from its arrival; None where it did not get that far."""

    request_id: str
    """The X-Request-Id of the HTTP request."""
    answer_id: str | None = None
    """None where the request was refused before it was read."""
    arrived_unix_s: float = 0.0
    trace_id: str = ""
    path: str = ""
    """Of the URL, without query."""
    dialect: str | None = None
    """openai or anthropic; None where it did not come over /v1."""
    user: str | None = None
    key: str | None = None
    """The name of the API key."""
    key_id: int | None = None
    client_address: str | None = None
    user_agent: str | None = None
    model: str | None = None
    """As the client named it; None where the request could not be read."""
    target: str | None = None
    """The backend that answered, or failed last."""
    target_kind: str | None = None
    """local, or the kind of the provider that it is."""
    target_model: str | None = None
    """The model that was asked of it."""
    route: str | None = None
    """The route that led there; None where none matched."""
    num_attempts: int = 0
    """Backends that were asked."""
    fallback_reason: str | None = None
    """The code of the error for which the first backend was given up, where another was asked after it."""
    cost_usd: float | None = None
    """What a provider charges for the answer, where its price is known."""
    status: int
    error_code: str | None = None
    priority: str | None = None
    num_choices: int | None = None
    queue_s: float | None = None
    """Until the prompt was admitted and work on it began."""
    ttft_s: float | None = None
    """Until the first text."""
    duration_s: float | None = None
    num_prompt_tokens: int | None = None
    num_cached_tokens: int | None = None
    num_completion_tokens: int | None = None
    num_reasoning_tokens: int | None = None
    prefix_reason: PrefixReason | None = None
    """Why no more than `num_cached_tokens` of the prompt was found in the prefix cache."""
    num_agreed_tokens: int | None = None
    """Leading tokens of the prompt that the closest earlier conversation shares."""

    @property
    def inter_token_s(self) -> float | None:
        """Mean time between two tokens of one choice, once the first is there; None where there were not two."""
        if self.ttft_s is None or self.duration_s is None or not self.num_completion_tokens:
            return None
        num_gaps = self.num_completion_tokens / (self.num_choices or 1) - 1
        return (self.duration_s - self.ttft_s) / num_gaps if num_gaps > 0 else None


def printable(sent: str, max_length: int = _MAX_LENGTH) -> str:
    """What a client sent as one line of at most `max_length` characters, whatever is not printable replaced."""
    return "".join(char if char.isprintable() else "?" for char in sent[:max_length])
