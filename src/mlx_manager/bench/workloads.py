"""The workloads, as data: who says what when. How they are run is the runner's business."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlx_manager.bench.prose import Prose


@dataclass(frozen=True)
class Scale:
    """How much to ask for. The defaults suit a small model on two CPU cores; a bigger machine can take more."""

    max_tokens: int = 64
    """Completion length of each request."""
    rate_per_s: float = 0.5
    """Arrivals a second in the Poisson workload."""
    num_arrivals: int = 12
    """Requests of the Poisson workload."""


@dataclass(frozen=True)
class Conversation:
    """One client: it starts, asks, waits for the whole answer, asks the next. Most ask once."""

    questions: tuple[str, ...]
    max_tokens: int
    system: str | None = None
    start_s: float = 0.0
    after_tokens: int | None = None
    """Starts once every other conversation has received this many pieces of text, instead of at `start_s`."""


@dataclass(frozen=True)
class Workload:
    """A named mix of conversations. `plan` writes it out, anew for every prose."""

    name: str
    description: str
    plan: Callable[[Prose, Scale], list[Conversation]]


def _at_once(num_streams: int) -> Callable[[Prose, Scale], list[Conversation]]:
    def plan(prose: Prose, scale: Scale) -> list[Conversation]:
        return [Conversation((prose.story_request(60),), scale.max_tokens) for _ in range(num_streams)]

    return plan


_RAGGED_TOKENS = (1000, 30, 600, 60, 300, 30, 120, 60)


def _ragged(prose: Prose, scale: Scale) -> list[Conversation]:
    return [
        Conversation((prose.story_request(num_tokens),), scale.max_tokens, start_s=0.05 * place)
        for place, num_tokens in enumerate(_RAGGED_TOKENS)
    ]


def _shared_prompt(prose: Prose, scale: Scale) -> list[Conversation]:
    system = prose.passage(700)
    return [Conversation((prose.question(),), scale.max_tokens, system=system) for _ in range(8)]


def _chat(prose: Prose, scale: Scale) -> list[Conversation]:
    questions = (prose.story_request(120), *(prose.question() for _ in range(4)))
    return [Conversation(questions, scale.max_tokens)]


def _poisson(prose: Prose, scale: Scale) -> list[Conversation]:
    lengths = (40, 200, 80, 400)
    arrivals = prose.arrivals_s(scale.num_arrivals, scale.rate_per_s)
    return [
        Conversation((prose.story_request(lengths[place % len(lengths)]),), scale.max_tokens, start_s=start_s)
        for place, start_s in enumerate(arrivals)
    ]


def _interrupted(prose: Prose, scale: Scale) -> list[Conversation]:
    # long enough that they still run when the long prompt's first token comes
    running = [Conversation((prose.story_request(60),), max(96, 2 * scale.max_tokens)) for _ in range(4)]
    intruder = Conversation((prose.story_request(1000),), 4, after_tokens=max(16, scale.max_tokens // 2))
    return [*running, intruder]


WORKLOADS: tuple[Workload, ...] = (
    Workload("single", "one stream", _at_once(1)),
    Workload("four", "4 streams at once", _at_once(4)),
    Workload("eight", "8 streams at once", _at_once(8)),
    Workload("sixteen", "16 streams at once", _at_once(16)),
    Workload("ragged", "8 prompts of 30 to 1,000 tokens, 50 ms apart", _ragged),
    Workload("shared", "8 requests at once that share a 700-token system prompt", _shared_prompt),
    Workload("chat", "one chat of five turns", _chat),
    Workload("poisson", "requests that arrive at random", _poisson),
    Workload("interrupted", "4 running streams while a 1,000-token prompt prefills", _interrupted),
)
