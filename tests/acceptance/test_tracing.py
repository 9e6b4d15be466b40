"""Traces with real processes: one from a tick or a webhook to the closing of the row that came of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.collector import Collector, Seen, collecting
from tests.support.network import quiet_port
from tests.support.sandbox import Sandbox, running_sandbox
from tests.support.service import Service, deployed, wait_until
from tests.support.talking import talk

KEY = "sk-marked-in-no-span"
STEP_KEY = "step-key-marked-in-no-span"
PATIENCE = 90.0

POLICY = """
[policies.default]
trigger_usage = 0.70
target_usage = 0.40
min_messages = 6
idle_for = "2s"
cooldown = "1h"
compaction = { prompt = "prompt-marked-in-no-span" }
"""

SCHEDULE = """
[schedules.nightly]
policy = "default"
every = "2s"
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture
def port() -> int:
    return quiet_port()


@pytest.fixture
def sandbox(tmp_path: Path, port: int) -> Iterator[Sandbox]:
    (tmp_path / "server").mkdir()
    hook = {
        "STEP_COMPLETE_WEBHOOK": f"http://127.0.0.1:{port}/webhooks/letta/step-complete",
        "STEP_COMPLETE_KEY": STEP_KEY,
    }
    with running_sandbox(tmp_path / "server", hook, api_key=KEY) as running:
        yield running


@pytest.fixture
def service(
    tmp_path: Path, port: int, sandbox: Sandbox, redis_url: str, sqlite_url: str, collector: Collector
) -> Iterator[Service]:
    with deployed(
        tmp_path,
        letta_url=sandbox.base_url,
        broker_url=redis_url,
        database_url=sqlite_url,
        key=KEY,
        policy=POLICY,
        STEP_COMPLETE_KEY=STEP_KEY,
        COMPACTOR_WEBHOOK_PORT=str(port),
        COMPACTOR_ATTEND_EVERY="1",
        **collector.environment(),
    ) as made:
        yield made


def names(spans: list[Seen]) -> set[tuple[str, str]]:
    return {(span.process, span.name) for span in spans}


def closing(collector: Collector) -> Seen:
    """The one span in which a row was brought to its end."""
    [span] = [span for span in collector.spans if span.name == "compaction"]
    return span


def story(collector: Collector, service: Service) -> list[Seen]:
    """The spans of the closed compaction's trace, once all are there."""
    wait_until(service.all_closed, PATIENCE, service.logs)
    for process in service.processes:
        process.stop()
    trace = closing(collector).trace
    return [span for span in collector.spans if span.trace == trace]


def nothing_is_quoted(collector: Collector) -> None:
    sent = b"\n".join(collector.bodies)
    assert b"in-no-span" not in sent
    assert not [span for span in collector.spans if "?" in span.attributes.get("http.url", "")]


def test_a_ticks_trace_reaches_to_the_closing_of_the_row(
    service: Service, sandbox: Sandbox, collector: Collector
) -> None:
    talk(sandbox).fill(0.80)
    (service.folder / "policy.toml").write_text(POLICY + SCHEDULE)
    service.worker()
    service.beat()
    seen = names(story(collector, service))
    assert ("compactor-beat", "apply_async/compactor.tick") in seen
    assert {name for process, name in seen if process == "compactor-worker"} >= {
        "run/compactor.tick",
        "run/compactor.assess",
        "run/compactor.compact",
        "compaction",
    }
    assert [name for process, name in seen if process == "compactor-worker" and name.startswith("UPDATE")]
    assert [name for process, name in seen if process == "compactor-worker" and name.startswith("POST")]
    nothing_is_quoted(collector)


def test_a_webhooks_trace_reaches_to_the_closing_of_the_row(
    service: Service, sandbox: Sandbox, collector: Collector
) -> None:
    service.door()
    service.worker()
    talk(sandbox).fill(0.80)
    service.beat()
    spans = story(collector, service)
    seen = names(spans)
    assert ("compactor-door", "POST /webhooks/letta/step-complete") in seen
    assert {name for process, name in seen if process == "compactor-worker"} >= {"look", "event", "plan", "compaction"}
    [first] = [span for span in spans if span.parent == ""]
    assert first.process == "compactor-door"
    nothing_is_quoted(collector)
