"""How many prefill tokens a step may carry so that running answers do not stall. No tensors here."""

from __future__ import annotations

from mlx_manager.engine.drafts import StepCosts

_SMOOTHING = 0.2
_MIN_CHUNK_TOKENS = 16
_MIN_CROWD = 2
"""Prompts that wait; a single one, however long, slows others no more than `max_slowdown` says."""
_FIRST_ROW_SHARE = 0.1
_LEAST_ROW_SHARE = 0.01
"""Of a step: what a drafted row is taken to cost at first, and at least."""
_FIRST_PASS_SHARE = 0.25
"""Of a step: what a pass of the draft model is taken to cost at first."""


class StepPacer:
    """Learns from the steps it sees what a decode row and a prefill token cost, and bounds the prefill by it.

    While answers run, a step with prefill should take at most `max_slowdown` times the step without it. Where several
    prompts wait, and at least half as many as answers run, the running ones lose no more in few long steps than in many
    slow ones, and the waiting ones begin far sooner: prefill may then add `max_stall_s` seconds to a step. Until both
    costs have been seen, chunks begin small and the first measurements correct them.
    """

    def __init__(self, max_step_tokens: int, max_slowdown: float = 2.0, max_stall_s: float = 1.0) -> None:
        if max_step_tokens < 1:
            raise ValueError("a step needs room for at least one token")
        self.max_step_tokens = max_step_tokens
        self._max_slowdown = max_slowdown
        self._max_stall_s = max_stall_s
        self._decode_step_s: float | None = None
        self._prefill_token_s: float | None = None
        self._drafted_row_s: float | None = None
        self._draft_pass_s: float | None = None

    def prefill_budget(self, num_decode_tokens: int, num_prompts: int = 1) -> int:
        """Prefill tokens that the next step may carry beside `num_decode_tokens` running answers.

        `num_prompts` are those that wait for it, in prefill or in the queue.
        """
        room = self.max_step_tokens - num_decode_tokens
        if num_decode_tokens == 0:
            return room
        if self._decode_step_s is None or self._prefill_token_s is None:
            return max(0, min(room, 2 * _MIN_CHUNK_TOKENS))
        fair_s = (self._max_slowdown - 1) * self._decode_step_s
        is_crowded = num_prompts >= _MIN_CROWD and 2 * num_prompts >= num_decode_tokens
        extra_s = max(fair_s, self._max_stall_s) if is_crowded else fair_s
        if extra_s >= room * self._prefill_token_s:
            return max(0, room)
        return min(room, max(int(extra_s / self._prefill_token_s), _MIN_CHUNK_TOKENS))

    @property
    def prefill_token_s(self) -> float | None:
        """Seconds that a prefill token costs, as far as learned."""
        return self._prefill_token_s

    @property
    def costs(self) -> StepCosts | None:
        """What has been learned so far; None before a step of decode rows alone was seen.

        What a drafted row costs is only known once there were some: until then it is taken to be a part of a step.
        """
        if self._decode_step_s is None:
            return None
        row_s = _FIRST_ROW_SHARE * self._decode_step_s if self._drafted_row_s is None else self._drafted_row_s
        pass_s = _FIRST_PASS_SHARE * self._decode_step_s if self._draft_pass_s is None else self._draft_pass_s
        return StepCosts(self._decode_step_s, row_s, pass_s)

    def observe_guessing(self, num_passes: int, guessing_s: float) -> None:
        """Learn from `num_passes` of the draft model, none of which was given a prompt."""
        if num_passes and guessing_s > 0:
            self._draft_pass_s = _blend(self._draft_pass_s, guessing_s / num_passes)

    def observe(
        self, *, num_decode_tokens: int, num_prefill_tokens: int, step_s: float, num_drafted_tokens: int = 0
    ) -> None:
        """Learn from a finished step. One that only tidied up, or that the clock could not time, teaches nothing."""
        if num_drafted_tokens:
            if num_prefill_tokens == 0 and self._decode_step_s is not None and step_s > 0:
                extra_s = max(step_s - self._decode_step_s, _LEAST_ROW_SHARE * num_drafted_tokens * self._decode_step_s)
                self._drafted_row_s = _blend(self._drafted_row_s, extra_s / num_drafted_tokens)
            return
        if step_s <= 0 or num_decode_tokens + num_prefill_tokens == 0:
            return
        if num_prefill_tokens == 0:
            self._decode_step_s = _blend(self._decode_step_s, step_s)
            return
        if num_prefill_tokens < _MIN_CHUNK_TOKENS:
            return
        if num_decode_tokens == 0:
            # Weights are read once whatever the rows: charging it all to the tokens is right for large chunks only.
            if num_prefill_tokens >= 8 * _MIN_CHUNK_TOKENS:
                self._prefill_token_s = _blend(self._prefill_token_s, step_s / num_prefill_tokens)
        elif self._decode_step_s is not None:
            extra_s = max(step_s - self._decode_step_s, 0.05 * step_s)
            self._prefill_token_s = _blend(self._prefill_token_s, extra_s / num_prefill_tokens)


def _blend(old: float | None, new: float) -> float:
    return new if old is None else (1 - _SMOOTHING) * old + _SMOOTHING * new
