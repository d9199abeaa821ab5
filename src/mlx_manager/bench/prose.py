"""Plain English of a wanted length, different for every seed, so that no server has seen its beginning before."""

from __future__ import annotations

import random

_ADJECTIVES = (
    "old quiet bright narrow cold golden broken distant clever gentle heavy strange silver wild careful".split()
)
_NOUNS = (
    "captain river garden teacher mountain letter bridge market window forest doctor island village engine "
    "painter harbor tower winter road castle farmer library storm kitchen lamp soldier valley ship clock field"
).split()
_VERBS = "carried watched followed remembered crossed painted repaired visited studied guarded opened missed".split()
_PLACES = "before the morning,after the rain,near the water,in the city,under the trees,behind the house".split(",")

_WORDS_PER_SENTENCE = 10


class Prose:
    """Writes passages and requests from one seed. `tokens_per_word` is the served model's, measured."""

    def __init__(self, seed: int, tokens_per_word: float = 1.15) -> None:
        self._random = random.Random(seed)
        self._tokens_per_word = tokens_per_word

    def passage(self, num_tokens: int) -> str:
        """Sentences of about `num_tokens` tokens in all, one sentence at least."""
        num_words = num_tokens / self._tokens_per_word
        num_sentences = max(1, round(num_words / _WORDS_PER_SENTENCE))
        return " ".join(self._sentence() for _ in range(num_sentences))

    def story_request(self, num_tokens: int) -> str:
        """A request of about `num_tokens` tokens, 30 at least, that a model answers at length."""
        hero, place = self._random.sample(_NOUNS, 2)
        passage = self.passage(num_tokens - 24)
        return (
            f"{passage} Go on from here: write a very long and detailed story about the "
            f"{self._random.choice(_ADJECTIVES)} {hero} and the {place}."
        )

    def question(self) -> str:
        """A short request, about 20 tokens, that a model answers at length."""
        adjective, noun = self._random.choice(_ADJECTIVES), self._random.choice(_NOUNS)
        return f"Describe the {adjective} {noun} and its whole history in great detail, from the first day on."

    def arrivals_s(self, num_requests: int, rate_per_s: float) -> list[float]:
        """Start times of a Poisson process, in seconds from its first arrival."""
        times = [0.0]
        while len(times) < num_requests:
            times.append(times[-1] + self._random.expovariate(rate_per_s))
        return times

    def _sentence(self) -> str:
        first, second = self._random.sample(_NOUNS, 2)
        one, two = self._random.sample(_ADJECTIVES, 2)
        verb, place = self._random.choice(_VERBS), self._random.choice(_PLACES)
        return f"The {one} {first} {verb} the {two} {second} {place}."
