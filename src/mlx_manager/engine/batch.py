"""What the scheduler hands the runner and gets back: frozen values, no live objects, no tensors."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_manager.engine.block_store import StoredBlock, StoredState
from mlx_manager.engine.sequence import SamplingParams


@dataclass(frozen=True, slots=True)
class Segment:
    """One sequence's share of a pass: consecutive positions, beginning at `start`.

    The keys and values of positions 0 to `start - 1` are in the blocks of `block_table` already, except behind every
    layer's window, where the table has holes (see `windows`).
    """

    seq_id: int
    start: int
    token_ids: tuple[int, ...]
    """The input tokens; `(0,)` where the one token is still on the device, see `source_row`."""
    source_row: int | None
    """Row of the previous step's samples that holds the input token; None where the host knows it."""
    block_table: tuple[int, ...]
    inputs: object | None = None
    """As the sequence's."""
    num_drafted: int = 0
    """The last so many tokens are guesses (see `drafts`): a decode row, and further ones that may be in vain."""
    slot_table: tuple[int, ...] | None = None
    """Where the windowed layers have the same blocks, in an arena of their own, with holes where their windows have
    passed; None where all layers share one arena (see `residency`)."""
    first_id: int = 0
    """What stands for the sequence's first token where it tells sequences apart whose tokens are the same (see
    `prefix.salted`)."""

    def table(self, window: int | None) -> tuple[int, ...]:
        """The table for layers with this window, or without one."""
        return self.block_table if window is None or self.slot_table is None else self.slot_table

    @property
    def num_tokens(self) -> int:
        """Tokens of this segment."""
        return len(self.token_ids)

    @property
    def is_decode(self) -> bool:
        """Whether the segment goes on with one token of an answer."""
        return self.num_tokens - self.num_drafted == 1

    @property
    def end(self) -> int:
        """One past the last position of this segment."""
        return self.start + len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Sample:
    """One token to choose, from the logits of a position of `segment`: the last one, or `num_before_end` before it.

    Several samples may name one segment: the forks of a request choose their first tokens from the same logits.
    """

    seq_id: int
    segment: int
    params: SamplingParams
    output_index: int
    """How many output tokens the sequence has before this one; with the seed it fixes the random draw."""
    history: tuple[int, ...] | None
    """Prompt and output as far as the host knows them, where penalties need them; else None."""
    num_prompt_tokens: int
    num_before_end: int = 0
    draft: int | None = None
    """The token means something only where the one chosen before it was this guess."""
    forced_token: int | None = None
    """The token, whatever the model says."""


@dataclass(frozen=True, slots=True)
class DraftRow:
    """What the draft model does for one segment before the batch is run."""

    segment: int
    """Of the batch. Its drafted tokens mean nothing yet where `num_guesses` is above 0."""
    missing: Segment
    """Tokens that the draft model has not been given yet; where it is to guess, the last is the sequence's last."""
    num_guesses: int
    """0: it is only given tokens."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One step: everything the runner needs to know."""

    segments: tuple[Segment, ...]
    samples: tuple[Sample, ...]
    copies: tuple[tuple[int, int], ...]
    """(from, to) blocks to copy before anything is written: copy-on-write and partial prefix hits."""
    scrubs: tuple[int, ...]
    """Blocks to zero before anything else: a failed sequence may have left values that are not finite."""
    ended: tuple[int, ...]
    """Sequences that lost their place since the last step: what a runner keeps of them besides blocks can go."""
    saves: tuple[tuple[int, int], ...]
    """(sequence, checkpoint): after this step, keep a copy of the sequence's state under that id."""
    restores: tuple[tuple[int, int], ...]
    """(sequence, checkpoint): before this step, the sequence's state becomes that copy."""
    dropped: tuple[int, ...]
    """Checkpoints that can go, after `restores`."""
    num_blocks: int
    """The arena has to hold blocks 0 to this - 1."""
    spills: tuple[tuple[int, bytes], ...] = ()
    """(block, key): to be read before anything is written, and kept on disk."""
    loads: tuple[tuple[int, StoredBlock], ...] = ()
    """(block, its contents from disk): to be written after `scrubs` and before `copies`; the last of a block counts."""
    draft_rows: tuple[DraftRow, ...] = ()
    """For the draft model, before anything else: what it guesses takes its place in `segments` and `samples`."""
    state_spills: tuple[tuple[int, bytes], ...] = ()
    """(checkpoint, key): to be read before anything is dropped, and kept on disk; one that is not made yet is not."""
    state_loads: tuple[tuple[int, StoredState], ...] = ()
    """(checkpoint, a state from disk): to be kept under that id before `restores`."""
    num_slots: int = 0
    """Where windowed layers have an arena of their own (see `residency`), it has to hold slots 0 to this - 1."""
    slot_copies: tuple[tuple[int, int], ...] = ()
    """As `copies`, in that arena."""
    slot_scrubs: tuple[int, ...] = ()
    """As `scrubs`, in that arena."""

    @property
    def is_empty(self) -> bool:
        """Whether a runner has nothing to do, not even to move or to forget something."""
        is_told = self.scrubs or self.slot_scrubs or self.ended or self.loads or self.state_loads or self.dropped
        return not (self.segments or is_told)

    @property
    def num_tokens(self) -> int:
        """Rows of the forward pass."""
        return sum(segment.num_tokens for segment in self.segments)

    @property
    def num_decode_tokens(self) -> int:
        """Rows that continue a running answer."""
        return sum(1 for segment in self.segments if segment.is_decode)

    @property
    def num_drafted_tokens(self) -> int:
        """Rows that are guesses: nothing can be scheduled behind them before they are read."""
        return sum(segment.num_drafted for segment in self.segments)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A chosen token. Log-probabilities are natural logarithms, of the model's own distribution."""

    token_id: int
    is_finite: bool
    """False when the logits were not finite: the token means nothing."""
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    """(token, log-probability), likeliest first."""


@dataclass(frozen=True, slots=True)
class StepOutput:
    """The tokens chosen in one step, in the order of `Batch.samples`."""

    chosen: tuple[Chosen, ...]
