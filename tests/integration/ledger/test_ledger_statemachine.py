"""Every interleaving of workers, sweeps, crashes, stalls and clocks, on the real ledger beside a model of a server.

The machine does what `worker.compaction` and `worker.reconcile` do, one commit at a time, so that anything may happen
between any two of them. Its server takes a POST's effect at some time within its limit, or never, and may or may not
get its answer through. Time is the machine's own; a process's wall clock may be set, its monotonic clock may not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, settings, stateful
from hypothesis import strategies as st

from tests.support.rows import CLOSING, INTENT, NOW, SCAN, compaction, hours, order, raw
from worker.audit.compactions import LostClaim
from worker.audit.ledger import Ledger
from worker.audit.planning import IN_PROGRESS, OVER_BUDGET, PLANNED
from worker.audit.records import CLOSED_STATES, OPEN_STATES, Compaction, State
from worker.audit.reports import Wanted
from worker.audit.tables import metadata
from worker.ending import MOST_ATTEMPTS
from worker.vigil import POST_WITHIN, Vigil

LEASE = timedelta(seconds=2)
LIMIT = 20.0
"""Seconds after which a POST that reached the server cannot take effect any more."""
SETTLED = timedelta(seconds=LIMIT + POST_WITHIN)
LOOK_AGAIN = timedelta(seconds=1)
PATIENCE = timedelta(minutes=10)
BUDGET = 4
CONVERSATIONS = ("conv-1", "conv-2")
PROCESSES = 2
NUMBERS = st.integers(0, PROCESSES - 1)
HAPPENINGS = ["time", "time", "time", "plan", "beat", "clock", "stop", "stop", "stop", "kill"]
SECONDS = st.sampled_from([0.5, 1.5, 2.5, 4.5, 9.0, 19.0, 25.5])
SKEWS = [0, 3600, -3600, 23]
LUCK = ["good", "good", "good", "good", "release", "refuse", "fail"]
EFFECTS = st.one_of(st.none(), st.sampled_from([0.0, 3.0, LIMIT]), st.floats(0, LIMIT))
"""Seconds after which a POST takes effect; None: it never does, and the server may say so."""
Stage = Literal["claimed", "intended", "posted", "answered", "taken_over", "looked"]
Step = tuple[int, str, str, float | None]
STEPS = st.tuples(
    NUMBERS, st.sampled_from(["step", "step", "step", "step", "message", "sweep"]), st.sampled_from(LUCK), EFFECTS
)
"""A process, what it does, how that ends, and when a POST takes effect."""


@dataclass
class Post:
    """One request to compact, as the server has it. effect_at: the machine's time, None for never."""

    row: str
    conversation: str
    effect_at: float | None
    done: bool = False


@dataclass
class Hand:
    """A thread of a process at one row. row: as it was when the thread got it; seen: the context at its look."""

    row: Compaction
    stage: Stage
    since: float = 0.0
    post: Post | None = None
    seen: list[str] = field(default_factory=list)
    over: bool = False


@dataclass
class Process:
    """A worker process: its name on leases, how far its wall clock is off, and what its threads are at."""

    owner: str
    vigil: Vigil
    skew: timedelta = timedelta()
    hands: dict[str, Hand] = field(default_factory=dict)
    stopped: bool = False


class LedgerMachine(stateful.RuleBasedStateMachine):
    """Drives the ledger; after every step its promises must hold, and at the end everything must come to one."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger
        self.time = 0.0
        self.posts: list[Post] = []
        self.rows: list[str] = []
        self.closed: dict[str, tuple[Any, ...]] = {}
        self.scan = ""
        self.started = 0
        self.processes = [self._process() for _ in range(PROCESSES)]
        with ledger.database.write() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(table.delete())

    @stateful.initialize(
        of_scan=st.booleans(), skews=st.lists(st.sampled_from(SKEWS), min_size=PROCESSES, max_size=PROCESSES)
    )
    def there_is_a_scan_and_a_row(self, skews: list[int], *, of_scan: bool) -> None:
        for process, skew in zip(self.processes, skews, strict=True):
            process.skew = timedelta(seconds=skew)
        scan, _ = self.ledger.scans.begin(SCAN, now=NOW, owner="scanner", lease=LEASE)
        self.scan = scan.id
        self._plan(CONVERSATIONS[0], of_scan=of_scan)

    @stateful.rule(number=NUMBERS, what=st.sampled_from(HAPPENINGS), seconds=SECONDS, skew=st.sampled_from(SKEWS))
    def something_happens(self, number: int, what: str, seconds: float, skew: int) -> None:
        process = self.processes[number]
        match what:
            case "time":
                self._pass(seconds)
            case "plan":
                self._plan(CONVERSATIONS[number % len(CONVERSATIONS)], of_scan=skew != 0)
            case "kill":
                self.processes[number] = self._process()
            case "clock":
                process.skew = timedelta(seconds=skew)
            case "stop":
                process.stopped = not process.stopped
            case "beat" if not process.stopped:
                until = self._wall(process) + LEASE
                self.ledger.compactions.renew(sorted(process.hands), owner=process.owner, lease_until=until)

    def _plan(self, conversation: str, *, of_scan: bool) -> None:
        wanted = order(conversation)
        if of_scan:
            wanted = replace(wanted, seen=replace(wanted.seen, scan_id=self.scan), budget=BUDGET)
        taken = len([row for row in self._all() if row.scan_id == self.scan])
        in_the_way = [row.id for row in self._all() if row.conversation_id == conversation and row.state in OPEN_STATES]
        # Ids are random; the rows' order, which Hypothesis must be able to repeat, is by time.
        planning = self.ledger.compactions.plan(wanted, now=NOW + timedelta(microseconds=len(self.rows)))
        if of_scan and taken >= BUDGET:
            assert (planning.outcome, planning.compaction_id) == (OVER_BUDGET, None)
        elif in_the_way:
            assert (planning.outcome, [planning.compaction_id]) == (IN_PROGRESS, in_the_way)
        else:
            assert planning.outcome == PLANNED
            assert planning.compaction_id is not None
            self.rows.append(planning.compaction_id)

    @stateful.rule(data=st.data(), steps=st.lists(STEPS, min_size=1, max_size=10))
    def work_goes_on(self, data: st.DataObject, steps: list[Step]) -> None:
        """Somebody's next step, a message that comes, or a sweep."""
        for number, what, luck, effect_after in steps:
            hands, process = self._hands(), self._running(number)
            if what == "step" and hands:
                self._go_on(*hands[data.draw(st.sampled_from(range(len(hands))))], luck, effect_after)
            elif all(row.state in CLOSED_STATES for row in self._all()):
                self._plan(CONVERSATIONS[0], of_scan=False)
            elif what == "message" or any(row.state == State.PLANNED for row in self._all()):
                self._deliver(process, data)
            else:
                # Nothing is to be done before some lease is over.
                self._pass(0 if what == "sweep" else LEASE.total_seconds() + 0.5)
                self._take_over_all(process)

    def _go_on(self, process: Process, hand: Hand, luck: str, effect_after: float | None) -> None:
        match hand.stage:
            case "claimed" if luck == "good":
                self._intend(process, hand)
            case "claimed":
                self._end_without_effect(process, hand, luck)
            case "intended":
                self._post(process, hand, effect_after)
            case "posted":
                self._hear(process, hand, luck)
            case "answered" if luck == "good":
                self._succeed(process, hand)
            case "answered":
                self._leave(process, hand)
            case "taken_over":
                self._look(process, hand)
            case "looked":
                self._settle(process, hand)

    # A worker's steps

    def _deliver(self, process: Process, data: st.DataObject) -> None:
        """A message comes, the first time or the fifth, for a row in any state: planned ones first, as in life."""
        rows = sorted(self._all(), key=lambda row: row.state != State.PLANNED)
        before, now = rows[data.draw(st.sampled_from(range(len(rows))))], self._wall(process)
        self.ledger.compactions.enqueued([before.id], now=now)
        if before.id in process.hands:
            return
        row = self.ledger.compactions.claim(before.id, now=now, owner=process.owner, lease=LEASE)
        due = before.not_before is None or before.not_before <= now
        assert (row is not None) == (before.state == State.PLANNED and due)
        if row is not None:
            process.hands[before.id] = Hand(row, "claimed")

    def _intend(self, process: Process, hand: Hand) -> None:
        intent = replace(INTENT, ids_before=self._context(hand.row.conversation_id))
        hand.since = self.time
        self._step(process, hand, "intended", lambda ledger, now: ledger.compactions.intend(
            hand.row.id, intent, owner=process.owner, now=now, lease=LEASE))  # fmt: skip

    def _post(self, process: Process, hand: Hand, effect_after: float | None) -> None:
        if self.time - hand.since > POST_WITHIN:
            self._end_without_effect(process, hand, "release")
            return
        effect_at = None if effect_after is None else self.time + effect_after
        hand.post, hand.stage = Post(hand.row.id, hand.row.conversation_id, effect_at), "posted"
        self.posts.append(hand.post)
        self._pass(0)

    def _hear(self, process: Process, hand: Hand, luck: str) -> None:
        assert hand.post is not None
        if luck == "good" and hand.post.done:
            self._step(process, hand, "answered", lambda ledger, now: ledger.compactions.keep_answer(
                hand.row.id, '{"summary": "x"}', owner=process.owner, now=now, lease=LEASE))  # fmt: skip
        elif luck != "good" and hand.post.effect_at is None:
            self._end_without_effect(process, hand, luck)
        elif luck == "release":
            self._leave(process, hand)

    # What must hold

    @stateful.invariant()
    def a_conversation_has_at_most_one_open_row(self) -> None:
        busy = [row.conversation_id for row in self._all() if row.state in OPEN_STATES]
        assert len(busy) == len(set(busy))

    @stateful.invariant()
    def a_closed_row_never_changes_and_no_row_vanishes(self) -> None:
        rows = self._all()
        assert sorted(row.id for row in rows) == sorted(self.rows)
        for row in rows:
            if row.state in CLOSED_STATES:
                now = raw(self.ledger, row.id)
                assert self.closed.setdefault(row.id, now) == now
        assert set(self.closed) == {row.id for row in rows if row.state in CLOSED_STATES}

    @stateful.invariant()
    def an_effect_belongs_to_one_row_that_is_running_or_succeeded(self) -> None:
        for row in self._all():
            effects = len([post for post in self.posts if post.row == row.id and post.done])
            assert effects <= 1, f"{row.id} was compacted {effects} times"
            if effects:
                assert row.state in {State.RUNNING, State.SUCCEEDED}, f"{row.id} took effect and is {row.state}"
            if row.state == State.SUCCEEDED:
                assert effects == 1, f"{row.id} tells of a compaction that never was"

    @stateful.invariant()
    def only_a_running_row_has_an_owner_or_a_lease(self) -> None:
        for row in self._all():
            if row.state != State.RUNNING:
                assert (row.lease_owner, row.lease_until) == (None, None)
            if row.state == State.PLANNED:
                assert (row.posted_at, row.response) == (None, None)

    @stateful.invariant()
    def a_scan_never_plans_more_than_its_budget(self) -> None:
        planned = [row for row in self._all() if row.scan_id is not None]
        assert len(planned) <= BUDGET
        scan = self.ledger.scans.get(self.scan) if planned else None
        assert scan is None or scan.planned == len(planned)

    def teardown(self) -> None:
        """Let the sweeps of one healthy process bring everything to its end, whatever the others left behind."""
        self.processes = [self._process()]
        for _ in range(4 * MOST_ATTEMPTS):
            if not [row for row in self._all() if row.state in OPEN_STATES]:
                break
            self._pass(3700)
            self._work(self.processes[0])
        assert [row.id for row in self._all() if row.state in OPEN_STATES] == []
        self.an_effect_belongs_to_one_row_that_is_running_or_succeeded()
        succeeded = [row.id for row in self._all() if row.state == State.SUCCEEDED]
        assert sorted(post.row for post in self.posts if post.done) == sorted(succeeded)

    # The parts that the rules are made of

    def _work(self, process: Process) -> None:
        """One sweep and what it hands out, without trouble."""
        now = self._wall(process)
        for id_ in self.ledger.open_rows.unclaimed(now=now, patience=PATIENCE, limit=100):
            row = self.ledger.compactions.claim(id_, now=now, owner=process.owner, lease=LEASE)
            assert row is not None
            process.hands[id_] = Hand(row, "claimed")
            self._end_without_effect(process, process.hands[id_], "refuse")
        self._take_over_all(process)
        for hand in list(process.hands.values()):
            self._look(process, hand)
            self._settle(process, hand)

    def _take_over_all(self, process: Process) -> None:
        for found in self.ledger.open_rows.abandoned(now=self._wall(process), limit=100):
            silent = process.vigil.unmoved(f"heart of {found.id}", found.heartbeats)
            if found.id in process.hands or (found.owned and silent < LEASE):
                continue
            row = self.ledger.compactions.take_over(
                found.id, now=self._wall(process), owner=process.owner, lease=LEASE, heartbeats=found.heartbeats
            )
            assert row is not None
            process.hands[found.id] = Hand(row, "taken_over")

    def _look(self, process: Process, hand: Hand) -> None:
        posted_at = hand.row.posted_at
        if posted_at is not None:
            watched = process.vigil.unmoved(f"post of {hand.row.id}", posted_at)
            hand.over = min(watched, self._wall(process) - posted_at) >= SETTLED
        hand.seen, hand.stage = self._context(hand.row.conversation_id), "looked"

    def _settle(self, process: Process, hand: Hand) -> None:
        row = hand.row
        if row.response is not None or (row.posted_at is not None and hand.seen != row.ids_before):
            self._succeed(process, hand, recovered=row.response is None)
        elif row.posted_at is None or hand.over:
            self._end_without_effect(process, hand, "fail" if row.attempts >= MOST_ATTEMPTS else "release")
        else:
            self._leave(process, hand)

    def _succeed(self, process: Process, hand: Hand, *, recovered: bool = False) -> None:
        closing = replace(CLOSING, recovered=recovered)
        self._step(process, hand, None, lambda ledger, now: ledger.compactions.succeed(
            hand.row, closing, owner=process.owner, now=now))  # fmt: skip

    def _leave(self, process: Process, hand: Hand) -> None:
        self._step(process, hand, None, lambda ledger, now: ledger.compactions.leave(
            hand.row.id, "unknown", owner=process.owner, look_at=now + LOOK_AGAIN))  # fmt: skip

    def _end_without_effect(self, process: Process, hand: Hand, how: str, *, wait: int = 0) -> None:
        row, owner = hand.row, process.owner
        ends: dict[str, Callable[[Ledger, datetime], None]] = {
            "refuse": lambda ledger, now: ledger.compactions.refuse(row, "x", "x", owner=owner, now=now, delay=hours),
            "fail": lambda ledger, now: ledger.compactions.fail(row, "x", "x", owner=owner, now=now, delay=hours),
            "release": lambda ledger, now: ledger.compactions.release(
                row.id, "x", owner=owner, not_before=now + timedelta(seconds=wait)
            ),
        }
        self._step(process, hand, None, ends[how])

    def _step(
        self, process: Process, hand: Hand, then: Stage | None, commit: Callable[[Ledger, datetime], None]
    ) -> None:
        """Commit one step, which must work for the row's holder and for nobody else. then: None ends the work."""
        row, before = compaction(self.ledger, hand.row.id), raw(self.ledger, hand.row.id)
        holds = row.state == State.RUNNING and row.lease_owner == process.owner
        try:
            commit(self.ledger, self._wall(process))
        except LostClaim:
            assert not holds
            assert raw(self.ledger, hand.row.id) == before
            then = None
        else:
            assert holds, f"{process.owner} changed a row that is not its own"
        hand.stage = then or hand.stage
        if then is None:
            del process.hands[hand.row.id]

    def _process(self) -> Process:
        self.started += 1
        return Process(f"process-{self.started}", Vigil(lambda: self.time))

    def _running(self, number: int) -> Process:
        """The process of that number; where all stand still, it goes on."""
        running = [process for process in self.processes if not process.stopped]
        if not running:
            self.processes[number].stopped = False
            running = [self.processes[number]]
        return running[number % len(running)]

    def _pass(self, seconds: float) -> None:
        self.time += seconds
        for post in self.posts:
            post.done = post.done or (post.effect_at is not None and post.effect_at <= self.time)

    def _wall(self, process: Process) -> datetime:
        return NOW + timedelta(seconds=self.time) + process.skew

    def _context(self, conversation: str) -> list[str]:
        return ["message-sys", *(f"summary-{n}" for n, post in enumerate(self.posts)
                                 if post.conversation == conversation and post.done)]  # fmt: skip

    def _hands(self) -> list[tuple[Process, Hand]]:
        return [(process, hand) for process in self.processes if not process.stopped for hand in process.hands.values()]

    def _all(self) -> list[Compaction]:
        return list(self.ledger.reports.compactions(Wanted(), limit=None, oldest_first=True))


EXAMPLES = {"sqlite": 60, "postgresql": 20}


@pytest.mark.timeout(600)
def test_every_interleaving_leaves_one_effect_for_one_row_that_tells_the_truth(ledger: Ledger) -> None:
    examples = EXAMPLES[ledger.database.engine.dialect.name]
    effort = settings(max_examples=examples, stateful_step_count=40, suppress_health_check=list(HealthCheck))
    machine: Any = lambda: LedgerMachine(ledger)  # noqa: E731 - Hypothesis says class and takes any callable
    stateful.run_state_machine_as_test(machine, settings=effort)
