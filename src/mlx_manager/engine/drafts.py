"""Guesses at the next tokens of a sequence: from its own text (prompt lookup, Saxena 2023), and what any are worth.

A draft costs rows in a pass that reads the weights anyway. The engine chooses a token for every position of it as it
would without, and keeps those up to the first that differs from the draft: what comes out is token for token the same,
greedy or seeded. No tensors here; who guesses how much is decided in `drafting`.
"""

from __future__ import annotations

from dataclasses import dataclass

_LENGTHS = (3, 2)
"""Of the last tokens that are looked for earlier in the text; the longest match counts."""
_TOKEN_BITS = 32
_SMOOTHING = 0.15
_FIRST_RATE = 0.5
"""How many guesses are taken to come true before any was seen."""
_NUM_TRIED = 2
"""Guesses of a draft that only finds out whether the draft model is worth it again."""
_FIRST_REST, _MOST_REST = 32, 512
"""Tokens of a sequence until it is tried again."""


@dataclass(frozen=True)
class StepCosts:
    """What the pacer has learned: seconds of a step of the rows that decode, and of one more row in it."""

    step_s: float
    row_s: float
    draft_pass_s: float = 0.0
    """Of one pass of the draft model: all of it from the pacer, a row's share of it where it is about one row."""


def num_worth(rate: float, most: int, value_s: float, cost_s: float) -> int:
    """How many guesses in a row pay, at most `most`.

    The i-th of a draft comes true with the rate's i-th power; then it saves `value_s`. Each costs `cost_s`.
    """
    best, best_s = 0, 0.0
    for length in range(1, most + 1):
        length_s = gain_s(rate, length, value_s, cost_s)
        if length_s > best_s:
            best, best_s = length, length_s
    return best


def gain_s(rate: float, length: int, value_s: float, cost_s: float) -> float:
    """Seconds that a draft of `length` guesses can be expected to save."""
    return sum(rate**place for place in range(1, length + 1)) * value_s - length * cost_s


class Drafter:
    """The guesses for one sequence. Whether they come true is also watched while none is run, which costs nothing.

    `token_ids` are the sequence's own, which grow.
    """

    def __init__(self, token_ids: list[int], max_tokens: int) -> None:
        self.rate = _FIRST_RATE
        """Part of the guesses that came true lately."""
        self._max_tokens = max_tokens
        self._token_ids = token_ids
        self._ends: dict[int, tuple[int, int | None]] = {}
        """By its tokens as one number, where a piece of text ended last, and before that. Some 200 bytes a token."""
        for end in range(len(token_ids)):
            self._enter(end + 1)

    def observe(self) -> None:
        """The sequence has one more token; learn from whether that was the guess."""
        end = len(self._token_ids)
        guess = self._found(1, end - 1)
        if guess:
            self.rate += _SMOOTHING * ((guess[0] == self._token_ids[-1]) - self.rate)
        self._enter(end)

    def guess(self, num_tokens: int) -> list[int]:
        """Up to `num_tokens` that followed the last time the text ended like this; empty where it never did."""
        return self._found(num_tokens, len(self._token_ids))

    def num_worth(self, costs: StepCosts | None, num_rows: int) -> int:
        """How long a draft pays in a step of `num_rows` rows; 0 while costs are not known.

        A token that comes true is worth a row's share of a step.
        """
        if costs is None:
            return 0
        return num_worth(self.rate, self._max_tokens, costs.step_s / max(1, num_rows), costs.row_s)

    def _found(self, num_tokens: int, end: int) -> list[int]:
        """What followed the last time the text ended as its first `end` tokens do."""
        for length in _LENGTHS:
            ends = self._ends.get(_as_number(self._token_ids[max(0, end - length) : end]))
            if ends is not None and ends[1] is not None:
                return self._token_ids[ends[1] : min(ends[1] + num_tokens, end)]
        return []

    def _enter(self, end: int) -> None:
        for length in _LENGTHS:
            if end >= length:
                piece = _as_number(self._token_ids[end - length : end])
                last = self._ends.get(piece)
                self._ends[piece] = (end, None if last is None else last[0])


class ModelDrafts:
    """Whether the draft model is asked for one sequence: not while that does not pay; then it is tried again later."""

    def __init__(self, max_tokens: int, rate: float, resume_at: int = 0) -> None:
        self.rate = rate
        """Part of the guesses that came true lately, of those with nothing but true ones before them."""
        self._max_tokens = max_tokens
        self._rest = _FIRST_REST
        self._resume_at = resume_at
        """It is not asked before there are so many tokens."""

    def num_worth(self, costs: StepCosts | None, num_rows: int, num_tokens: int) -> int:
        """How many guesses to ask for behind `num_tokens` tokens in a step of `num_rows` rows."""
        if costs is None or num_tokens < self._resume_at:
            return 0
        return self._num_paying(costs, num_rows) or min(_NUM_TRIED, self._max_tokens)

    def learn(self, num_guesses: int, num_true: int, costs: StepCosts | None, num_rows: int, num_tokens: int) -> bool:
        """The first `num_true` of a draft came true; what follows a wrong guess says nothing. Whether it pays."""
        for came_true in (*[1] * num_true, *[0] * (num_true < num_guesses)):
            self.rate += _SMOOTHING * (came_true - self.rate)
        if costs is None or self._num_paying(costs, num_rows):
            self._rest = _FIRST_REST
            return True
        self._resume_at = num_tokens + self._rest
        self._rest = min(2 * self._rest, _MOST_REST)
        return False

    def _num_paying(self, costs: StepCosts, num_rows: int) -> int:
        value_s = costs.step_s / max(1, num_rows)
        return num_worth(self.rate, self._max_tokens, value_s, costs.row_s + costs.draft_pass_s)


@dataclass
class RowDrafts:
    """Who guesses for one sequence."""

    text: Drafter
    model: ModelDrafts | None = None
    """None where there is no draft model, or the prompt holds more than tokens."""


def _as_number(token_ids: list[int]) -> int:
    number = len(token_ids)
    for token_id in token_ids:
        number = number << _TOKEN_BITS | token_id
    return number
