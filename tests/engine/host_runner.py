"""A runner for the engine that computes on the host, see `host_arena`."""

from __future__ import annotations

from mlx_manager.engine.batch import Batch, Chosen, StepOutput
from mlx_manager.engine.runner import Launched
from tests.engine.host_arena import HostArena


class HostLaunched(Launched):
    """A step that runs when it is started, and gives its tokens out when they are read."""

    def __init__(self, batch: Batch, arena: HostArena, previous: HostLaunched | None) -> None:
        super().__init__(batch, None, [])
        self._arena = arena
        self._previous = previous
        self._tokens: list[int | None] | None = None

    @property
    def tokens(self) -> list[int | None]:
        """The tokens of the step, which must have been started."""
        assert self._tokens is not None, "a step was read, or built upon, that never started"
        return self._tokens

    def start(self) -> None:
        """Run the step."""
        assert self._tokens is None, "a step was started twice"
        self._tokens = self._arena.run(self.batch, [] if self._previous is None else self._previous.tokens)

    def read(self) -> StepOutput:
        """The tokens of the step."""
        return StepOutput(tuple(Chosen(0 if token is None else token, token is not None) for token in self.tokens))

    def abandon(self) -> bool:
        """Nothing has been done yet, so there is nothing to undo."""
        return self._tokens is None


class HostRunner:
    """Implements `Runner` over a `HostArena`."""

    arena_bytes = 0

    def __init__(self, arena: HostArena) -> None:
        self.arena = arena
        self.num_launches = 0

    def trim(self) -> None:
        """There is no memory to give back."""

    def build(self, batch: Batch, previous: Launched | None, masks: object | None = None) -> HostLaunched:
        """Note the step."""
        self.num_launches += 1
        return HostLaunched(batch, self.arena, previous if isinstance(previous, HostLaunched) else None)
