"""Stop strings: however the text is cut into pieces the answer is the same, and no part of a stop string gets out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_manager.parsing import StopMatcher

letters = st.text(alphabet="abc", max_size=24)
stop_strings = st.lists(st.text(alphabet="abc", min_size=1, max_size=5), max_size=4).map(tuple)


def first_completed(text: str, stops: tuple[str, ...]) -> tuple[int, int] | None:
    """Where the stop string that is complete first begins and ends; the longest of those that end together."""
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return None if not ends else (min(ends)[1], min(ends)[0])


def run(pieces: list[str], stops: tuple[str, ...]) -> tuple[list[str], str | None]:
    """What each piece lets out, then what the end lets out; and the stop string that matched."""
    matcher = StopMatcher(stops)
    shown = [matcher.feed(piece) for piece in pieces]
    return [*shown, matcher.flush()], matcher.matched


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=letters, stops=stop_strings, cuts=st.lists(st.integers(0, 24), max_size=8))
def test_the_cuts_change_nothing(text: str, stops: tuple[str, ...], cuts: list[int]) -> None:
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[first:last] for first, last in itertools.pairwise(borders)]
    shown, matched = run(pieces, stops)
    whole, matched_in_one = run([text], stops)
    assert "".join(shown) == "".join(whole)
    assert matched == matched_in_one


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=letters, stops=stop_strings)
def test_the_text_ends_where_the_first_complete_stop_string_begins(text: str, stops: tuple[str, ...]) -> None:
    shown, matched = run(list(text), stops)
    first = first_completed(text, stops)
    if first is None:
        assert matched is None
        assert "".join(shown) == text
    else:
        assert matched == text[first[0] : first[1]]
        assert "".join(shown) == text[: first[0]]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=letters, stops=stop_strings)
def test_text_is_held_back_only_while_it_may_become_a_stop_string(text: str, stops: tuple[str, ...]) -> None:
    matcher, shown = StopMatcher(stops), ""
    for end, letter in enumerate(text, 1):
        shown += matcher.feed(letter)
        assert text.startswith(shown)
        assert not any(stop in shown for stop in stops)
        if matcher.matched is not None:
            return
        held = text[len(shown) : end]
        assert held == "" or any(stop != held and stop.startswith(held) for stop in stops)


def test_nothing_comes_out_after_a_match() -> None:
    matcher = StopMatcher(("END",))
    assert matcher.feed("the EN") == "the "
    assert matcher.feed("D of it") == ""
    assert matcher.matched == "END"
    assert matcher.feed("more") == ""
    assert matcher.flush() == ""


def test_what_only_looked_like_a_stop_string_comes_out_at_the_end() -> None:
    matcher = StopMatcher(("END",))
    assert [matcher.feed("the EN"), matcher.flush()] == ["the ", "EN"]
    assert matcher.matched is None


@pytest.mark.parametrize("stops", [(), ("",)])
def test_without_stop_strings_everything_passes_at_once(stops: tuple[str, ...]) -> None:
    matcher = StopMatcher(stops)
    assert matcher.feed("anything") == "anything"
