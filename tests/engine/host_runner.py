"""A runner for the engine that computes on the host, see `host_arena`."""

from __future__ import annotations

from mlx_manager.engine.batch import Batch, Chosen, StepOutput
from mlx_manager.engine.runner import Launched
from tests.engine.host_arena import HostArena


class HostLaunched(Launched):
    """A step whose tokens are known at once, and given out when they are read."""

    def __init__(self, batch: Batch, tokens: list[int | None]) -> None:
        super().__init__(batch, None)
        self.tokens = tokens

    def read(self) -> StepOutput:
        """The tokens of the step."""
        return StepOutput(tuple(Chosen(0 if token is None else token, token is not None) for token in self.tokens))


class HostRunner:
    """Implements `Runner` over a `HostArena`."""

    arena_bytes = 0

    def __init__(self, arena: HostArena) -> None:
        self.arena = arena
        self.num_launches = 0

    def launch(self, batch: Batch, previous: Launched | None, masks: object | None = None) -> HostLaunched:
        """Run the step."""
        self.num_launches += 1
        tokens = previous.tokens if isinstance(previous, HostLaunched) else []
        return HostLaunched(batch, self.arena.run(batch, tokens))
