"""What a request asks for, in the terms of the engine: how long its answer may be, and how its tokens are drawn."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_manager.engine.prefix import salted
from mlx_manager.engine.sequence import SamplingParams
from mlx_manager.errors import ContextLengthExceeded, InvalidRequest
from mlx_manager.ir import GenerationRequest, Sampling

_NUM_MOST_SEEDS = 2**63


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What holds for all requests of one model."""

    max_context: int
    """The longest prompt and completion together, in tokens."""
    default_max_tokens: int | None
    """Of an answer whose request says nothing; None: what the context leaves."""
    vocabulary_size: int
    sampling_defaults: Mapping[str, Any]
    """The model's own."""

    def max_output_tokens(self, sampling: Sampling, num_prompt_tokens: int) -> int:
        """The most tokens that an answer may have. Raises `ContextLengthExceeded`."""
        room = self.max_context - num_prompt_tokens
        if room < 1:
            raise ContextLengthExceeded(
                f"the prompt has {num_prompt_tokens} tokens, and the context holds {self.max_context} with at least "
                "one left for the answer; shorten the prompt",
                param="messages",
            )
        wanted = sampling.max_tokens or self.default_max_tokens
        if sampling.max_tokens is not None and sampling.max_tokens > room and not sampling.fits_context:
            raise ContextLengthExceeded(
                f"the prompt has {num_prompt_tokens} tokens and max_tokens asks for {sampling.max_tokens} more, "
                f"{num_prompt_tokens + sampling.max_tokens} together; the context holds {self.max_context}",
                param="max_tokens",
            )
        return min(wanted or room, room)

    def check_bias(self, sampling: Sampling) -> None:
        """Raises `InvalidRequest` for tokens that the model does not have."""
        for token_id in sampling.logit_bias:
            if not 0 <= token_id < self.vocabulary_size:
                raise InvalidRequest(
                    f"logit_bias names token {token_id}; the vocabulary has {self.vocabulary_size}", param="logit_bias"
                )

    def params(self, request: GenerationRequest) -> tuple[SamplingParams, ...]:
        """One set of parameters per choice: what was asked, else the model's own defaults, else OpenAI's.

        Choice i draws with seed + i, so that equal choices are as rare as the distribution makes them.
        """
        sampling = request.sampling
        seed = secrets.randbelow(_NUM_MOST_SEEDS) if sampling.seed is None else sampling.seed

        def default(asked: Any, name: str, otherwise: float) -> Any:
            own = self.sampling_defaults.get(name)
            return asked if asked is not None else own if isinstance(own, int | float) else otherwise

        return tuple(
            SamplingParams(
                temperature=float(default(sampling.temperature, "temperature", 1.0)),
                top_p=float(default(sampling.top_p, "top_p", 1.0)),
                top_k=int(default(sampling.top_k, "top_k", 0)),
                min_p=float(default(sampling.min_p, "min_p", 0.0)),
                seed=seed + choice,
                repetition_penalty=float(default(sampling.repetition_penalty, "repetition_penalty", 1.0)),
                presence_penalty=sampling.presence_penalty,
                frequency_penalty=sampling.frequency_penalty,
                logit_bias=tuple(sampling.logit_bias.items()),
                num_top_logprobs=sampling.top_logprobs if sampling.logprobs else None,
            )
            for choice in range(request.num_choices)
        )


def prefix_ids(request: GenerationRequest, prompt: tuple[int, ...], known: tuple[int, ...] | None) -> tuple[int, ...]:
    """What the prefix cache knows a prompt by, where that is not its tokens: by the images in it, and the salt."""
    if request.cache_salt:
        return salted(prompt if known is None else known, request.cache_salt)
    return known or ()
