from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog import contextvars

from tests.support.bench import CONVERSATION, SUMMARY, Bench, bench
from tests.support.rows import AGENT
from worker import compaction, reconcile
from worker.audit.records import State
from worker.logs.lines import FIELDS

SAID = "the prompt that the server repeats"


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as service:
        yield service


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[list[logging.LogRecord]]:
    caplog.set_level(logging.INFO)
    found: list[logging.LogRecord] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record)

    listener = Listener()
    logger = logging.getLogger("worker.telemetry.story")
    logger.addHandler(listener)
    yield found
    logger.removeHandler(listener)


def fields(record: logging.LogRecord) -> dict[str, Any]:
    figures: dict[str, Any] = getattr(record, FIELDS)
    return figures


def answering(status: int, detail: str) -> httpx.Response:
    return httpx.Response(status, json={"detail": detail})


def test_a_compaction_that_took_effect_is_one_line_with_its_figures(at: Bench, told: list[logging.LogRecord]) -> None:
    compaction_id = at.plan()
    at.time.passes(90)
    assert compaction.run(at.service, compaction_id) == "compacted"
    [line] = told
    row = at.row(compaction_id)
    assert line.levelno == logging.INFO
    assert fields(line) == {
        "compaction_id": compaction_id,
        "conversation_id": CONVERSATION,
        "agent_id": AGENT,
        "scan_id": None,
        "trigger": row.trigger,
        "policy": row.policy,
        "reason": row.reason,
        "state": "succeeded",
        "outcome": "compacted",
        "usage_before": row.usage_before,
        "usage_after": row.usage_after,
        "tokens_before": row.tokens_before,
        "tokens_after": row.tokens_after,
        "num_messages_before": 21,
        "num_messages_after": len(at.letta.ids),
        "sliding_window_percentage": row.settings["sliding_window_percentage"],
        "mode_used": "sliding_window",
        "model": None,
        "attempts": 1,
        "recovered": False,
        "flags": row.flags,
        "dropped": 0,
        "waited": 90.0,
        "took": 0.0,
        "error": None,
    }


def test_its_sentence_has_them_in_words(at: Bench, told: list[logging.LogRecord]) -> None:
    compaction_id = at.plan()
    at.time.passes(90)
    compaction.run(at.service, compaction_id)
    sentence, row = told[0].getMessage(), at.row(compaction_id)
    assert sentence.startswith(f"{compaction_id} succeeded: {CONVERSATION} (asked for by {row.trigger}, policy ")
    assert f"usage {row.usage_before:.2f} → {row.usage_after:.2f}, " in sentence
    assert f"21 → {len(at.letta.ids)} messages; mode sliding_window at " in sentence
    assert "1 attempt, waited 90 s, took 0 s" in sentence
    assert SUMMARY not in sentence


def test_a_refused_one_is_an_ordinary_line_that_says_why(at: Bench, told: list[logging.LogRecord]) -> None:
    at.letta.last_message_at = at.time.now()
    assert compaction.run(at.service, at.plan()) == "not_idle"
    [line] = told
    assert (line.levelno, fields(line)["state"], fields(line)["outcome"]) == (logging.INFO, "refused", "not_idle")
    assert (fields(line)["waited"], fields(line)["took"]) == (None, None)
    assert "never sent" in line.getMessage()


def test_a_failed_one_is_an_error_without_the_servers_own_words(at: Bench, told: list[logging.LogRecord]) -> None:
    at.letta.answers["compact"] = lambda _: answering(422, SAID)
    compaction_id = at.plan()
    assert compaction.run(at.service, compaction_id) == "http_422"
    [line] = told
    assert (line.levelno, fields(line)["state"]) == (logging.ERROR, "failed")
    assert SAID in str(at.row(compaction_id).error)
    assert SAID not in line.getMessage() + str(fields(line))
    assert "answered 422" in line.getMessage()
    assert "its words are in the ledger" in line.getMessage()


def test_one_that_is_given_back_or_left_has_no_story_yet(at: Bench, told: list[logging.LogRecord]) -> None:
    at.letta.answers["compact"] = lambda _: httpx.Response(502)
    compaction_id = at.plan()
    assert compaction.run(at.service, compaction_id) == "left"
    assert told == []


def test_one_that_the_sweep_closes_is_told_by_the_sweep(at: Bench, told: list[logging.LogRecord]) -> None:
    row = at.left()
    at.letta.compact()
    assert reconcile.sweep(at.service) == {"recovered": 1}
    [line] = told
    assert (fields(line)["compaction_id"], fields(line)["recovered"]) == (row.id, True)


def test_one_whose_messages_fell_out_says_how_many(at: Bench, told: list[logging.LogRecord]) -> None:
    at.left()
    at.letta.compact()
    at.letta.arrivals.append("message-99")
    rows = [at.letta.listed(id_) for id_ in [*at.letta.ids, "message-99"]]
    at.letta.answers["messages"] = lambda _: httpx.Response(200, json=rows)
    reconcile.sweep(at.service)
    assert fields(told[0])["dropped"] == 1
    assert "messages_dropped (1 messages)" in told[0].getMessage()


def test_a_line_of_a_run_is_about_its_compaction_and_its_conversation(at: Bench, tmp_path: Path) -> None:
    seen: list[dict[str, object]] = []
    compact = at.letta.compact

    def look() -> httpx.Response:
        seen.append(contextvars.get_contextvars())
        return compact()

    at.letta.compact = look  # type: ignore[method-assign]
    compaction_id = at.plan()
    compaction.run(at.service, compaction_id)
    assert seen == [{"compaction_id": compaction_id, "agent_id": AGENT, "conversation_id": CONVERSATION}]


def test_a_fault_of_our_own_is_told_by_its_name_alone(
    at: Bench, told: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fall(*_: object, **__: object) -> None:
        raise ValueError(SAID)

    monkeypatch.setattr(reconcile, "find_message", fall)
    row = at.left()
    at.letta.compact()
    at.time.passes(timedelta(days=2).total_seconds())
    reconcile.sweep(at.service)
    closed = at.row(row.id)
    assert closed.state == State.FAILED
    assert str(closed.error).startswith("ValueError (its words are withheld")
    assert SAID not in told[0].getMessage()
