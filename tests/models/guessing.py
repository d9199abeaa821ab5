"""A drafter that knows the answer, and is wrong now and then."""

from __future__ import annotations

from mlx_manager.engine.drafts import Drafter, StepCosts


class Oracle(Drafter):
    """Guesses what `answers` say follows a prompt, every third token of them wrong, in drafts of changing length."""

    def __init__(
        self,
        token_ids: list[int],
        max_tokens: int,
        answers: dict[tuple[int, ...], tuple[int, ...]],
        vocabulary_size: int,
    ) -> None:
        super().__init__([], max_tokens)
        self._text = token_ids
        self._vocabulary_size = vocabulary_size
        prompt = next(prompt for prompt in answers if tuple(token_ids[: len(prompt)]) == prompt)
        self._all = [*prompt, *answers[prompt]]

    def observe(self) -> None:
        """It knows already."""

    def guess(self, num_tokens: int) -> list[int]:
        start = len(self._text)
        return [
            (token + 1) % self._vocabulary_size if index % 3 == 2 else token
            for index, token in enumerate(self._all[start : start + num_tokens], start)
        ]

    def num_worth(self, costs: StepCosts | None, num_rows: int) -> int:
        return len(self._text) % 4 + 1
