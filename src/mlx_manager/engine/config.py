"""How an engine is set up: its bounds, and how far it works ahead."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from mlx_manager.engine.windows import WindowSlots


class Lookahead(Enum):
    """What an engine does for the next step before it has read the tokens of the last one."""

    NONE = "none"
    LAUNCH = "launch"
    """Schedules it, builds its graph and starts it, so that a GPU never waits for the host."""
    OVERLAP = "overlap"
    """The same for MLX's CPU backend, where starting blocks until nearly all of the step is done: a second thread reads
    the tokens of the last one meanwhile and hands them on."""


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """The engine's bounds."""

    num_blocks: int
    max_batch_size: int = 32
    max_step_tokens: int = 512
    priority_ageing_s: float = 5.0
    has_prefix_cache: bool = True
    lookahead: Lookahead = Lookahead.NONE
    num_checkpoints: int | None = None
    """Copies of recurrent states to keep; None where the model has no recurrent layers."""
    max_draft_tokens: int = 0
    """Most tokens guessed ahead of one sequence (see `drafts`); 0: none. Not with recurrent layers, whose states cannot
    be taken back, nor where every layer has a window."""
    window: int | None = None
    """The longest window where every attention layer has one; None where one has none."""
    slots: WindowSlots | None = None
    """An arena of their own for the layers with windows, beside others without; None: all layers share one."""
    drafting_fault: str = ""
    """Why nothing is guessed although it was asked for, in words; "" where it is, or was not."""
