"""What an engine is asked, and what it answers: requests of token ids, and the tokens chosen for them."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlx_manager.engine.batch import Chosen
from mlx_manager.engine.sequence import SamplingParams, Sequence
from mlx_manager.engine.timeline import Timeline
from mlx_manager.ir import FinishReason, Priority


@dataclass(frozen=True, kw_only=True)
class EngineRequest:
    """A tokenized request. `params` holds one entry per choice, alike but for their seeds."""

    request_id: str
    prompt_token_ids: tuple[int, ...]
    params: tuple[SamplingParams, ...]
    max_output_tokens: int
    eos_token_ids: frozenset[int] = frozenset()
    priority: Priority = Priority.NORMAL
    arrival_s: float | None = None
    """When it came, on the engine's clock, by which it has its turn; None: now."""
    inputs: object | None = None
    """What stands in the prompt besides tokens; handed to the runner as it is."""
    prefix_ids: tuple[int, ...] = ()
    """What tells the prompt's positions apart where tokens do not: see `prefix.content_id` and `prefix.salted`."""
    is_forcible: bool = False
    """Whether tokens may be forced (see `Engine.force`); then none are guessed ahead."""


@dataclass(frozen=True)
class TokenEvent:
    """One more token of one choice. With `finish` set it is the choice's last.

    `is_end_token` marks an end-of-sequence token, whose text is no part of the answer.
    """

    request_id: str
    choice: int
    chosen: Chosen
    finish: FinishReason | None = None
    is_end_token: bool = False


@dataclass(frozen=True)
class RequestBroke:
    """The request cannot go on: its logits were not finite, or its grammar became too complex. It is over."""

    request_id: str
    reason: str


EngineEvent = TokenEvent | RequestBroke


@dataclass(frozen=True)
class RequestUsage:
    """Tokens of a request so far."""

    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int


@dataclass
class RunningRequest:
    """A request that an engine has, until it is forgotten."""

    sequences: list[Sequence]
    timeline: Timeline
    is_first_token_out: bool = field(default=False)
    is_admitted: bool = field(default=False)

    @property
    def usage(self) -> RequestUsage:
        leader = self.sequences[0]
        return RequestUsage(
            num_prompt_tokens=leader.num_prompt_tokens,
            num_cached_tokens=leader.num_cached_tokens,
            num_output_tokens=sum(len(seq.token_ids) - seq.num_prompt_tokens for seq in self.sequences),
        )
