"""Safety copies: made before the POST, written down, left out of scans, and removed when their time is over."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from tests.support.bench import COPY, POLICY, Bench, bench
from worker import compaction, safety, scan
from worker.audit.records import State
from worker.audit.scans import ScanOrder
from worker.policy.decide import Reason
from worker.reconcile import sweep

WITH_COPY = POLICY.model_copy(update={"safety_copy": True, "keep_safety_copies_for": timedelta(days=7)})


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as service:
        yield service


def test_a_policy_without_safety_copies_makes_none(at: Bench) -> None:
    assert compaction.run(at.service, at.plan()) == "compacted"
    assert at.letta.forks == 0


def test_a_copy_is_made_and_written_down_before_the_post(at: Bench) -> None:
    id_, seen = at.plan(WITH_COPY), list[object]()
    compact = at.letta.compact

    def post(_: httpx.Request) -> httpx.Response:
        seen.append((at.letta.forks, at.service.ledger.safety_copies.among([COPY]), at.row(id_).safety_copy_id))
        return compact()

    at.letta.answers["compact"] = post
    assert compaction.run(at.service, id_) == "compacted"
    assert seen == [(1, {COPY}, COPY)]
    assert at.row(id_).safety_copy_id == COPY


@pytest.mark.parametrize(("status", "outcome", "state"), [(503, "released", "planned"), (403, "http_403", "failed")])
def test_without_its_copy_nothing_is_compacted(at: Bench, status: int, outcome: str, state: str) -> None:
    at.letta.answers["fork"] = lambda _: httpx.Response(status, json={"detail": "no"}, headers={"Retry-After": "5"})
    id_ = at.plan(WITH_COPY)
    assert compaction.run(at.service, id_) == outcome
    assert at.row(id_).state == state
    assert at.letta.posts == []


def test_a_conversation_that_came_to_life_during_the_copy_is_left_alone(at: Bench) -> None:
    def fork(_: httpx.Request) -> httpx.Response:
        at.letta.last_message_at = at.time.now()
        return httpx.Response(200, json={"id": COPY, "agent_id": "agent-1"})

    at.letta.answers["fork"] = fork
    assert compaction.run(at.service, at.plan(WITH_COPY)) == Reason.NOT_IDLE
    assert at.letta.posts == []


def test_a_scan_leaves_a_copy_out_and_says_why(at: Bench) -> None:
    written_down(at, "conv-1")
    rules = ScanOrder("manual", None, "default", POLICY.version, POLICY.body())
    begun, _ = at.service.ledger.scans.begin(rules, now=at.time.now(), owner=None, lease=timedelta(minutes=1))
    scan.resume(at.service, begun.id)
    done = at.service.ledger.scans.get(begun.id)
    assert done is not None
    assert done.reasons == {Reason.SAFETY_COPY: 1}
    assert (done.listed, done.planned) == (1, 0)


def written_down(at: Bench, *copies: str) -> None:
    id_ = at.plan(conversation_id="conv-9")
    for copy in copies:
        now = at.time.now()
        at.service.ledger.safety_copies.made(
            copy, agent_id="agent-1", compaction_id=id_, now=now, keep_until=now + timedelta(days=7)
        )


def test_a_copy_is_kept_for_its_time_and_then_removed_by_the_sweep_once(at: Bench) -> None:
    written_down(at, COPY)
    at.time.wall = timedelta(days=7) - timedelta(seconds=1)
    sweep(at.service)
    assert at.letta.deleted == []
    at.time.passes(1)
    assert sweep(at.service)["safety_copies_removed"] == 1
    assert at.letta.deleted == [COPY]
    assert sweep(at.service)["safety_copies_removed"] == 0
    assert at.letta.deleted == [COPY]


def test_a_removed_copy_is_still_known_for_one(at: Bench) -> None:
    written_down(at, COPY)
    at.time.wall = timedelta(days=8)
    safety.remove_due(at.service)
    assert at.service.ledger.safety_copies.among([COPY, "conv-1"]) == {COPY}


def test_a_copy_that_somebody_else_removed_counts_as_removed(at: Bench) -> None:
    written_down(at, COPY)
    at.letta.answers["delete"] = lambda _: httpx.Response(404, json={"detail": "not found"})
    at.time.wall = timedelta(days=8)
    assert safety.remove_due(at.service) == 1
    assert at.service.ledger.safety_copies.due(now=at.time.now(), limit=10) == []


def test_a_copy_that_cannot_be_removed_stays_for_the_next_sweep_and_holds_up_no_other(at: Bench) -> None:
    written_down(at, "conv-stuck", "conv-free")

    def refuse_one(request: httpx.Request) -> httpx.Response:
        return httpx.Response(500 if "stuck" in request.url.path else 200, json={})

    at.letta.answers["delete"] = refuse_one
    at.time.wall = timedelta(days=8)
    assert safety.remove_due(at.service) == 1
    assert at.service.ledger.safety_copies.due(now=at.time.now(), limit=10) == ["conv-stuck"]
    at.letta.answers.clear()
    assert safety.remove_due(at.service) == 1


def test_a_shutdown_leaves_the_copies_for_another_sweep_without_an_error(at: Bench) -> None:
    written_down(at, COPY)
    at.time.wall = timedelta(days=8)
    at.service.loop.let_go()
    assert sweep(at.service)["safety_copies_removed"] == 0
    assert at.service.ledger.safety_copies.due(now=at.time.now(), limit=10) == [COPY]


def test_an_attempt_that_failed_leaves_its_copy_to_be_removed_in_time(at: Bench) -> None:
    at.letta.answers["compact"] = lambda _: httpx.Response(409, json={"detail": "busy"})
    id_ = at.plan(WITH_COPY)
    assert compaction.run(at.service, id_) == "released"
    assert at.row(id_).state == State.PLANNED
    at.time.wall += timedelta(days=7)
    assert safety.remove_due(at.service) == 1
