"""The arithmetic of the bench, on records written out by hand."""

import pytest

from mlx_manager.bench import Figures, StreamRecord
from mlx_manager.bench.figures import inter_token_times, percentile


def record(sent_at: float, arrivals: list[float], **more: object) -> StreamRecord:
    return StreamRecord(sent_at=sent_at, arrivals=arrivals, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([3.0], 95, 3.0),
        ([1.0, 2.0, 3.0], 50, 2.0),
        ([4.0, 1.0, 3.0, 2.0], 50, 2.5),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 95, 4.8),
        ([1.0, 2.0], 100, 2.0),
        ([1.0, 2.0], 0, 1.0),
    ],
)
def test_percentile_is_linear_between_neighbours(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == pytest.approx(expected)


def test_percentile_of_nothing_is_none() -> None:
    assert percentile([], 50) is None


def test_inter_token_times_are_between_pieces_of_one_stream() -> None:
    assert inter_token_times(record(0.0, [1.0, 1.5, 3.0])) == [0.5, 1.5]
    assert inter_token_times(record(0.0, [1.0])) == []


def test_figures_of_two_streams() -> None:
    figures = Figures.of(
        [
            record(10.0, [11.0, 12.0, 13.0], num_prompt_tokens=30, num_cached_tokens=16, usage_completion_tokens=3),
            record(10.5, [13.5, 14.0], num_prompt_tokens=40, usage_completion_tokens=5),
        ]
    )
    assert figures.num_requests == 2
    assert figures.num_failed == 0
    assert (figures.num_prompt_tokens, figures.num_cached_tokens, figures.num_completion_tokens) == (70, 16, 8)
    assert figures.wall_s == pytest.approx(4.0)
    assert figures.output_tokens_per_s == pytest.approx(2.0)
    assert figures.ttft_p50_s == pytest.approx(2.0)
    assert figures.ttft_max_s == pytest.approx(3.0)
    assert figures.inter_token_p50_s == pytest.approx(1.0)
    assert figures.inter_token_p95_s == pytest.approx(1.0)
    assert figures.interruption is None


def test_pieces_are_counted_where_the_server_gave_no_usage() -> None:
    assert Figures.of([record(0.0, [1.0, 2.0])]).num_completion_tokens == 2


def test_a_failed_stream_counts_only_as_failed() -> None:
    figures = Figures.of([record(0.0, [1.0, 2.0]), record(0.0, [50.0], error="HTTP 500"), record(0.0, [])])
    assert (figures.num_requests, figures.num_failed) == (3, 2)
    assert figures.wall_s == pytest.approx(2.0)
    assert figures.num_completion_tokens == 2


def test_when_all_fail_there_are_no_times() -> None:
    figures = Figures.of([record(0.0, [], error="HTTP 503")])
    assert figures.output_tokens_per_s == 0.0
    assert figures.ttft_p50_s is None
    assert figures.inter_token_p95_s is None


def test_an_interruption_splits_the_gaps_at_the_long_prompt() -> None:
    running = record(0.0, [1.0, 2.0, 3.0, 7.0, 11.0, 12.0])
    late = record(0.0, [1.9, 2.9, 6.9])
    intruder = record(3.5, [9.0, 9.5], is_intruder=True)
    interruption = Figures.of([running, late, intruder]).interruption
    assert interruption is not None
    assert interruption.idle_p95_s == pytest.approx(1.0), "between 1.9, when all run, and 3.5"
    assert interruption.during_p50_s == pytest.approx(4.0)
    assert interruption.p95_ratio == pytest.approx(4.0)
    assert interruption.intruder_ttft_s == pytest.approx(5.5)


def test_gaps_before_all_streams_run_are_not_idle_ones() -> None:
    first = record(0.0, [1.0, 9.0, 10.0])
    second = record(0.0, [9.0, 10.0])
    interruption = Figures.of([first, second, record(10.5, [11.0], is_intruder=True)]).interruption
    assert interruption is not None
    assert interruption.idle_p95_s == pytest.approx(1.0)
    assert interruption.during_p95_s is None
    assert interruption.p95_ratio is None
