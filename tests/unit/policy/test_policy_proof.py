"""The proof: what a compaction kept, lost and should not have lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.policy.proof import Flag, Proof, prove

SYSTEM, SUMMARY = "message-sys", "message-sum"
BEFORE = [SYSTEM, "m1", "m2", "m3", "m4", "m5"]


def proof(after: list[str], before: list[str] = BEFORE, **changes: Any) -> Proof:
    asked = {"arrived": [], "asked_to_wipe": False, "usage_after": 0.3, "target_usage": 0.4, **changes}
    return prove(before=before, after=after, **asked)


def test_a_sliding_window_keeps_the_newest_and_loses_the_oldest() -> None:
    found = proof([SYSTEM, SUMMARY, "m4", "m5"])
    assert found == Proof((SYSTEM, "m4", "m5"), ("m1", "m2", "m3"), (), "sliding_window", ())


def test_what_is_kept_and_lost_is_told_in_the_order_of_before() -> None:
    found = proof([SYSTEM, SUMMARY, "m5", "m4"])
    assert (found.ids_kept, found.ids_lost) == ((SYSTEM, "m4", "m5"), ("m1", "m2", "m3"))


def test_nothing_but_system_and_summary_is_a_full_wipe() -> None:
    found = proof([SYSTEM, SUMMARY])
    assert (found.mode_used, found.flags) == ("all", (Flag.FULL_WIPE,))
    assert (found.ids_lost, found.ids_dropped) == (("m1", "m2", "m3", "m4", "m5"), ())


def test_a_wipe_that_was_asked_for_is_no_surprise() -> None:
    found = proof([SYSTEM, SUMMARY], asked_to_wipe=True)
    assert (found.mode_used, found.flags) == ("all", ())


def test_a_wipe_with_a_message_that_came_later_is_still_one() -> None:
    found = proof([SYSTEM, SUMMARY, "new"], arrived=["new"])
    assert (found.mode_used, found.flags, found.ids_dropped) == ("all", (Flag.FULL_WIPE,), ())


def test_a_message_lost_behind_one_that_stayed_was_dropped() -> None:
    found = proof([SYSTEM, SUMMARY, "m3", "m5"])
    assert (found.ids_dropped, found.flags) == (("m4",), (Flag.MESSAGES_DROPPED,))


def test_an_arrival_that_is_not_in_context_was_dropped() -> None:
    found = proof([SYSTEM, SUMMARY, "m4", "m5", "new-1"], arrived=["new-1", "new-2"])
    assert (found.ids_dropped, found.flags) == (("new-2",), (Flag.MESSAGES_DROPPED,))


def test_an_arrival_dropped_by_a_wipe_is_told_too() -> None:
    found = proof([SYSTEM, SUMMARY], arrived=["new"])
    assert found.ids_dropped == ("new",)
    assert found.flags == (Flag.FULL_WIPE, Flag.MESSAGES_DROPPED)


def test_a_system_message_under_a_new_id_is_a_rewrite_and_not_dropped() -> None:
    found = proof(["message-sys-2", SUMMARY, "m4", "m5"])
    assert (found.ids_lost, found.ids_dropped, found.flags) == ((SYSTEM, "m1", "m2", "m3"), (), ())


def test_a_system_message_that_is_gone_was_dropped() -> None:
    found = proof(["m4", "m5"])
    assert found.ids_dropped == (SYSTEM,)


def test_usage_above_the_target_is_flagged_and_exactly_at_it_is_not() -> None:
    after = [SYSTEM, SUMMARY, "m5"]
    assert proof(after, usage_after=0.4).flags == ()
    assert proof(after, usage_after=0.4001).flags == (Flag.TARGET_MISSED,)


def test_usage_that_could_not_be_measured_misses_nothing() -> None:
    assert proof([SYSTEM, SUMMARY, "m5"], usage_after=None).flags == ()


def test_nothing_evicted_is_no_wipe_and_drops_nothing() -> None:
    found = proof(BEFORE)
    assert (found.ids_kept, found.ids_lost, found.flags) == (tuple(BEFORE), (), ())


@pytest.mark.parametrize(("before", "after"), [([], []), ([], [SYSTEM]), (BEFORE, []), ([SYSTEM], [SYSTEM, SUMMARY])])
def test_odd_contexts_are_compared_all_the_same(before: list[str], after: list[str]) -> None:
    found = proof(after, before)
    assert set(found.ids_kept) | set(found.ids_lost) == set(before)


def test_a_context_that_is_empty_afterwards_lost_its_system_message() -> None:
    assert SYSTEM in proof([]).ids_dropped


contexts = st.integers(1, 40).map(lambda count: [SYSTEM, *(f"m{number}" for number in range(count))])


@given(contexts, st.data())
def test_evicting_any_number_from_the_old_end_drops_nothing(before: list[str], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(before)))
    arrived = data.draw(st.lists(st.sampled_from(["a1", "a2", "a3"]), unique=True))
    found = proof([SYSTEM, SUMMARY, *before[cut:], *arrived], before, arrived=arrived)
    assert found.ids_dropped == ()
    assert Flag.MESSAGES_DROPPED not in found.flags
    assert found.ids_lost == tuple(before[1:cut])
    assert found.ids_kept == (SYSTEM, *before[cut:])
    assert (Flag.FULL_WIPE in found.flags) == (found.mode_used == "all") == (cut == len(before))


@given(contexts, st.data())
def test_losing_any_single_message_behind_the_first_that_stayed_is_a_drop(
    before: list[str], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(1, len(before) - 1))
    stay = before[cut:]
    gone = data.draw(st.sampled_from(stay[1:] or ["arrived"]))
    arrived = ["arrived"]
    after = [SYSTEM, SUMMARY, *(id_ for id_ in [*stay, *arrived] if id_ != gone)]
    found = proof(after, before, arrived=arrived)
    assert found.ids_dropped == (gone,)
    assert Flag.MESSAGES_DROPPED in found.flags


ids = st.lists(st.sampled_from([SYSTEM, SUMMARY, *(f"m{number}" for number in range(8))]), unique=True)


@given(ids, ids, ids, st.booleans(), st.none() | st.floats(0, 2), st.floats(0, 1))
def test_any_two_contexts_can_be_compared(
    before: list[str],
    after: list[str],
    arrived: list[str],
    wipe: bool,  # noqa: FBT001
    usage: float | None,
    target: float,
) -> None:
    found = prove(
        before=before,
        after=after,
        arrived=arrived,
        asked_to_wipe=wipe,
        usage_after=usage,
        target_usage=target,
    )
    assert sorted([*found.ids_kept, *found.ids_lost]) == sorted(before)
    assert set(found.ids_kept) <= set(after)
    assert not set(found.ids_dropped) & set(after)
    assert set(found.ids_dropped) <= set(before) | set(arrived)
    assert len(set(found.ids_dropped)) == len(found.ids_dropped)
    assert (Flag.MESSAGES_DROPPED in found.flags) == bool(found.ids_dropped)
    assert (Flag.TARGET_MISSED in found.flags) == (usage is not None and usage > target)
    assert found.mode_used in {"all", "sliding_window"}
