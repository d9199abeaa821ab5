"""The step that the scheduler is putting together. No tensors here."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from mlx_manager.engine.batch import DraftRow, Sample, Segment
from mlx_manager.engine.block_store import StoredBlock, StoredState


@dataclass
class Step:
    """The step being put together."""

    segments: list[Segment] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)
    slot_copies: dict[int, tuple[int, int]] = field(default_factory=dict)
    """The same in the windowed layers' arena, by the block that is copied to (see `residency`)."""
    scheduled: set[int] = field(default_factory=set)
    """Ids of the sequences in the step."""
    saves: list[tuple[int, int]] = field(default_factory=list)
    restores: list[tuple[int, int]] = field(default_factory=list)
    saved_keys: set[bytes] = field(default_factory=set)
    """Prefix keys of `saves`: copies are made after the step, so nothing in it can go on from these."""
    loads: list[tuple[int, StoredBlock]] = field(default_factory=list)
    state_loads: list[tuple[int, StoredState]] = field(default_factory=list)
    restored: set[int] = field(default_factory=set)
    """Ids of the sequences that some of `loads` are for."""
    written: set[int] = field(default_factory=set)
    """Blocks that this step writes: copies are made before, so nothing in these can be copied yet."""
    draft_rows: list[DraftRow] = field(default_factory=list)

    def drop_copies(self, targets: AbstractSet[int]) -> None:
        """Make no copies to these blocks after all."""
        self.copies = [copy for copy in self.copies if copy[1] not in targets]
        for target in targets:
            self.slot_copies.pop(target, None)
