"""The decision: which reason wins, and which settings are sent."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.snapshots import EVICT, KEEP, NOW, POLICY, QUIET, WINDOW, ago, full, rules, seen, verdict
from tests.support.windows import contexts, dialogue, message
from worker.contract.compaction import CompactionMode, CompactionSettings
from worker.policy.decide import (
    CANDIDATES,
    TRUST_MEASUREMENT_FOR,
    Compact,
    Reason,
    Skip,
    decide,
    screen,
)
from worker.policy.forecast import Context, SlidingWindow
from worker.policy.rules import Policy
from worker.policy.snapshot import Sighting, Snapshot, UsageSource

PENDING = [*dialogue(20, tokens=310), message(41, "approval", calls=True)]
ALL_QUESTIONS = [message(0, "system"), *(message(index, "user", 310) for index in range(1, 41))]
MOSTLY_FIXED = full(dialogue(20, tokens=40), tokens_fixed=10_000, tokens=11_600)

SKIPS: dict[Reason, Snapshot] = {
    Reason.IN_PROGRESS: full(sighting=seen(open_compaction="cmp-1")),
    Reason.PUT_OFF: full(sighting=seen(not_before=NOW + timedelta(seconds=1))),
    Reason.COOLDOWN: full(sighting=seen(last_compacted_at=ago(hours=5, minutes=59))),
    Reason.EMPTY: full(sighting=seen(last_message_at=None)),
    Reason.TOO_FEW_MESSAGES: full(dialogue(4, tokens=2_000), sighting=seen(num_messages=None)),
    Reason.NOT_IDLE: full(sighting=seen(last_message_at=ago(minutes=29))),
    Reason.ACTIVE_RUN: full(active_run="run-1"),
    Reason.PENDING_APPROVAL: full(PENDING),
    Reason.BELOW_TRIGGER: full(tokens=11_199),
    Reason.WOULD_WIPE: full(ALL_QUESTIONS),
    Reason.NO_GAIN: MOSTLY_FIXED,
}

PRECEDENCE = [
    Reason.IN_PROGRESS,
    Reason.PUT_OFF,
    Reason.COOLDOWN,
    Reason.EMPTY,
]


@pytest.mark.parametrize(("reason", "snapshot"), SKIPS.items())
def test_every_reason_to_skip_can_be_met_and_says_a_sentence(reason: Reason, snapshot: Snapshot) -> None:
    decision = verdict(snapshot)
    assert isinstance(decision, Skip)
    assert decision.reason is reason
    assert len(decision.sentence) > 10


def test_a_full_quiet_conversation_is_compacted() -> None:
    decision = verdict(full())
    assert isinstance(decision, Compact)
    assert decision.reason is Reason.OVER_TRIGGER
    assert decision.sentence.startswith("usage 0.81 is at or over the trigger of 0.70; ")
    assert decision.settings.mode is CompactionMode.SLIDING_WINDOW
    assert decision.forecast.tokens <= 0.4 * WINDOW
    assert not decision.forecast.full_wipe


def test_every_reason_is_met_here_or_made_elsewhere() -> None:
    made_elsewhere = {
        Reason.MAX_PER_SCAN,
        Reason.SAFETY_COPY,
        Reason.BREAKER_OPEN,
        Reason.UNREADABLE,
        Reason.NOT_FOUND,
    }
    only_before_measuring = {Reason.UNCHANGED}
    assert {*SKIPS, Reason.OVER_TRIGGER, Reason.ASKED} | made_elsewhere | only_before_measuring == set(Reason)


@pytest.mark.parametrize(
    ("reason", "sighting"),
    [
        (Reason.IN_PROGRESS, seen(open_compaction="cmp-1")),
        (Reason.PUT_OFF, seen(not_before=NOW + timedelta(seconds=1))),
        (Reason.COOLDOWN, seen(last_compacted_at=ago(hours=1))),
        (Reason.EMPTY, seen(last_message_at=None)),
        (Reason.TOO_FEW_MESSAGES, seen(num_messages=9)),
        (Reason.NOT_IDLE, seen(last_message_at=ago(minutes=1))),
        (Reason.UNCHANGED, seen(settled_usage=0.5, settled_at=ago(days=1), settled_activity=QUIET.last_message_at)),
    ],
)
def test_what_cannot_need_it_is_left_out_before_anybody_measures(reason: Reason, sighting: Sighting) -> None:
    skip = screen(sighting, POLICY, NOW)
    assert skip is not None
    assert skip.reason is reason
    assert len(skip.sentence) > 10


@pytest.mark.parametrize(
    "sighting",
    [
        QUIET,
        Sighting(activity_known=False),
        seen(num_messages=10),
        seen(num_messages=None),
        seen(not_before=NOW),
        seen(last_compacted_at=ago(hours=6)),
        seen(last_message_at=ago(minutes=30)),
        # Measured below the trigger, but there is a message since, or the measurement is old, or it was above it.
        seen(settled_usage=0.5, settled_at=ago(days=1), settled_activity=ago(hours=3)),
        seen(settled_usage=0.5, settled_at=ago(days=8), settled_activity=QUIET.last_message_at),
        seen(settled_usage=0.7, settled_at=ago(days=1), settled_activity=QUIET.last_message_at),
        Sighting(activity_known=False, settled_usage=0.5, settled_at=ago(days=1)),
    ],
)
def test_what_may_need_it_is_measured(sighting: Sighting) -> None:
    assert screen(sighting, POLICY, NOW) is None


def test_an_unchanged_conversation_is_believed_for_a_week_and_no_longer() -> None:
    settled = seen(settled_usage=0.5, settled_activity=QUIET.last_message_at, settled_at=NOW - TRUST_MEASUREMENT_FOR)
    assert screen(settled, POLICY, NOW) is not None
    assert screen(settled, POLICY, NOW + timedelta(seconds=1)) is None


def test_a_conversation_that_was_measured_all_the_same_is_not_skipped_as_unchanged() -> None:
    settled = seen(settled_usage=0.5, settled_at=ago(days=1), settled_activity=QUIET.last_message_at)
    assert verdict(full(sighting=settled)).reason is Reason.OVER_TRIGGER


def test_the_first_of_several_reasons_is_told_in_a_fixed_order() -> None:
    everything = {
        "open_compaction": "cmp-1",
        "not_before": NOW + timedelta(hours=1),
        "last_compacted_at": ago(hours=1),
        "last_message_at": None,
    }
    undone = {"open_compaction": None, "not_before": None, "last_compacted_at": None}
    told = [verdict(full(sighting=seen(**everything))).reason]
    for field, nothing in undone.items():
        everything[field] = nothing
        told.append(verdict(full(sighting=seen(**everything))).reason)
    assert told == PRECEDENCE


def test_protection_comes_before_usage_and_usage_before_settings() -> None:
    busy = full(PENDING, active_run="run-1", tokens=100)
    assert verdict(busy).reason is Reason.ACTIVE_RUN
    assert verdict(replace(busy, active_run=None)).reason is Reason.PENDING_APPROVAL
    assert verdict(full(ALL_QUESTIONS, tokens=100)).reason is Reason.BELOW_TRIGGER
    assert verdict(full(ALL_QUESTIONS)).reason is Reason.WOULD_WIPE


def test_usage_at_the_trigger_is_over_it() -> None:
    assert verdict(full(tokens=11_200)).reason is Reason.OVER_TRIGGER
    assert verdict(full(tokens=11_199)).reason is Reason.BELOW_TRIGGER


def test_a_message_from_the_future_is_not_idle() -> None:
    decision = verdict(full(sighting=seen(last_message_at=NOW + timedelta(minutes=5))))
    assert decision.reason is Reason.NOT_IDLE
    assert "idle for 0s only" in decision.sentence


def test_a_conversation_whose_last_activity_nobody_knows_is_left_alone() -> None:
    unknown = Sighting(activity_known=False)
    for asked in (False, True):
        assert verdict(full(sighting=unknown), asked=asked).reason is Reason.NOT_IDLE


class TestAskedFor:
    """Somebody wants this one compacted now."""

    @pytest.mark.parametrize(
        "snapshot", [SKIPS[Reason.PUT_OFF], SKIPS[Reason.COOLDOWN], SKIPS[Reason.BELOW_TRIGGER], full()]
    )
    def test_the_trigger_the_cooldown_and_a_put_off_do_not_count(self, snapshot: Snapshot) -> None:
        decision = verdict(snapshot, asked=True)
        assert isinstance(decision, Compact)
        assert decision.reason is Reason.ASKED
        assert decision.sentence.startswith("asked for by hand; ")

    @pytest.mark.parametrize(
        "reason",
        [
            Reason.IN_PROGRESS,
            Reason.ACTIVE_RUN,
            Reason.PENDING_APPROVAL,
            Reason.NOT_IDLE,
            Reason.TOO_FEW_MESSAGES,
            Reason.WOULD_WIPE,
            Reason.NO_GAIN,
        ],
    )
    def test_what_protects_the_conversation_still_does(self, reason: Reason) -> None:
        assert verdict(SKIPS[reason], asked=True).reason is reason


class TestSettings:
    """What is sent."""

    def test_a_fixed_percentage_is_sent_as_it_stands_in_the_file(self) -> None:
        for server in (EVICT, KEEP):
            decision = verdict(full(), rules(compaction={"sliding_window_percentage": 0.35}), server=server)
            assert isinstance(decision, Compact)
            assert decision.settings.body() == {"mode": "sliding_window", "sliding_window_percentage": 0.35}

    def test_a_fixed_percentage_means_what_the_server_does_with_it(self) -> None:
        fixed = rules(compaction={"sliding_window_percentage": 0.8})
        evicted, kept = verdict(full(), fixed, server=EVICT), verdict(full(), fixed, server=KEEP)
        assert isinstance(evicted, Compact)
        assert isinstance(kept, Compact)
        assert evicted.forecast.kept < kept.forecast.kept

    def test_a_fixed_percentage_that_would_wipe_this_conversation_is_not_sent(self) -> None:
        decision = verdict(full(ALL_QUESTIONS), rules(compaction={"sliding_window_percentage": 0.3}))
        assert decision.reason is Reason.WOULD_WIPE
        assert decision.sentence == "0.3 would make the server evict every message of it"

    def test_the_policys_other_settings_go_along_and_nothing_that_was_left_out(self) -> None:
        decision = verdict(full(), rules(compaction={"model": "openai/gpt-4o-mini", "clip_chars": None}))
        assert isinstance(decision, Compact)
        assert decision.settings.body().keys() == {"model", "clip_chars", "mode", "sliding_window_percentage"}
        assert decision.settings.body()["clip_chars"] is None

    @pytest.mark.parametrize("mode", ["all", "self_compact_all"])
    def test_a_mode_that_wipes_by_name_is_sent_without_a_percentage(self, mode: str) -> None:
        decision = verdict(full(), rules(compaction={"mode": mode}))
        assert isinstance(decision, Compact)
        assert decision.settings.body() == {"mode": mode}
        assert decision.forecast.full_wipe

    def test_the_agents_own_model_can_slide_too(self) -> None:
        decision = verdict(full(), rules(compaction={"mode": "self_compact_sliding_window"}))
        assert isinstance(decision, Compact)
        assert decision.settings.mode is CompactionMode.SELF_COMPACT_SLIDING_WINDOW
        assert decision.settings.sliding_window_percentage is not None

    def test_where_no_percentage_meets_the_target_the_nearest_is_sent(self) -> None:
        heavy = [*dialogue(18, tokens=200), message(37, "user", 5_500), message(38, "assistant", 10)]
        decision = verdict(full(heavy))
        assert isinstance(decision, Compact)
        assert decision.forecast.tokens > 0.4 * WINDOW
        reachable = Context(heavy, window=WINDOW, tokens_fixed=590, clip_chars=None)
        outcomes = [reachable.sliding_window(share) for share in CANDIDATES]
        assert decision.forecast.tokens == min(found.tokens for found in outcomes if not found.full_wipe)


times = st.none() | st.datetimes(
    datetime(2000, 1, 1),  # noqa: DTZ001 - Hypothesis wants naive bounds
    datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)

sightings = st.builds(
    Sighting,
    last_message_at=times,
    activity_known=st.booleans(),
    num_messages=st.none() | st.integers(0, 10**6),
    open_compaction=st.none() | st.just("cmp-1"),
    last_compacted_at=times,
    not_before=times,
    settled_usage=st.none() | st.floats(0, 10),
    settled_at=times,
    settled_activity=times,
)

snapshots = st.builds(
    Snapshot,
    sighting=sightings,
    window=st.integers(1, 10**7),
    tokens=st.integers(0, 10**8),
    tokens_fixed=st.integers(-(10**6), 10**8),
    messages=contexts().map(tuple) | st.just(()),
    source=st.sampled_from(UsageSource),
    newest_at=times,
    active_run=st.none() | st.just("run-1"),
)

policies = st.builds(
    rules,
    trigger_usage=st.just(0.7),
    target_usage=st.floats(0, 0.69),
    min_messages=st.integers(3, 50),
    compaction=st.fixed_dictionaries(
        {},
        optional={
            "mode": st.sampled_from(["sliding_window", "self_compact_sliding_window"]),
            "sliding_window_percentage": st.floats(0, 1),
            "clip_chars": st.none() | st.integers(1, 10**6),
        },
    ),
)


@given(snapshots, policies, st.sampled_from(SlidingWindow), st.booleans())
def test_there_is_a_decision_about_anything(
    snapshot: Snapshot,
    policy: Policy,
    server: SlidingWindow,
    asked: bool,  # noqa: FBT001
) -> None:
    decision = decide(snapshot, policy, NOW, server=server, asked=asked)
    assert decision.sentence
    assert decision.reason in Reason
    if isinstance(decision, Compact):
        assert decision.settings.sliding_window_percentage is not None
        assert not decision.forecast.full_wipe
        assert CompactionSettings.model_validate(decision.settings.body()) == decision.settings


@given(sightings, policies)
def test_what_is_screened_out_is_not_compacted_when_it_is_measured(sighting: Sighting, policy: Policy) -> None:
    skip = screen(sighting, policy, NOW)
    assume(skip is not None and skip.reason is not Reason.UNCHANGED)
    assert skip is not None
    assert verdict(full(sighting=sighting), policy) == skip
