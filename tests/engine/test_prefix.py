"""The prefix index against a model that remembers whole prefixes instead of digests."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mlx_manager.engine.blocks import BLOCK_SIZE
from mlx_manager.engine.prefix import ROOT_KEY, PrefixIndex, block_key, chain_keys

NUM_BLOCKS = 8
# Few first tokens and many common ones after them: prefixes that part at the beginning, in the middle and at the end.
blocks_of_tokens = st.one_of(
    st.lists(st.integers(0, 1), min_size=1, max_size=BLOCK_SIZE).map(tuple),
    st.builds(lambda length, last: (*(0,) * length, last), st.integers(0, BLOCK_SIZE - 1), st.integers(0, 2)),
)


class IndexMachine(RuleBasedStateMachine):
    """Blocks are entered and forgotten in any order, behind parents that may be known or not."""

    @initialize()
    def start(self) -> None:
        self.index = PrefixIndex()
        self.parents = [ROOT_KEY]
        self.entries: dict[int, tuple[bytes, tuple[int, ...]]] = {}

    @rule(block=st.integers(0, NUM_BLOCKS - 1), parent=st.integers(0, 1 << 16), token_ids=blocks_of_tokens)
    def enter(self, block: int, parent: int, token_ids: tuple[int, ...]) -> None:
        entry = self.parents[parent % len(self.parents)], token_ids
        key = self.index.enter(block, *entry)
        assert key == block_key(*entry)
        self.entries.pop(block, None)
        if entry not in self.entries.values():
            self.entries[block] = entry
        if len(self.parents) < 4:
            self.parents.append(key)

    @rule(block=st.integers(0, NUM_BLOCKS - 1))
    def forget(self, block: int) -> None:
        self.index.forget(block)
        self.entries.pop(block, None)

    @rule(parent=st.integers(0, 1 << 16), wanted=blocks_of_tokens, exclude=st.sets(st.integers(0, NUM_BLOCKS - 1)))
    def find_partial(self, parent: int, wanted: tuple[int, ...], exclude: set[int]) -> None:
        key = self.parents[parent % len(self.parents)]
        lengths = {
            block: common_length(token_ids, wanted)
            for block, (parent_key, token_ids) in self.entries.items()
            if parent_key == key and block not in exclude
        }
        hit = self.index.find_partial(key, wanted, exclude=exclude)
        longest = max(lengths.values(), default=0)
        if hit is None:
            assert longest < 4, "a hit worth its copy was missed"
        else:
            assert hit.num_tokens == lengths[hit.block] == longest

    @invariant()
    def every_entry_is_found_and_no_other(self) -> None:
        if not hasattr(self, "index"):
            return
        assert len(self.index) == len(self.entries)
        for block in range(NUM_BLOCKS):
            assert (block in self.index) == (block in self.entries)
        for block, (parent, token_ids) in self.entries.items():
            assert self.index.find(block_key(parent, token_ids)) == block


TestIndex = IndexMachine.TestCase
TestIndex.settings = settings(max_examples=60, stateful_step_count=30, deadline=None, derandomize=True)

tokens = st.lists(st.integers(0, 1), max_size=3 * BLOCK_SIZE)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(one=tokens, other=tokens, num_known=st.integers(0, 3))
def test_keys_are_equal_exactly_where_prefixes_are(one: list[int], other: list[int], num_known: int) -> None:
    other = one[: len(one) * 2 // 3] + other
    keys: list[bytes] = []
    chain_keys(one, keys)
    assert len(keys) == len(one) // BLOCK_SIZE
    other_keys: list[bytes] = keys[: min(num_known, common_length(one, other) // BLOCK_SIZE)]
    chain_keys(other, other_keys)
    for index, (left, right) in enumerate(zip(keys, other_keys, strict=False)):
        end = (index + 1) * BLOCK_SIZE
        assert (left == right) == (one[:end] == other[:end])


def test_extra_keys_tell_blocks_apart_to_their_last_byte() -> None:
    extras = [b"", b"a", b"a" * 64, b"a" * 65, b"a" * 100 + b"b", b"a" * 100 + b"c"]
    assert len({block_key(ROOT_KEY, (1, 2, 3), extra) for extra in extras}) == len(extras)


def common_length(left: tuple[int, ...] | list[int], right: tuple[int, ...] | list[int]) -> int:
    """How many leading tokens are the same."""
    pairs = list(zip(left, right, strict=False))
    return next((index for index, (one, other) in enumerate(pairs) if one != other), len(pairs))
