"""Whether guessing ahead makes the engine faster, measured: tokens a second of steps with drafts and of plain ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

_DECAY = 0.9
_MARGIN = 0.98
"""Steps with drafts may be so much slower than plain ones before they stop."""
_MIN_DRAFTED_STEPS = 8
_MIN_PLAIN_STEPS = 3
_FIRST_REST, _MOST_REST = 64, 2048
"""Plain steps until it is tried again."""
_NUM_UNTESTED_STEPS = 32
_NUM_TESTED_STEPS = 160
"""Steps with drafts before a few plain ones are measured, for the first time and again."""
_NUM_LOOKS = 4


class DraftSource(StrEnum):
    """Where guesses come from."""

    TEXT = "own text"
    MODEL = "draft model"


@dataclass
class _Speed:
    """Tokens and seconds of the last steps, later ones counting more."""

    tokens: float = 0.0
    seconds: float = 0.0
    num_steps: int = 0

    def add(self, num_tokens: int, seconds: float) -> None:
        self.tokens = _DECAY * self.tokens + num_tokens
        self.seconds = _DECAY * self.seconds + seconds
        self.num_steps += 1

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass
class _Trial:
    """Drafts of one source beside about so many rows."""

    speed: _Speed = field(default_factory=_Speed)
    rest: int = _FIRST_REST
    num_resting: int = 0
    """Plain steps until it is tried again; 0: it is on."""
    reason: str = ""


class DraftWatch:
    """Compares by number of rows, since a pass with more of them leaves less to gain. Rows are counted in powers of
    two."""

    def __init__(self) -> None:
        self._plain: dict[int, _Speed] = {}
        self._trials: dict[tuple[DraftSource, int], _Trial] = {}
        self._num_drafted_in_row = 0
        """Steps with drafts since the last plain one."""
        self._num_looking = 0
        self._is_warm = False
        """Whether the last step was a plain one: the first of several has nothing launched ahead of it."""

    def may(self, source: DraftSource, num_rows: int) -> bool:
        """Whether guesses of `source` may be run in a step of `num_rows` rows."""
        trial = self._trials.get((source, num_rows.bit_length()))
        return self._num_looking == 0 and (trial is None or trial.num_resting == 0)

    def reason(self, source: DraftSource) -> str:
        """Why guesses of `source` are not run now, for people; "" while they may be."""
        resting = [trial for (its, _), trial in self._trials.items() if its is source and trial.num_resting]
        return resting[-1].reason if resting else ""

    def observe_plain(self, num_rows: int, step_s: float) -> None:
        """A step of `num_rows` rows without drafts, and nothing else in it."""
        self._num_drafted_in_row = 0
        self._num_looking = max(0, self._num_looking - 1)
        rows = num_rows.bit_length()
        if self._is_warm:
            self._plain.setdefault(rows, _Speed()).add(num_rows, step_s)
        self._is_warm = True
        for (_, its_rows), trial in self._trials.items():
            if its_rows == rows and trial.num_resting:
                trial.num_resting -= 1
                if trial.num_resting == 0:
                    trial.speed, trial.reason = _Speed(), ""

    def observe_drafted(self, source: DraftSource, num_rows: int, num_tokens: int, step_s: float) -> None:
        """A step of `num_rows` rows that brought `num_tokens`; `step_s` is all that it took, guessing included."""
        self._is_warm = False
        rows = num_rows.bit_length()
        trial = self._trials.setdefault((source, rows), _Trial())
        trial.speed.add(num_tokens, step_s)
        plain = self._plain.get(rows)
        is_known = plain is not None and plain.num_steps >= _MIN_PLAIN_STEPS
        self._num_drafted_in_row += 1
        if self._num_drafted_in_row >= (_NUM_TESTED_STEPS if is_known else _NUM_UNTESTED_STEPS):
            self._num_looking = _NUM_LOOKS
        if plain is None or not is_known or trial.speed.num_steps < _MIN_DRAFTED_STEPS:
            return
        drafted, without = trial.speed.tokens_per_s, plain.tokens_per_s
        if drafted < _MARGIN * without:
            trial.reason = f"{drafted:.3g} tokens/s with guesses and {without:.3g} without, with {num_rows} running"
            trial.num_resting, trial.rest = trial.rest, min(2 * trial.rest, _MOST_REST)
        elif trial.speed.num_steps >= _FIRST_REST:
            trial.rest = _FIRST_REST
