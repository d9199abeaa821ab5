"""Who guesses how many next tokens for whom: from a sequence's own text, or by the draft model. No tensors here.

What a guess is worth is told from what steps and guesses cost and how many came true, row by row (`drafts`); whether
that holds is measured for the engine as a whole (`draft_watch`). Nothing that is guessed decides what is answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from mlx_manager.engine.batch import Batch, DraftRow, Sample, Segment
from mlx_manager.engine.blocks import num_blocks_for
from mlx_manager.engine.draft_ledger import DraftLedger
from mlx_manager.engine.draft_watch import DraftSource, DraftWatch
from mlx_manager.engine.drafts import Drafter, ModelDrafts, RowDrafts, StepCosts, gain_s
from mlx_manager.engine.pacing import StepPacer
from mlx_manager.engine.sequence import Sequence

_MOST_READ_ROWS = 8
"""Tokens that the draft model lacks are read as decode rows up to so many, as a chunk of a prompt from there on."""
_FIRST_MODEL_RATE = 0.7
_FIRST_REST, _MOST_REST = 32, 128
"""Tokens that a new answer has before the draft model is given its prompt, where it did not pay for the last ones."""
_SMOOTHING = 0.02


@dataclass
class DraftCounters:
    """Guesses that were run, and those of them that came true. Totals."""

    num_drafted: int = 0
    num_accepted: int = 0


class Guesser(Protocol):
    """A draft model as the engine knows it; `draft_model` is the real one."""

    @property
    def arena_bytes(self) -> int:
        """Bytes that its keys and values hold on the device."""
        ...

    @property
    def max_context(self) -> int:
        """The longest text that it knows positions for, in tokens."""
        ...

    def guess(self, batch: Batch) -> dict[int, tuple[int, ...]] | None:
        """Do what `batch.draft_rows` ask for; the guesses, by segment of the batch.

        None where values were not finite; then all that it has is forgotten.
        """
        ...

    def trim(self) -> None:
        """Give its arena back to the device."""
        ...


@dataclass(frozen=True)
class Draft:
    """What is guessed behind the known tokens of one sequence."""

    token_ids: tuple[int, ...]
    """Zeros where the draft model is still to guess them."""
    source: DraftSource


class Drafting:
    """Decides on the drafts of every sequence. `ledger` is there where there is a draft model."""

    def __init__(
        self,
        max_tokens: int,
        pacer: StepPacer,
        *,
        new_drafter: Callable[[list[int], int], Drafter] = Drafter,
        ledger: DraftLedger | None = None,
        max_model_tokens: int = 0,
    ) -> None:
        self.ledger = ledger
        self._max_model_tokens = max_model_tokens
        """The longest text that the draft model knows positions for."""
        self.watch = DraftWatch()
        self.counters = {source: DraftCounters() for source in DraftSource}
        self._max_tokens = max_tokens
        self._pacer = pacer
        self._new_drafter = new_drafter
        self._model_rate = _FIRST_MODEL_RATE
        """Of the guesses for all sequences: what the next one begins with."""
        self._first_rest = 0
        """Tokens of a new answer before the draft model is asked for it."""
        self._model_fault = ""
        """Why the draft model is not asked any more; "" while it may be."""
        self._num_asking = 0
        """Rows of the step being scheduled that the draft model guesses for; those share its passes."""
        self._num_sharing = 1
        """The same of the step before, as the best guess at how many share the next passes."""
        self._missing_room = 0
        """Tokens that the draft model may still be given in this step, beside one for each guess."""

    @property
    def sources(self) -> tuple[DraftSource, ...]:
        """Where guesses come from here; empty where none are made."""
        if not self._max_tokens:
            return ()
        return (DraftSource.TEXT,) if self.ledger is None else tuple(DraftSource)

    def off_reason(self, source: DraftSource) -> str:
        """Why guesses of `source` are not run now, for people; "" while they may be."""
        fault = self._model_fault if source is DraftSource.MODEL else ""
        return fault or self.watch.reason(source)

    def attend(self, seq: Sequence) -> None:
        """Guess for a sequence from now on; its first token is known."""
        has_model = self.ledger is not None and seq.inputs is None
        text = self._new_drafter(seq.token_ids, self._max_tokens)
        model = ModelDrafts(self._max_tokens, self._model_rate, len(seq.token_ids) + self._first_rest)
        seq.drafts = RowDrafts(text, model if has_model else None)

    def begin_step(self) -> None:
        """A step is being scheduled."""
        self._missing_room = self._pacer.max_step_tokens
        self._num_sharing, self._num_asking = max(1, self._num_asking), 0

    def expects(self, running: Iterable[Sequence], num_rows: int) -> bool:
        """Whether a guess is worth its row in the next step, so that the tokens before it are better read first."""
        costs = self._pacer.costs
        if costs is None or not self._max_tokens:
            return False
        may_text, may_model = (self._may(source, num_rows) for source in DraftSource)
        for seq in running:
            drafts = seq.drafts
            if drafts is None:
                continue
            if may_text and drafts.text.num_worth(costs, num_rows) and drafts.text.guess(1):
                return True
            if may_model and self._num_asked(seq, drafts, costs, num_rows):
                return True
        return False

    def draft(self, seq: Sequence, num_rows: int, most: int) -> Draft | None:
        """At most `most` guesses behind the tokens of `seq`, which are all known, in a step of `num_rows` rows."""
        costs, drafts = self._pacer.costs, seq.drafts
        if costs is None or drafts is None or most < 1:
            return None
        guessed: list[int] = []
        if self._may(DraftSource.TEXT, num_rows):
            num_worth = min(drafts.text.num_worth(costs, num_rows), most)
            guessed = drafts.text.guess(num_worth) if num_worth > 0 else []
        num_asked = 0
        if self._may(DraftSource.MODEL, num_rows):
            num_asked = min(self._num_asked(seq, drafts, costs, num_rows), most)
        if num_asked and not (guessed and self._is_text_better(drafts, len(guessed), num_asked, costs, num_rows)):
            return Draft((0,) * num_asked, DraftSource.MODEL)
        return Draft(tuple(guessed), DraftSource.TEXT) if guessed else None

    def ask_model(self, ledger: DraftLedger, seq: Sequence, segment: int, num_guesses: int) -> DraftRow:
        """What the draft model is to do for `seq`, whose blocks are there for all of it: guess, or, where it lacks more
        tokens than one step has room for, only be given some."""
        self._num_asking += 1
        end = len(seq.token_ids)
        start = ledger.num_filled(seq.block_table, end - 1)
        last = min(end, start + 1 + self._missing_room)
        if last < end:
            num_guesses = 0
        self._missing_room -= last - start - 1
        ledger.fill(seq.block_table, start, last + max(0, num_guesses - 1))
        is_short = last - start <= _MOST_READ_ROWS
        missing = Segment(
            seq_id=seq.seq_id,
            start=start,
            token_ids=tuple(seq.token_ids[start:last]),
            source_row=None,
            block_table=tuple(seq.block_table[: num_blocks_for(last)]),
            num_drafted=last - start - 1 if is_short else 0,
        )
        return DraftRow(segment, missing, num_guesses)

    def distrust_model(self) -> None:
        """Values of the draft model were not finite: it is asked no more, whatever else it may have to say."""
        self._model_fault = "it computed values that are not finite"
        if self.ledger is not None:
            self.ledger.forget()

    def learn(self, batch: Batch, num_true: Mapping[int, int], running: Mapping[int, Sequence]) -> None:
        """`num_true` guesses of each drafted segment of `batch` came true."""
        by_model = {row.segment for row in batch.draft_rows if row.num_guesses}
        pays: list[bool] = []
        for index, segment in enumerate(batch.segments):
            if not segment.num_drafted:
                continue
            true = num_true.get(index, 0)
            counters = self.counters[DraftSource.MODEL if index in by_model else DraftSource.TEXT]
            counters.num_drafted += segment.num_drafted
            counters.num_accepted += true
            if index not in by_model:
                continue
            seq = running.get(segment.seq_id)
            if seq is not None and seq.drafts is not None and seq.drafts.model is not None:
                for came_true in (*[1] * true, *[0] * (true < segment.num_drafted)):
                    self._model_rate += _SMOOTHING * (came_true - self._model_rate)
                costs, num_rows = self._pacer.costs, batch.num_decode_tokens
                if costs is not None:
                    costs = _shared(costs, len(by_model))
                pays.append(seq.drafts.model.learn(segment.num_drafted, true, costs, num_rows, len(seq.token_ids)))
        if any(pays):
            self._first_rest = 0
        elif pays:
            self._first_rest = min(max(2 * self._first_rest, _FIRST_REST), _MOST_REST)

    def observe(self, batch: Batch, num_true: int, wall_s: float) -> None:
        """A step of decode rows alone took `wall_s` from the tokens before it to its own, guessing included."""
        num_rows = batch.num_decode_tokens
        if not (self._max_tokens and wall_s > 0):
            return
        if not batch.num_drafted_tokens:
            if not batch.draft_rows:
                self.watch.observe_plain(num_rows, wall_s)
            return
        if is_given_prompts(batch):
            return  # that happens once in an answer, and says nothing of the steps behind it
        source = DraftSource.MODEL if batch.draft_rows else DraftSource.TEXT
        self.watch.observe_drafted(source, num_rows, num_rows + num_true, wall_s)

    def _num_asked(self, seq: Sequence, drafts: RowDrafts, costs: StepCosts, num_rows: int) -> int:
        num_tokens = len(seq.token_ids)
        if drafts.model is None or num_tokens + self._max_tokens > self._max_model_tokens:
            return 0
        return drafts.model.num_worth(_shared(costs, self._num_sharing), num_rows, num_tokens)

    def _may(self, source: DraftSource, num_rows: int) -> bool:
        is_fit = source is DraftSource.TEXT or not self._model_fault
        return is_fit and self.watch.may(source, num_rows)

    def _is_text_better(
        self, drafts: RowDrafts, num_guessed: int, num_asked: int, costs: StepCosts, num_rows: int
    ) -> bool:
        if drafts.model is None:
            return True
        value_s, pass_s = costs.step_s / max(1, num_rows), costs.draft_pass_s / self._num_sharing
        by_text = gain_s(drafts.text.rate, num_guessed, value_s, costs.row_s)
        return by_text >= gain_s(drafts.model.rate, num_asked, value_s, costs.row_s + pass_s)


def _shared(costs: StepCosts, num_asked: int) -> StepCosts:
    """The costs for one of so many rows that the draft model guesses for in the same passes."""
    return replace(costs, draft_pass_s=costs.draft_pass_s / num_asked)


def is_given_prompts(batch: Batch) -> bool:
    """Whether the draft model is given more of some sequence than the last few tokens."""
    return any(row.missing.num_tokens > _MOST_READ_ROWS for row in batch.draft_rows)


def with_draft(segment: Segment, sample: Sample, draft: Draft, block_table: list[int]) -> tuple[Segment, list[Sample]]:
    """A decode segment with guesses behind its token, and a sample for each of its positions in place of `sample`."""
    guesses = draft.token_ids
    end = segment.end + len(guesses)
    drafted = replace(
        segment,
        token_ids=(*segment.token_ids, *guesses),
        block_table=tuple(block_table[: num_blocks_for(end)]),
        num_drafted=len(guesses),
    )
    samples = [
        replace(
            sample,
            output_index=sample.output_index + index,
            num_before_end=len(guesses) - index,
            draft=guesses[index - 1] if index else None,
        )
        for index in range(len(guesses) + 1)
    ]
    return drafted, samples


def with_guesses(batch: Batch, guesses: Mapping[int, tuple[int, ...]]) -> Batch:
    """`batch` with what the draft model guessed, by segment, in the places that were left for it."""
    segments, samples = list(batch.segments), list(batch.samples)
    for index, guessed in guesses.items():
        own = segments[index]
        segments[index] = replace(own, token_ids=(*own.token_ids[: -len(guessed)], *guessed))
    place: Counter[int] = Counter()
    for row, sample in enumerate(batch.samples):
        if sample.segment in guesses:
            if sample.draft is not None:
                samples[row] = replace(sample, draft=guesses[sample.segment][place[sample.segment] - 1])
            place[sample.segment] += 1
    return replace(batch, segments=tuple(segments), samples=tuple(samples))


def without_drafts(batch: Batch) -> Batch:
    """`batch` without the guesses that were left to the draft model, which made none after all."""
    asked = {row.segment for row in batch.draft_rows if row.num_guesses}
    segments = tuple(_undrafted(one) if index in asked else one for index, one in enumerate(batch.segments))
    kept = [one for one in batch.samples if one.segment not in asked or one.draft is None]
    samples = tuple(replace(one, num_before_end=0) if one.segment in asked else one for one in kept)
    return replace(batch, segments=segments, samples=samples, draft_rows=())


def _undrafted(segment: Segment) -> Segment:
    end = segment.end - segment.num_drafted
    return replace(
        segment,
        token_ids=segment.token_ids[: -segment.num_drafted],
        block_table=segment.block_table[: num_blocks_for(end)],
        slot_table=None if segment.slot_table is None else segment.slot_table[: num_blocks_for(end)],
        num_drafted=0,
    )
