"""Guesses at the next tokens of a sequence, from what its own text said before (prompt lookup, Saxena 2023).

A draft costs rows in a pass that reads the weights anyway. The engine chooses a token for every position of it as it
would without, and keeps those up to the first that differs from the draft: what comes out is token for token the same,
greedy or seeded. No tensors here.
"""

from __future__ import annotations

from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass

_LENGTHS = (3, 2)
"""Of the last tokens that are looked for earlier in the text; the longest match counts."""
_TOKEN_BITS = 32
_SMOOTHING = 0.15
_FIRST_RATE = 0.5
"""How many guesses are taken to come true before any was seen."""


@dataclass(frozen=True)
class StepCosts:
    """What the pacer has learned: seconds of a step of the rows that decode, and of one more row in it."""

    step_s: float
    row_s: float


class Drafter:
    """The guesses for one sequence. Whether they come true is also watched while none is run, which costs nothing."""

    def __init__(self, token_ids: AbstractSequence[int], max_tokens: int) -> None:
        self.rate = _FIRST_RATE
        """Part of the guesses that came true lately."""
        self._max_tokens = max_tokens
        self._token_ids = list(token_ids)
        self._ends: dict[int, tuple[int, int | None]] = {}
        """By its tokens as one number, where a piece of text ended last, and before that. Some 200 bytes a token."""
        for end in range(len(self._token_ids)):
            self._enter(end + 1)

    def observe(self, token_id: int) -> None:
        """The sequence goes on with `token_id`; learn from whether that was the guess."""
        guess = self.guess(1)
        if guess:
            self.rate += _SMOOTHING * ((guess[0] == token_id) - self.rate)
        self._token_ids.append(token_id)
        self._enter(len(self._token_ids))

    def guess(self, num_tokens: int) -> list[int]:
        """Up to `num_tokens` that followed the last time the text ended like this; empty where it never did."""
        for length in _LENGTHS:
            ends = self._ends.get(_as_number(self._token_ids[-length:]))
            if ends is not None and ends[1] is not None:
                return self._token_ids[ends[1] : ends[1] + num_tokens]
        return []

    def num_worth(self, costs: StepCosts | None, num_rows: int) -> int:
        """How long a draft pays in a step of `num_rows` rows; 0 while costs are not known.

        A token that comes true is worth a row's share of a step; the i-th of a draft comes true with the rate's i-th
        power, and each costs a row.
        """
        if costs is None:
            return 0
        value_s = costs.step_s / max(1, num_rows)
        best, best_s, gain_s, chance = 0, 0.0, 0.0, 1.0
        for length in range(1, self._max_tokens + 1):
            chance *= self.rate
            gain_s += chance * value_s - costs.row_s
            if gain_s > best_s:
                best, best_s = length, gain_s
        return best

    def _enter(self, end: int) -> None:
        for length in _LENGTHS:
            if end >= length:
                piece = _as_number(self._token_ids[end - length : end])
                last = self._ends.get(piece)
                self._ends[piece] = (end, None if last is None else last[0])


def _as_number(token_ids: list[int]) -> int:
    number = len(token_ids)
    for token_id in token_ids:
        number = number << _TOKEN_BITS | token_id
    return number
