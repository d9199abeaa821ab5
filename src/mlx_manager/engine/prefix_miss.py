"""Says why a prompt was not found further in the prefix cache. No tensors here.

The index knows only digests of what is still cached, so it cannot tell a prompt that differs from one that was evicted.
For that the tokens of the newest conversations are remembered beside it, whether their blocks are still there or not.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass

from msgspec.structs import replace

from mlx_manager.engine.blocks import BLOCK_SIZE
from mlx_manager.ir import PrefixReason, PrefixReport

_MAX_REMEMBERED = 64
_MAX_REMEMBERED_TOKENS = 262_144
"""A MiB of token ids; comparing a prompt with all of them takes well under a millisecond."""
_STRIDE = 256
"""Tokens compared at once."""


@dataclass(frozen=True)
class Lookup:
    """What the prefix cache gave for one prompt."""

    num_matched_tokens: int
    num_found_blocks: int
    """Leading full blocks that were there, with or without a state behind them."""
    has_cache: bool = True


@dataclass(frozen=True)
class _Remembered:
    token_ids: array[int]
    num_prompt_tokens: int
    is_ended: bool
    """Whether all of `token_ids` have been computed; else they are a prompt that is being worked on."""


@dataclass(frozen=True)
class Agreement:
    """The earlier conversation that shares the most leading tokens with a prompt."""

    num_tokens: int
    num_earlier_tokens: int
    """How long the earlier conversation is, and the prompt of it."""
    num_earlier_prompt_tokens: int
    is_ended: bool


class PrefixMemory:
    """The tokens of the newest sequences, prompts with their outputs; the oldest are dropped where there are too many.

    The newest one is kept whatever its length, so a context's worth of tokens bounds what is held beyond `max_tokens`.
    """

    def __init__(self, max_sequences: int = _MAX_REMEMBERED, max_tokens: int = _MAX_REMEMBERED_TOKENS) -> None:
        self._max_sequences = max_sequences
        self._max_tokens = max_tokens
        self._by_seq_id: OrderedDict[int, _Remembered] = OrderedDict()
        self._num_tokens = 0

    def __len__(self) -> int:
        return len(self._by_seq_id)

    @property
    def num_tokens(self) -> int:
        """Tokens held."""
        return self._num_tokens

    def begin(self, seq_id: int, prompt_token_ids: AbstractSequence[int]) -> None:
        """Work on a prompt begins."""
        self._put(seq_id, _Remembered(_packed(prompt_token_ids), len(prompt_token_ids), is_ended=False))

    def end(self, seq_id: int, token_ids: AbstractSequence[int], num_prompt_tokens: int) -> None:
        """A sequence gave its blocks up; `token_ids` are those of its tokens that were computed."""
        self._put(seq_id, _Remembered(_packed(token_ids), num_prompt_tokens, is_ended=True))

    def closest(self, token_ids: AbstractSequence[int]) -> Agreement | None:
        """The sequence that agrees with the most of `token_ids`; None where nothing is remembered.

        Of several that agree as far, one that has ended, then one that ends there, then one that differs in its answer
        (later prompts hold the same answer as text), then the newest.
        """
        wanted = _packed(token_ids)
        best: Agreement | None = None
        for earlier in self._by_seq_id.values():
            num_tokens = _common_length(earlier.token_ids, wanted)
            found = Agreement(
                num_tokens=num_tokens,
                num_earlier_tokens=len(earlier.token_ids),
                num_earlier_prompt_tokens=earlier.num_prompt_tokens,
                is_ended=earlier.is_ended,
            )
            if best is None or _rank(found) >= _rank(best):
                best = found
        return best

    def _put(self, seq_id: int, remembered: _Remembered) -> None:
        old = self._by_seq_id.pop(seq_id, None)
        if old is not None:
            self._num_tokens -= len(old.token_ids)
        self._by_seq_id[seq_id] = remembered
        self._num_tokens += len(remembered.token_ids)
        while len(self._by_seq_id) > 1 and (
            len(self._by_seq_id) > self._max_sequences or self._num_tokens > self._max_tokens
        ):
            _, oldest = self._by_seq_id.popitem(last=False)
            self._num_tokens -= len(oldest.token_ids)


def explain(token_ids: AbstractSequence[int], lookup: Lookup, memory: PrefixMemory) -> PrefixReport:
    """Why no more than `lookup` was found of the prompt `token_ids`."""
    num_prompt_tokens = len(token_ids)
    closest = memory.closest(token_ids)
    num_agreed_tokens = max(lookup.num_matched_tokens, closest.num_tokens if closest else 0)
    return PrefixReport(
        reason=_reason(num_prompt_tokens, lookup, closest),
        num_prompt_tokens=num_prompt_tokens,
        num_matched_tokens=lookup.num_matched_tokens,
        num_agreed_tokens=num_agreed_tokens,
    )


def place(report: PrefixReport, num_template_tokens: int) -> PrefixReport:
    """`report`, made more exact where it is known that so many leading tokens are the template's, not the client's."""
    if report.reason is not PrefixReason.TEXT or report.num_agreed_tokens > num_template_tokens:
        return report
    is_inside = report.num_agreed_tokens < num_template_tokens
    return replace(report, reason=PrefixReason.TEMPLATE if is_inside else PrefixReason.UNSEEN)


def _reason(num_prompt_tokens: int, lookup: Lookup, closest: Agreement | None) -> PrefixReason:
    num_matched = lookup.num_matched_tokens
    # The last token has to be computed in any case: its logits are what the answer begins with.
    num_most = num_prompt_tokens - 1
    if not lookup.has_cache:
        return PrefixReason.UNCACHED
    if num_matched >= num_most:
        return PrefixReason.COMPLETE
    if closest is None or closest.num_tokens < num_matched:
        return PrefixReason.FORGOTTEN if num_matched else PrefixReason.UNSEEN
    num_wanted = min(closest.num_tokens, num_most)
    if num_matched // BLOCK_SIZE < num_wanted // BLOCK_SIZE:
        return _missing_blocks(lookup, closest, num_wanted // BLOCK_SIZE)
    if num_wanted - num_matched > num_most - num_wanted:
        return PrefixReason.UNHASHED_TAIL
    return _difference(closest)


def _missing_blocks(lookup: Lookup, closest: Agreement, num_wanted_blocks: int) -> PrefixReason:
    if lookup.num_found_blocks >= num_wanted_blocks:
        return PrefixReason.NO_CHECKPOINT
    return PrefixReason.EVICTED if closest.is_ended else PrefixReason.PENDING


def _difference(closest: Agreement) -> PrefixReason:
    if closest.num_tokens == 0:
        return PrefixReason.UNSEEN
    if closest.num_tokens == closest.num_earlier_tokens:
        return PrefixReason.CONTINUED
    is_in_prompt = closest.num_tokens < closest.num_earlier_prompt_tokens
    return PrefixReason.TEXT if is_in_prompt else PrefixReason.ANSWER


def _packed(ids: AbstractSequence[int]) -> array[int]:
    """Ids in half the memory. Of those of images (see `prefix.content_id`) 31 bits are enough to say why."""
    return array("i", ids if min(ids, default=0) >= 0 else [each if each >= 0 else each >> 32 for each in ids])


def _rank(agreement: Agreement) -> tuple[int, bool, bool, bool]:
    num_tokens = agreement.num_tokens
    ends_there = num_tokens == agreement.num_earlier_tokens
    return num_tokens, agreement.is_ended, ends_there, num_tokens >= agreement.num_earlier_prompt_tokens


def _common_length(left: array[int], right: array[int]) -> int:
    num_both = min(len(left), len(right))
    start = 0
    while start < num_both and left[start : start + _STRIDE] == right[start : start + _STRIDE]:
        start += _STRIDE
    length = min(start, num_both)
    while length < num_both and left[length] == right[length]:
        length += 1
    return length
