"""The percentage that is chosen: it never wipes, it meets the target where it can, and it is the gentlest that does."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.snapshots import EVICT, KEEP, full, rules, verdict
from tests.support.windows import message, retold
from worker.policy.decide import (
    CANDIDATES,
    SMALLEST_GAIN,
    Compact,
)
from worker.policy.forecast import COUNTING_MARGINS, Context, SlidingWindow
from worker.policy.rules import Policy
from worker.policy.snapshot import Snapshot

TURNS = [("user", "assistant")] * 3 + [("user", "calls", "tool", "assistant"), ("user",), ("user", "user", "assistant")]

marks = st.tuples(st.integers(1, 100), st.integers(0, 99)).map(
    lambda pair: (pair[0] / 100, min(pair[1], pair[0] - 1) / 100)
)


@st.composite
def situations(draw: st.DrawFn) -> tuple[Snapshot, Policy]:
    """A quiet conversation with turns of every shape, its window between half full and overfull, and a policy."""
    messages = [message(0, "system")]
    for _ in range(draw(st.integers(6, 25))):
        for role in draw(st.sampled_from(TURNS)):
            tokens, calls = draw(st.integers(1, 500)), role == "calls"
            messages.append(message(len(messages), "assistant" if calls else role, tokens, calls=calls))
    fixed = draw(st.integers(0, 500))
    tokens = fixed + sum(one.tokens for one in messages)
    window = max(round(tokens / draw(st.floats(0.5, 1.2))), 1)
    clip = draw(st.none() | st.integers(1, 2_000))
    trigger, target = draw(marks)
    policy = rules(trigger_usage=trigger, target_usage=target, min_messages=3, compaction={"clip_chars": clip})
    return full(messages, window=window, tokens_fixed=fixed, tokens=tokens), policy


def context_of(snapshot: Snapshot, policy: Policy) -> Context:
    return Context(
        snapshot.messages,
        window=snapshot.window,
        tokens_fixed=snapshot.tokens_fixed,
        clip_chars=policy.compaction.clip_chars,
    )


def chosen(snapshot: Snapshot, policy: Policy, server: SlidingWindow) -> tuple[Compact, float]:
    """The decision to compact, and the share that it makes the server evict; other decisions are no examples."""
    decision = verdict(snapshot, policy, server=server, asked=True)
    assume(isinstance(decision, Compact))
    assert isinstance(decision, Compact)
    percentage = decision.settings.sliding_window_percentage
    assert percentage is not None
    return decision, server.evicted_share(percentage)


@given(situations(), st.sampled_from(SlidingWindow))
def test_a_chosen_percentage_wipes_under_neither_way_of_counting(
    situation: tuple[Snapshot, Policy], server: SlidingWindow
) -> None:
    snapshot, policy = situation
    _, share = chosen(snapshot, policy, server)
    for margin in COUNTING_MARGINS:
        stay = retold(
            list(snapshot.messages), share, window=snapshot.window, fixed=snapshot.tokens_fixed, margin=margin
        )
        assert stay is not None
        assert stay > 1


@given(situations(), st.sampled_from(SlidingWindow))
def test_a_chosen_percentage_is_the_gentlest_that_meets_the_target_if_any_does(
    situation: tuple[Snapshot, Policy], server: SlidingWindow
) -> None:
    snapshot, policy = situation
    decision, share = chosen(snapshot, policy, server)
    context, target = context_of(snapshot, policy), policy.target_usage * snapshot.window
    outcomes = {candidate: context.sliding_window(candidate) for candidate in CANDIDATES}
    meeting = [one for one, found in outcomes.items() if not found.full_wipe and found.tokens <= target]
    assert decision.forecast == outcomes[share]
    if meeting:
        assert share == meeting[0]
        assert decision.forecast.tokens <= target
    else:
        assert decision.forecast.tokens == min(found.tokens for found in outcomes.values() if not found.full_wipe)


@given(situations())
def test_servers_that_evict_and_that_keep_get_mirrored_percentages_for_one_outcome(
    situation: tuple[Snapshot, Policy],
) -> None:
    snapshot, policy = situation
    evict, share = chosen(snapshot, policy, EVICT)
    keep, _ = chosen(snapshot, policy, KEEP)
    assert evict.settings.sliding_window_percentage == share
    assert keep.settings.sliding_window_percentage == round(1 - share, 2)
    assert (evict.forecast, evict.sentence) == (keep.forecast, keep.sentence)


@given(situations(), st.sampled_from(SlidingWindow))
def test_nobody_pays_for_less_than_the_smallest_gain(situation: tuple[Snapshot, Policy], server: SlidingWindow) -> None:
    snapshot, policy = situation
    decision, _ = chosen(snapshot, policy, server)
    assert (snapshot.tokens - decision.forecast.tokens) / snapshot.window >= SMALLEST_GAIN
