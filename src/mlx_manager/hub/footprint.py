"""What serving a model takes of memory, as a value: its parts, and the sums that the fit check and the pool need."""

from __future__ import annotations

import msgspec

BLOCK_TOKENS = 32
"""Tokens per block of the arena, as the engine has it."""
_INITIAL_BLOCKS = 64
_MIN_BLOCKS = 16
"""Blocks that the check at load needs, whatever the budget."""


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes, all of them; tokens where a name says so."""

    weights_bytes: int
    kv_bytes_per_token: int
    """Keys and values of one token in all attention layers."""
    sliding_bytes_per_token: int
    """The part of `kv_bytes_per_token` that lies in sliding-window layers."""
    window_tokens: int | None
    """The longest window of those layers."""
    held_tokens: int | None = None
    """Where every attention layer has a window: the most tokens of one sequence that are kept at once, however long it
    is. None: the arena keeps them for a sequence's whole length, in sliding layers too as long as one is not."""
    windowed_tokens: int | None = None
    """Where only some attention layers have a window: the most tokens of one sequence that those keep at once, in an
    arena of their own. None: they keep as many as the other layers."""
    state_bytes_per_sequence: int
    """Recurrent layers: convolution and state, the same for every length."""
    checkpoint_share: float
    """Copies of states for prefix hits: at most this part of the KV budget, beside the arena."""
    activation_bytes: int
    """One step of max_step_tokens on top of everything that stays, as far as it does not depend on the context."""
    activation_bytes_per_context_token: int
    """What each token of the longest context adds to that."""
    process_bytes: int
    """The worker process with its libraries and the tokenizer, without a model; with what one that sees keeps of
    images."""
    max_context: int
    """Tokens that the model and the options allow."""
    dtype: str
    """What is computed in, for people: "float32", "bfloat16, quantized"."""
    is_known: bool
    """False where what the model keeps per token or sequence is a guess; `notes` say why."""
    notes: tuple[str, ...] = ()

    @property
    def fixed_bytes(self) -> int:
        """What is taken before the first request."""
        return self.weights_bytes + self.process_bytes

    @property
    def block_bytes(self) -> int:
        """One block of the arena."""
        return BLOCK_TOKENS * self.kv_bytes_per_token

    def with_draft(self, draft: Footprint) -> Footprint:
        """Together with a draft model, which has as many blocks in an arena of its own. Their steps take turns."""
        return msgspec.structs.replace(
            self,
            weights_bytes=self.weights_bytes + draft.weights_bytes,
            kv_bytes_per_token=self.kv_bytes_per_token + draft.kv_bytes_per_token,
            activation_bytes=max(self.activation_bytes, draft.activation_bytes),
            activation_bytes_per_context_token=max(
                self.activation_bytes_per_context_token, draft.activation_bytes_per_context_token
            ),
            is_known=self.is_known and draft.is_known,
            notes=(*self.notes, *draft.notes),
        )

    def step_bytes(self, context_tokens: int) -> int:
        """The activations of a step, with one request `context_tokens` long in it."""
        return self.activation_bytes + self.activation_bytes_per_context_token * self._kept_tokens(context_tokens)

    def cache_bytes(self, num_requests: int, context_tokens: int) -> int:
        """Keys, values and states of `num_requests` requests, each `context_tokens` long, with nothing shared."""
        arena_bytes = num_requests * num_blocks_for(self._kept_tokens(context_tokens)) * self.block_bytes
        if self.windowed_tokens is not None:
            num_passed = max(0, num_blocks_for(context_tokens) - num_blocks_for(self.windowed_tokens))
            arena_bytes -= num_requests * num_passed * BLOCK_TOKENS * self.sliding_bytes_per_token
        return int(arena_bytes * (1 + self.checkpoint_share)) + num_requests * self.state_bytes_per_sequence

    def total_bytes(self, num_requests: int, context_tokens: int) -> int:
        """The most that the worker takes while it serves these requests, with a KV budget for just them."""
        return self.fixed_bytes + self.step_bytes(context_tokens) + self.cache_bytes(num_requests, context_tokens)

    def arena_bytes(self, num_tokens: int, kv_budget_bytes: int) -> int:
        """What the arena holds once `num_tokens` tokens were kept: it grows by doubling, up to the budget."""
        if not self.block_bytes:
            return 0
        most = max(kv_budget_bytes // self.block_bytes, _MIN_BLOCKS)
        grown = _INITIAL_BLOCKS
        while grown < num_blocks_for(num_tokens):
            grown *= 2
        return min(grown, most) * self.block_bytes

    def settled_bytes(self, kv_budget_bytes: int, max_batch_size: int) -> int:
        """What the worker comes to with time: the prefix cache lets the arena grow to its budget, whatever the load."""
        num_tokens = kv_budget_bytes // self.kv_bytes_per_token if self.kv_bytes_per_token else self.max_context
        return (
            self.fixed_bytes
            + self.step_bytes(min(self.max_context, num_tokens))
            + self.arena_bytes(num_tokens, kv_budget_bytes)
            + int(kv_budget_bytes * self.checkpoint_share)
            + max_batch_size * self.state_bytes_per_sequence
        )

    def largest_context(self, memory_bytes: int, num_requests: int) -> int:
        """The most tokens that each of `num_requests` requests can have at once in `memory_bytes`; 0: none."""
        if self.total_bytes(num_requests, 1) > memory_bytes:
            return 0
        fits, fails = 1, self.max_context + 1
        while fails - fits > 1:
            middle = (fits + fails) // 2
            if self.total_bytes(num_requests, middle) <= memory_bytes:
                fits = middle
            else:
                fails = middle
        return fits

    def most_requests(self, memory_bytes: int, context_tokens: int) -> int:
        """How many requests of `context_tokens` tokens fit into `memory_bytes` at once."""
        rest = memory_bytes - self.fixed_bytes - self.step_bytes(context_tokens)
        each = self.cache_bytes(1, context_tokens)
        return max(0, rest // each) if each else 0

    def _kept_tokens(self, context_tokens: int) -> int:
        """How many of a sequence's tokens have keys and values at once."""
        return context_tokens if self.held_tokens is None else min(context_tokens, self.held_tokens)


def num_blocks_for(num_tokens: int) -> int:
    """Blocks that hold `num_tokens` tokens."""
    return -(-num_tokens // BLOCK_TOKENS)
