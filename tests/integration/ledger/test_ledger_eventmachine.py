"""Every interleaving of doors, workers, crashes and late hands over the ledger's events and watches.

Each worker keeps what it claimed and may act on it at any later time, whether its lease still holds or not; a killed
one forgets all. Time is the machine's own, and so is what each claim saw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings, stateful
from hypothesis import strategies as st

from tests.support.happenings import IDLE_FOR, PATIENCE, POLICY, step
from tests.support.rows import AGENT, NOW, everything
from worker.audit.compactions import LostClaim
from worker.audit.conversations import Key
from worker.audit.events import Event, Source
from worker.audit.ledger import Ledger
from worker.audit.records import EventState
from worker.audit.tables import metadata
from worker.audit.watches import Watch

LEASE = timedelta(seconds=30)
CONVERSATIONS = ("conv-1", "conv-2")
WORKERS = ("worker-a", "worker-b")
OPEN = {EventState.RECEIVED, EventState.RUNNING, EventState.WATCHED}
ARRIVALS = st.lists(st.tuples(st.integers(0, 9), st.sampled_from(Source)), min_size=1, max_size=5)
SECONDS = st.sampled_from([1, 14, 31, 200, 400, 700])
ENDS = st.sampled_from(["watch", "watch", "watch", "watch both", "close", "fail", "release"])


@dataclass
class Hand:
    """A claimed watch, with the events that were waiting for it when it was claimed."""

    worker: str
    watch: Watch
    seen: set[str]


class EventMachine(stateful.RuleBasedStateMachine):
    """Drives events and watches; after every step the ledger's promises must hold, and at the end all must be over."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger
        self.seconds = 0
        self.ids: dict[tuple[str, str], str] = {}
        self.closed: dict[str, Event] = {}
        self.events: list[tuple[str, Event]] = []
        self.watches: list[Hand] = []
        with ledger.database.write() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(table.delete())

    @stateful.rule(arrivals=ARRIVALS, worker=st.sampled_from(WORKERS), at_once=st.booleans())
    def requests_come(self, arrivals: list[tuple[int, Source]], worker: str, *, at_once: bool) -> None:
        batch = [step(number, source) for number, source in arrivals]
        for arrival, receipt in zip(batch, self.ledger.events.receive(batch, now=self._now()), strict=True):
            key = (arrival.source.value, arrival.key)
            assert receipt.is_new == (key not in self.ids)
            assert self.ids.setdefault(key, receipt.event_id) == receipt.event_id
        if at_once:
            self._take(worker, list(self.ids.values()))

    @stateful.rule(worker=st.sampled_from(WORKERS), source=st.sampled_from(Source), conversation=st.integers(0, 1))
    def a_request_comes_and_is_looked_into_at_once(self, worker: str, source: Source, conversation: int) -> None:
        number = 100 + len(self.ids)
        self.requests_come([(number, source)], worker, at_once=False)
        for event in self._take(worker, [self.ids[source.value, step(number).key]]):
            self.events.remove((worker, event))
            self._watch(worker, event, [(AGENT, CONVERSATIONS[conversation])])

    @stateful.rule(worker=st.sampled_from(WORKERS), seconds=SECONDS, sent=st.booleans())
    def time_passes_and_a_sweep_comes(self, worker: str, seconds: int, *, sent: bool) -> None:
        self.seconds += seconds
        ids = self.ledger.events.unclaimed(now=self._now(), patience=PATIENCE, limit=100)
        if sent:
            self.ledger.events.enqueued(ids, now=self._now())
        else:
            assert {event.id for event in self._take(worker, ids)} == set(ids)

    @stateful.precondition(lambda self: self.events)
    @stateful.rule(number=st.integers(0, 99), end=ENDS, conversation=st.integers(0, 1))
    def somebody_has_looked_into_an_event(self, number: int, end: str, conversation: int) -> None:
        worker, event = self.events.pop(number % len(self.events))
        row = self.ledger.events.get(event.id)
        assert row is not None
        holds = row.state == EventState.RUNNING and row.lease_owner == worker
        events, word = self.ledger.events, {"owner": worker, "sentence": "it is so"}
        refs = [(AGENT, CONVERSATIONS[conversation])]
        if end == "watch both":
            refs.append((AGENT, CONVERSATIONS[1 - conversation]))
        commits: dict[str, Callable[[], None]] = {
            "close": lambda: events.close(event.id, reason="x", now=self._now(), **word),
            "fail": lambda: events.fail(event.id, reason="x", now=self._now(), **word),
            "release": lambda: events.release(event.id, not_before=self._now() + timedelta(seconds=20), **word),
        }
        self._commit(commits.get(end, lambda: self._watch(worker, event, refs)), holds=holds)

    @stateful.rule(worker=st.sampled_from(WORKERS), limit=st.integers(1, 3))
    def somebody_attends(self, worker: str, limit: int) -> None:
        before = {_key(watch): watch for watch in self.ledger.watches.waiting(100)}
        for watch in self.ledger.watches.due(now=self._now(), owner=worker, lease=LEASE, limit=limit):
            free = before[_key(watch)].lease_until
            assert watch.due_at <= self._now()
            assert free is None or free < self._now()
            self.watches.append(Hand(worker, watch, self._waiting_for(_key(watch))))

    @stateful.precondition(lambda self: self.watches)
    @stateful.rule(number=st.integers(0, 99), wait=SECONDS, put_off=st.booleans())
    def somebody_has_looked_at_a_conversation(self, number: int, wait: int, *, put_off: bool) -> None:
        hand = self.watches.pop(number % len(self.watches))
        row = {_key(watch): watch for watch in self.ledger.watches.waiting(100)}.get(_key(hand.watch))
        holds = row is not None and (row.lease_owner, row.lease_until) == (hand.worker, hand.watch.lease_until)
        before = {event.id for event in self._all() if event.state == EventState.WATCHED}
        if put_off:
            self._commit(lambda: self._put_off(hand, wait), holds=holds)
        else:
            self._commit(lambda: self._finish(hand), holds=holds)
        ended = before - {event.id for event in self._all() if event.state == EventState.WATCHED}
        assert ended == (hand.seen if holds and not put_off else set())

    @stateful.rule(worker=st.sampled_from(WORKERS))
    def a_worker_dies(self, worker: str) -> None:
        self.events = [one for one in self.events if one[0] != worker]
        self.watches = [hand for hand in self.watches if hand.worker != worker]

    # What must hold

    @stateful.invariant()
    def every_watched_event_is_counted_by_the_one_watch_of_its_conversation(self) -> None:
        waiting = Counter(_key(event) for event in self._all() if event.state == EventState.WATCHED)
        assert {_key(watch): watch.events for watch in self.ledger.watches.waiting(100)} == dict(waiting)

    @stateful.invariant()
    def only_a_running_event_has_an_owner_and_only_a_closed_one_an_end(self) -> None:
        for event in self._all():
            assert (event.lease_owner is not None) == (event.state == EventState.RUNNING)
            assert (event.lease_until is not None) == (event.state == EventState.RUNNING)
            assert (event.finished_at is not None) == (event.state not in OPEN)

    @stateful.invariant()
    def a_closed_event_never_changes_and_none_vanishes(self) -> None:
        rows = {event.id: event for event in self._all()}
        assert set(self.ids.values()) <= set(rows)
        for event in rows.values():
            if event.state not in OPEN:
                assert self.closed.setdefault(event.id, event) == event
        assert {id_ for id_, event in rows.items() if event.state not in OPEN} == set(self.closed)

    def teardown(self) -> None:
        """Whatever was left behind, two rounds of a healthy worker bring every event to its end."""
        self.events, self.watches = [], []
        for _ in range(2):
            self.seconds += 100_000
            ids = self.ledger.events.unclaimed(now=self._now(), patience=PATIENCE, limit=1000)
            for event in self.ledger.events.claim(ids, now=self._now(), owner="healthy", lease=LEASE):
                self._watch("healthy", event, [(AGENT, CONVERSATIONS[0])])
            for watch in self.ledger.watches.due(now=self._now(), owner="healthy", lease=LEASE, limit=1000):
                self._finish(Hand("healthy", watch, set()))
        assert {event.id for event in self._all() if event.state in OPEN} == set()
        assert self.ledger.watches.waiting(9) == []

    # The parts that the rules are made of

    def _take(self, worker: str, ids: list[str]) -> list[Event]:
        claimed = self.ledger.events.claim(ids, now=self._now(), owner=worker, lease=LEASE)
        # Ids are random; the order, which Hypothesis must be able to repeat, is by what the door was told.
        self.events += [(worker, event) for event in sorted(claimed, key=lambda event: (event.key, event.source))]
        return claimed

    def _watch(self, worker: str, event: Event, refs: list[Key]) -> None:
        due_at = self._now() if event.source == Source.SIGNED else event.received_at + IDLE_FOR
        self.ledger.watches.watch(event, refs, policy=POLICY, usage=0.8, due_at=due_at, owner=worker, now=self._now())

    def _put_off(self, hand: Hand, wait: int) -> None:
        due_at = self._now() + timedelta(seconds=wait)
        self.ledger.watches.put_off(hand.watch, owner=hand.worker, due_at=due_at, reason="x", sentence="x")

    def _finish(self, hand: Hand) -> None:
        self.ledger.watches.close(hand.watch, owner=hand.worker, reason="x", sentence="x", now=self._now())

    def _commit(self, commit: Callable[[], None], *, holds: bool) -> None:
        """Take one step, which must work for who holds the row and change nothing for anybody else."""
        before = everything(self.ledger)
        try:
            commit()
        except LostClaim:
            assert not holds
            assert everything(self.ledger) == before
        else:
            assert holds

    def _waiting_for(self, key: tuple[Any, ...]) -> set[str]:
        return {event.id for event in self._all() if event.state == EventState.WATCHED and _key(event) == key}

    def _all(self) -> list[Event]:
        return self.ledger.events.recent(1000)

    def _now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)


def _key(row: Event | Watch) -> tuple[Any, ...]:
    return row.agent_id, row.conversation_id, row.policy


EXAMPLES = {"sqlite": 60, "postgresql": 20}


@pytest.mark.timeout(600)
def test_every_interleaving_brings_every_event_to_its_end_by_a_look_that_saw_it(ledger: Ledger) -> None:
    examples = EXAMPLES[ledger.database.engine.dialect.name]
    effort = settings(max_examples=examples, stateful_step_count=40, suppress_health_check=list(HealthCheck))
    machine: Any = lambda: EventMachine(ledger)  # noqa: E731 - Hypothesis says class and takes any callable
    stateful.run_state_machine_as_test(machine, settings=effort)
