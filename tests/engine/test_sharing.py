"""Which decode rows read a beginning together: every row still reads just its own blocks, in order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_manager.engine.blocks import BLOCK_SIZE
from mlx_manager.engine.plan import Reach, share_prefixes

tables = st.lists(
    st.tuples(st.sampled_from([(1, 2, 3, 4), (1, 2, 3, 9), (1, 7), (8,), ()]), st.integers(0, 3), st.booleans()),
    min_size=1,
    max_size=8,
)


def reaches(drawn: list[tuple[tuple[int, ...], int, bool]]) -> list[tuple[int, Reach]]:
    """Rows that begin alike in part; each ends in a block of its own, and some see only a part of their first one."""
    rows = []
    for row, (beginning, num_own, is_cut) in enumerate(drawn):
        table = (*beginning, *range(100 * (row + 1), 100 * (row + 1) + num_own + 1))
        rows.append((row, Reach(table, 5 if is_cut else 0, len(table) * BLOCK_SIZE - 3)))
    return rows


@settings(max_examples=300, deadline=None, derandomize=True)
@given(drawn=tables, min_blocks=st.integers(1, 5))
def test_every_row_reads_its_own_blocks(drawn: list[tuple[tuple[int, ...], int, bool]], min_blocks: int) -> None:
    decodes = reaches(drawn)
    clusters, single = share_prefixes(decodes, min_blocks)
    found = dict(single)
    for prefix, tails in clusters:
        assert len(prefix) >= min_blocks
        assert len(tails) >= 2
        for row, tail in tails:
            assert tail.table
            assert tail.first == 0
            found[row] = Reach(prefix + tail.table, 0, tail.end + len(prefix) * BLOCK_SIZE)
    assert found == dict(decodes)
    assert len(single) + sum(len(tails) for _, tails in clusters) == len(decodes)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(drawn=tables, min_blocks=st.integers(1, 4))
def test_no_row_costs_the_others_what_they_share(
    drawn: list[tuple[tuple[int, ...], int, bool]], min_blocks: int
) -> None:
    """Whatever two or more of the rows would save as one cluster, all of them together save at least."""
    decodes = reaches(drawn)
    clusters, _ = share_prefixes(decodes, min_blocks)
    saved = sum(len(prefix) * (len(tails) - 1) - min_blocks for prefix, tails in clusters)
    for beginning in {reach.table[:length] for _, reach in decodes for length in range(min_blocks, len(reach.table))}:
        length = len(beginning)
        alike = [r for _, r in decodes if r.first == 0 and len(r.table) > length and r.table[:length] == beginning]
        if len(alike) > 1:
            assert saved >= length * (len(alike) - 1) - min_blocks


def test_a_row_with_less_in_common_leaves_the_others_theirs() -> None:
    long, short = tuple(range(62)), tuple(range(8))
    decodes = [(row, Reach((*long, 1000 + row), 0, 63 * BLOCK_SIZE - 3)) for row in range(16)]
    decodes += [(row, Reach((*short, 2000 + row, 3000 + row), 0, 10 * BLOCK_SIZE - 3)) for row in range(16, 19)]
    for num_rows, expected in ((17, [(62, 16)]), (19, [(62, 16), (8, 3)])):
        clusters, single = share_prefixes(decodes[:num_rows], 8)
        assert [(len(prefix), len(tails)) for prefix, tails in clusters] == expected
        assert len(single) == num_rows - sum(num for _, num in expected)
    # two that share a block more are not worth reading a beginning twice
    nearly = [(row, Reach((*long, 99, 1000 + row), 0, 64 * BLOCK_SIZE - 3)) for row in range(2)]
    (cluster,), _ = share_prefixes(nearly + decodes[2:16], 8)
    assert (len(cluster[0]), len(cluster[1])) == (62, 16)


def test_rows_with_enough_in_common_are_found() -> None:
    decodes = reaches([((1, 2, 3, 4), 1, False), ((1, 2, 3, 9), 0, False), ((1, 7), 0, False), ((1, 2, 3, 4), 0, True)])
    clusters, single = share_prefixes(decodes, 2)
    assert [(prefix, [row for row, _ in tails]) for prefix, tails in clusters] == [((1, 2, 3), [0, 1])]
    assert [row for row, _ in single] == [2, 3]
    assert share_prefixes(decodes, None) == ([], decodes)
