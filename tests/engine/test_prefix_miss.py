"""Why a prompt was not found further: the memory against a plain one, each reason, and the real scheduler. No MLX."""

from __future__ import annotations

from collections.abc import Sequence as AbstractSequence

from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_manager.engine.blocks import BLOCK_SIZE
from mlx_manager.engine.prefix_miss import Lookup, PrefixMemory, explain, place
from mlx_manager.engine.sequence import SamplingParams, Sequence, Status
from mlx_manager.ir import PrefixReason, PrefixReport
from tests.engine.test_scheduler_machine import BASES, Driver

PLENTY = 100
"""Blocks enough for everything that one example ever computes."""
GREEDY = (SamplingParams(temperature=0.0),)
pieces = st.builds(
    lambda base, length, tail: (*BASES[base][:length], *tail),
    st.integers(0, len(BASES) - 1),
    st.integers(0, 119),
    st.lists(st.integers(0, 3), max_size=40),
).filter(bool)


def common(left: AbstractSequence[int], right: AbstractSequence[int]) -> int:
    return next(
        (i for i, (one, other) in enumerate(zip(left, right, strict=False)) if one != other), min(len(left), len(right))
    )


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), pieces), max_size=12), pieces, st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_the_closest_is_the_longest_of_the_newest(
    history: list[tuple[int, bool, tuple[int, ...]]], prompt: tuple[int, ...], max_sequences: int
) -> None:
    memory = PrefixMemory(max_sequences, max_tokens=300)
    kept: dict[int, tuple[int, ...]] = {}
    for seq_id, is_end, tokens in history:
        if is_end:
            memory.end(seq_id, tokens, len(tokens))
        else:
            memory.begin(seq_id, tokens)
        kept.pop(seq_id, None)
        kept[seq_id] = tokens
        while len(kept) > 1 and (len(kept) > max_sequences or sum(map(len, kept.values())) > 300):
            del kept[next(iter(kept))]
    assert (len(memory), memory.num_tokens) == (len(kept), sum(map(len, kept.values())))
    closest = memory.closest(prompt)
    assert (closest.num_tokens if closest else None) == max(
        (common(one, prompt) for one in kept.values()), default=None
    )


def test_agreement_is_counted_across_the_stride() -> None:
    tokens = list(range(2000))
    for length in (0, 1, 255, 256, 257, 511, 512, 1024, 1999, 2000):
        memory = PrefixMemory()
        memory.end(1, [*tokens[:length], -1], 1)
        closest = memory.closest(tokens)
        assert closest is not None
        assert closest.num_tokens == length


def reason(
    earlier: list[int],
    prompt: list[int],
    num_matched: int,
    *,
    found: int | None = None,
    prompt_length: int | None = None,
) -> PrefixReason:
    """What is said of `prompt` after `earlier`, of which `prompt_length` tokens (all) were prompt."""
    memory = PrefixMemory()
    memory.end(1, earlier, len(earlier) if prompt_length is None else prompt_length)
    lookup = Lookup(num_matched, num_matched // BLOCK_SIZE if found is None else found)
    return explain(prompt, lookup, memory).reason


def test_each_reason() -> None:
    base, new = list(range(200)), list(range(500, 600))
    assert explain(base, Lookup(0, 0), PrefixMemory()).reason is PrefixReason.UNSEEN
    assert explain(base, Lookup(64, 2), PrefixMemory()).reason is PrefixReason.FORGOTTEN
    assert explain(base, Lookup(0, 0, has_cache=False), PrefixMemory()).reason is PrefixReason.UNCACHED
    assert reason(base, base, 199) is PrefixReason.COMPLETE
    assert reason(base, base + new, 200) is PrefixReason.CONTINUED
    assert reason(base, new, 0) is PrefixReason.UNSEEN
    assert reason(base, base[:100] + new, 100) is PrefixReason.TEXT
    assert reason(base, base[:100] + new, 100, prompt_length=101) is PrefixReason.TEXT
    assert reason(base, base[:100] + new, 100, prompt_length=100) is PrefixReason.ANSWER
    assert reason(base, base[:100] + new, 64) is PrefixReason.EVICTED
    assert reason(base, base[:100] + new, 32, found=3) is PrefixReason.NO_CHECKPOINT
    assert reason(base, base[:100] + new, 32, found=2) is PrefixReason.EVICTED
    assert reason(base, base, 192) is PrefixReason.UNHASHED_TAIL
    assert reason(base, base[:98] + new, 96) is PrefixReason.TEXT, "what a copy would have saved is not the cause"
    memory = PrefixMemory()
    memory.end(1, base, 100)
    memory.end(2, base, 200)
    assert explain(base[:100] + new, Lookup(100, 3), memory).reason is PrefixReason.ANSWER, "which came first"
    memory = PrefixMemory()
    memory.begin(1, base)
    assert explain(base[:100] + new, Lookup(32, 1), memory).reason is PrefixReason.PENDING


def test_a_difference_in_the_templates_part_is_told_from_one_in_the_text() -> None:
    def placed(num_agreed_tokens: int, told: PrefixReason = PrefixReason.TEXT) -> PrefixReason:
        report = PrefixReport(
            reason=told, num_prompt_tokens=90, num_matched_tokens=0, num_agreed_tokens=num_agreed_tokens
        )
        return place(report, 20).reason

    assert placed(19) is PrefixReason.TEMPLATE
    assert placed(20) is PrefixReason.UNSEEN
    assert placed(21) is PrefixReason.TEXT
    assert placed(5, PrefixReason.EVICTED) is PrefixReason.EVICTED


@given(
    st.lists(st.tuples(pieces, st.integers(1, 40), st.integers(0, 30)), min_size=1, max_size=8),
    st.one_of(st.integers(2, 14), st.just(PLENTY)),
    st.sampled_from([None, 0, 2, 50]),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_what_the_scheduler_reports_is_true(
    requests: list[tuple[tuple[int, ...], int, int]], num_blocks: int, num_checkpoints: int | None, has_cache: bool
) -> None:
    driver = Driver(num_blocks, 4, 64, (False, has_cache), num_checkpoints=num_checkpoints if has_cache else None)
    reports: dict[int, PrefixReport] = {}
    seen: list[list[int]] = []

    def note(seq: Sequence, report: PrefixReport) -> None:
        assert seq.seq_id not in reports
        reports[seq.seq_id] = report
        prompt = seq.token_ids[: seq.num_prompt_tokens]
        assert report.num_prompt_tokens == len(prompt)
        assert report.num_matched_tokens == seq.num_cached_tokens <= report.num_agreed_tokens
        assert report.num_agreed_tokens <= max((common(one, prompt) for one in seen), default=0)
        assert report.reason is not PrefixReason.FORGOTTEN, "so few are all remembered"
        assert (report.reason is PrefixReason.UNCACHED) == (not has_cache)
        if report.reason is PrefixReason.COMPLETE:
            assert report.num_matched_tokens == len(prompt) - 1
        if report.reason is PrefixReason.EVICTED:
            assert num_blocks < PLENTY
        if report.reason is PrefixReason.NO_CHECKPOINT:
            assert num_checkpoints is not None
        seen.append(seq.token_ids)  # the list itself: its answer is added while it runs

    driver.scheduler.on_admit = note
    for prompt, max_output_tokens, num_steps in requests:
        driver.add(prompt, max_output_tokens, GREEDY, eos_token_ids=frozenset[int]())
        for _ in range(num_steps):
            if driver.scheduler.has_work:
                driver.step()
    driver.drain()
    assert set(reports) == {
        seq.seq_id for request in driver.requests for seq in request if seq.status is Status.FINISHED
    }
