"""The vigil tells for how long something did not move, by a clock that nobody can set."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from worker.vigil import FORGET_AFTER, Vigil


class Steady:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_at_first_sight_nothing_is_known() -> None:
    assert Vigil(Steady()).unmoved("row", 1) == timedelta()


def test_what_looks_the_same_has_not_moved_since_it_was_first_seen_so() -> None:
    clock = Steady()
    vigil = Vigil(clock)
    vigil.unmoved("row", 1)
    for seconds in (5, 10, 15):
        clock.seconds = 1000.0 + seconds
        assert vigil.unmoved("row", 1) == timedelta(seconds=seconds)


def test_a_move_begins_the_watch_anew_and_so_does_a_move_back() -> None:
    clock = Steady()
    vigil = Vigil(clock)
    for mark in (1, 2, 1):
        clock.seconds += 60
        assert vigil.unmoved("row", mark) == timedelta()


def test_each_name_is_watched_for_itself() -> None:
    clock = Steady()
    vigil = Vigil(clock)
    vigil.unmoved("one", 1)
    clock.seconds += 60
    assert vigil.unmoved("two", 1) == timedelta()
    assert vigil.unmoved("one", 1) == timedelta(seconds=60)


def test_what_is_forgotten_is_seen_for_the_first_time_again() -> None:
    clock = Steady()
    vigil = Vigil(clock)
    vigil.unmoved("row", 1)
    clock.seconds += 60
    vigil.forget("row")
    vigil.forget("never seen")
    assert vigil.unmoved("row", 1) == timedelta()


def test_what_nobody_asks_about_for_a_day_is_dropped() -> None:
    clock = Steady()
    vigil = Vigil(clock)
    vigil.unmoved("old", 1)
    clock.seconds += FORGET_AFTER + 1
    vigil.unmoved("new", 1)
    assert set(vigil._seen) == {"new"}


@given(st.lists(st.tuples(st.floats(0, 1000), st.integers(0, 2)), min_size=1, max_size=30))
def test_it_never_tells_of_longer_than_the_mark_has_stood(steps: list[tuple[float, int]]) -> None:
    clock, since, standing = Steady(), 0.0, None
    vigil = Vigil(clock)
    for seconds, mark in steps:
        clock.seconds += seconds
        if mark != standing:
            since, standing = clock.seconds, mark
        assert vigil.unmoved("row", mark) == timedelta(seconds=clock.seconds - since)
