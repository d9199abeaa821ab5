"""What the worker's main thread asks of a loaded model, whatever kind it is of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from mlx_manager.ipc import EngineStats, FromWorker, RequestFailed
from mlx_manager.ir import DetokenizeRequest, TokenizeRequest, Tokens


class ServedModel(Protocol):
    """A model being served: requests in, answers out, one step at a time, all from the main thread."""

    request_type: type[Any]
    """The only requests that `submit` takes; others are refused before."""
    publish: Callable[[FromWorker], None]
    """Sends what a step brings, as it comes. Set by the main thread."""

    @property
    def has_work(self) -> bool:
        """Whether `step` has anything to do."""
        ...

    def submit(self, request: Any) -> RequestFailed | None:
        """Take a request. Returns its failure when it is refused."""
        ...

    def tokenize(self, request: TokenizeRequest | DetokenizeRequest) -> Tokens | None:
        """The tokens of a prompt, or the text of tokens; None where a later step publishes them.

        Raises `MlxManagerError`.
        """
        ...

    def abort(self, request_id: str) -> None:
        """Forget a request before the next step."""
        ...

    def step(self, take_in: Callable[[], object] | None = None) -> None:
        """Do a bounded piece of work and publish what it brought. `take_in` takes in what arrives meanwhile."""
        ...

    def tidy(self) -> bool:
        """Do a bounded piece of what can wait until there is nothing else to do. False: none is left."""
        ...

    def close(self) -> None:
        """Finish what is on its way to the disk. Nothing is called after it."""
        ...

    def trim(self) -> None:
        """Give up what is kept for requests to come. Only while there is no work."""
        ...

    def stats(self) -> EngineStats:
        """The books now."""
        ...
