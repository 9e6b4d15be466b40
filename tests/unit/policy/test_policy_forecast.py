"""The forecast of a compaction, held against what a real server was seen to do and against a plain retelling of it."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.windows import contexts, dialogue, message, retold
from worker.policy.forecast import COUNTING_MARGINS, Context, SlidingWindow, summary_allowance
from worker.policy.snapshot import ContextMessage

WINDOW = 16_000

SEEN = {0.05: 37, 0.1: 35, 0.3: 27, 0.5: 19, 0.7: 11, 0.85: 5}
"""num_messages_after of letta 0.16.8, for twenty questions and answers; 0.9 and 1.0 left 2, as mode `all` did."""

SEEN_TOKENS = {0.05: 3_714, 0.1: 3_538, 0.3: 2_834, 0.5: 2_131, 0.7: 1_426, 0.85: 897, 0.9: 680}
"""Tokens in context after each, from 4,110."""


def context(messages: list[ContextMessage], **changes: int | None) -> Context:
    given_ = {"window": WINDOW, "tokens_fixed": 590, "clip_chars": None, **changes}
    return Context(messages, **given_)  # type: ignore[arg-type]


@pytest.mark.parametrize(("percentage", "num_messages_after"), SEEN.items())
def test_as_many_messages_stay_as_on_the_real_server(percentage: float, num_messages_after: int) -> None:
    found = context(dialogue(20)).sliding_window(percentage)
    assert (found.kept, found.full_wipe) == (num_messages_after, False)
    assert found.evicted == 41 - num_messages_after + 1


@pytest.mark.parametrize("percentage", [0.9, 0.95, 1.0])
def test_everything_goes_where_the_real_server_wiped_everything(percentage: float) -> None:
    found = context(dialogue(20)).sliding_window(percentage)
    assert found == context(dialogue(20)).wipe()
    assert (found.kept, found.evicted, found.full_wipe) == (2, 40, True)


@pytest.mark.parametrize(("percentage", "tokens"), SEEN_TOKENS.items())
def test_the_tokens_that_stay_are_the_real_servers_and_room_for_a_summary(percentage: float, tokens: int) -> None:
    found = context(dialogue(20)).sliding_window(percentage)
    room = summary_allowance(WINDOW, None)
    assert tokens - 120 <= found.tokens - room <= tokens


@given(contexts(), st.integers(0, 100).map(lambda hundredths: hundredths / 100), st.integers(500, 60_000))
def test_the_forecast_agrees_with_a_plain_retelling_under_either_way_of_counting(
    messages: list[ContextMessage], share: float, window: int
) -> None:
    fixed = window // 20
    found = Context(messages, window=window, tokens_fixed=fixed, clip_chars=None).sliding_window(share)
    told = [retold(messages, share, window=window, fixed=fixed, margin=margin) for margin in COUNTING_MARGINS]
    if any(stay is None for stay in told):
        assert found.full_wipe
        return
    stay = max(stay for stay in told if stay is not None)
    assert not found.full_wipe
    assert found.kept == stay + 2
    assert found.evicted == len(messages) - 1 - stay
    room = summary_allowance(window, None)
    assert found.tokens == fixed + room + sum(one.tokens for one in messages[len(messages) - stay :])


@given(contexts(), st.integers(0, 50).map(lambda hundredths: hundredths / 100))
def test_what_stays_begins_where_a_window_may_begin(messages: list[ContextMessage], share: float) -> None:
    found = context(messages).sliding_window(share)
    assume(not found.full_wipe)
    first = messages[found.evicted + 1]
    assert first.can_start_window
    assert found.kept + found.evicted == len(messages) + 1


@given(contexts())
def test_a_wipe_leaves_the_system_message_the_summary_and_an_approval_that_is_waited_for(
    messages: list[ContextMessage],
) -> None:
    found = context(messages).wipe()
    waits = messages[-1].role == "approval"
    assert found.kept == 2 + waits
    assert found.evicted == len(messages) - 1 - waits
    assert found.full_wipe


def test_an_empty_context_has_nothing_to_keep() -> None:
    found = context([]).sliding_window(0.3)
    assert (found.full_wipe, found.evicted) == (True, 0)


def test_a_context_without_an_answer_is_wiped_at_any_share() -> None:
    messages = [message(0, "system"), *(message(index, "user") for index in range(1, 30))]
    assert all(context(messages).sliding_window(share / 100).full_wipe for share in range(101))


def test_the_last_message_is_never_all_that_stays() -> None:
    messages = [message(0, "system"), *(message(index, "user") for index in range(1, 30)), message(30, "assistant")]
    assert context(messages).sliding_window(0.3).full_wipe


def test_a_pending_approval_is_never_evicted_nor_alone() -> None:
    tail = [message(19, "assistant", calls=True), message(20, "approval", calls=True)]
    messages = [message(0, "system"), *(message(index, "user") for index in range(1, 19)), *tail]
    assert context(messages).sliding_window(0.8).full_wipe
    assert context(messages).wipe().kept == 3


def test_a_server_that_only_estimates_tokens_may_evict_more_than_one_that_counts() -> None:
    # 9,500 tokens stay after the first try: under the goal of 11,200 when counted, over it when estimated 1.3 times.
    messages = dialogue(20, tokens=400)
    counted = retold(messages, 0.3, window=WINDOW, fixed=590, margin=1.0)
    estimated = retold(messages, 0.3, window=WINDOW, fixed=590, margin=1.3)
    assert counted is not None
    assert estimated is not None
    assert estimated < counted
    assert context(messages).sliding_window(0.3).kept == counted + 2


def test_a_share_that_only_an_estimating_server_would_wipe_at_counts_as_a_wipe() -> None:
    messages = dialogue(20, tokens=760)
    share = next(
        share / 100
        for share in range(90)
        if retold(messages, share / 100, window=WINDOW, fixed=590, margin=1.0) is not None
        and retold(messages, share / 100, window=WINDOW, fixed=590, margin=1.3) is None
    )
    assert context(messages).sliding_window(share).full_wipe


@pytest.mark.parametrize(
    ("window", "clip_chars", "tokens"),
    [(128_000, None, 1_000), (8_000, None, 800), (16_000, 2_000, 500), (16_000, 0, 0), (128_000, 50_000, 1_000)],
)
def test_room_for_the_summary_is_a_thousand_tokens_or_what_bounds_it(
    window: int, clip_chars: int | None, tokens: int
) -> None:
    assert summary_allowance(window, clip_chars) == tokens


hundredths = st.integers(0, 100).map(lambda number: number / 100)


@given(hundredths)
def test_keeping_is_the_mirror_of_evicting(share: float) -> None:
    evict, keep = SlidingWindow.EVICT, SlidingWindow.KEEP
    assert evict.percentage(share) == share
    assert keep.percentage(share) == round(1 - share, 6)
    for server in SlidingWindow:
        assert server.evicted_share(server.percentage(share)) == share
        assert server.percentage(share) == round(server.percentage(share), 2)
    assert evict.always_wipes(share) == keep.always_wipes(keep.percentage(share)) == (share >= 0.9)


@given(contexts(), st.integers(90, 100).map(lambda number: number / 100))
def test_a_share_that_always_wipes_does_so_with_any_context(messages: list[ContextMessage], share: float) -> None:
    assert SlidingWindow.EVICT.always_wipes(share)
    assert context(messages, window=10**9).sliding_window(share).full_wipe


@given(st.floats(0, 1))
def test_every_percentage_is_translated_to_a_share(percentage: float) -> None:
    for server in SlidingWindow:
        assert 0 <= server.evicted_share(percentage) <= 1
        assert math.isclose(server.percentage(server.evicted_share(percentage)), percentage, abs_tol=1e-6)
