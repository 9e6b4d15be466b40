"""Flower's pages as an operator sees them, in a real browser: what ran is real, one compaction of it failed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Locator, Page

from tests.support.browser import browser as real_browser
from tests.support.flower import PASSWORD, USER, Flower, running_flower
from tests.support.redis import fresh_database
from tests.support.sandbox import Sandbox, running_sandbox
from tests.support.service import Service, deployed, wait_until
from worker.audit.records import Compaction, State
from worker.broker import make_app
from worker.names import ASSESS, COMPACT, TICK
from worker.settings import Settings

PICTURE = "COMPACTOR_TEST_PICTURE"
"""Names the file that the picture of the tasks' page is written to: the README's is this test's."""

KEY = "sk-planted-letta-key"
PLANTED = "planted-in-an-argument"

PASS_SECONDS = 90.0

POLICY = """
[policies.default]
trigger_usage = 0.70
target_usage = 0.40
min_messages = 6
idle_for = "2m"
cooldown = "1h"

[schedules.nightly]
policy = "default"
every = "2s"
"""

HIDDEN = ("/tasks", "/workers", "/broker", "/task/any", "/api/tasks", "/api/workers", "/worker/any", "/")


@dataclass(frozen=True)
class Night:
    """What ran, and the pages that tell of it."""

    service: Service
    server: Sandbox
    flower: Flower

    def row(self, state: State) -> Compaction:
        rows = [row for row in self.service.rows() if row.state == state]
        return next((row for row in rows if row.conversation_id != "default"), rows[0])

    def task_of(self, row: Compaction) -> dict[str, Any]:
        who = row.agent_id if row.conversation_id == "default" else row.conversation_id
        tasks = [task for task in self.flower.tasks().values() if task["name"] == COMPACT and who in task["args"]]
        [task] = [task for task in tasks if ("default" in task["args"]) == (row.conversation_id == "default")]
        return task


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory, redis_server: str) -> Iterator[Night]:
    """A tick of the nightly schedule, and one refused key."""
    folder = tmp_path_factory.mktemp("flower")
    with (
        running_sandbox(folder, seed=12, api_key=KEY) as server,
        fresh_database(redis_server) as broker,
        deployed(
            folder,
            letta_url=server.base_url,
            broker_url=broker,
            database_url=f"sqlite:///{folder / 'ledger.db'}",
            key=KEY,
            policy=POLICY,
        ) as service,
    ):
        server.set_faults({"endpoint": "compact", "kind": "401", "times": 1})
        service.worker()
        with running_flower(service) as flower:
            beat = service.beat()
            wait_until(service.all_closed, PASS_SECONDS, service.logs)
            beat.kill()
            ended = {"SUCCESS", "FAILURE"}
            wait_until(lambda: {task["state"] for task in flower.tasks().values()} == ended, PASS_SECONDS, service.logs)
            yield Night(service, server, flower)


@pytest.fixture(scope="module")
def fault(night: Night) -> dict[str, Any]:
    """A task that fails as none should: the database quotes its argument. What Flower knows of it."""
    app = make_app("test", Settings.load(night.service.environment, directory=night.service.folder))
    app.send_task(ASSESS, args=["scan-none", {"key": PLANTED}], argsrepr="page 1 of scan-none", kwargsrepr="")
    app.close()

    def failed() -> list[dict[str, Any]]:
        tasks = night.flower.tasks().values()
        return [task for task in tasks if task["name"] == ASSESS and task["state"] == "FAILURE"]

    wait_until(lambda: bool(failed()), PASS_SECONDS, night.service.logs)
    [task] = failed()
    return task


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with real_browser() as started:
        yield started


@pytest.fixture
def page(night: Night, chromium: Browser) -> Iterator[Page]:
    """A page of somebody who has logged in."""
    context = chromium.new_context(
        http_credentials={"username": USER, "password": PASSWORD}, viewport={"width": 1620, "height": 800}
    )
    try:
        yield context.new_page()
    finally:
        context.close()


def open_tasks(page: Page, night: Night) -> dict[str, dict[str, str]]:
    """Open the tasks' page and read its table: each row by its task's id, each cell by its column."""
    page.goto(f"{night.flower.url}/tasks")
    table = page.locator("#tasks-table")
    table.locator("tbody tr a[href*='/task/']").first.wait_for()
    columns = [column.strip().lower() for column in table.locator("thead th").all_inner_texts()]
    return {_id(row): dict(zip(columns, row.locator("td").all_inner_texts(), strict=True)) for row in _rows(table)}


def _rows(table: Locator) -> list[Locator]:
    return table.locator("tbody tr").all()


def _id(row: Locator) -> str:
    return str(row.locator("a[href*='/task/']").first.get_attribute("href")).rpartition("/")[2]


def test_a_browser_without_the_login_is_not_let_in(night: Night, chromium: Browser) -> None:
    with chromium.new_context() as context, pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):
        context.new_page().goto(f"{night.flower.url}/tasks")


def test_a_browser_with_a_wrong_password_is_shown_nothing(night: Night, chromium: Browser) -> None:
    with chromium.new_context(http_credentials={"username": USER, "password": "wrong-passw0rd"}) as context:
        page = context.new_page()
        answer = page.goto(f"{night.flower.url}/tasks")
        assert answer is not None
        assert answer.status == 401
        assert page.locator("body").inner_text() == "Access denied"


def test_a_finished_and_a_failed_compaction_read_in_one_line_each(night: Night, page: Page) -> None:
    rows = open_tasks(page, night)

    done = night.row(State.SUCCEEDED)
    shown = rows[night.task_of(done)["uuid"]]
    who = f"{done.conversation_id} of {done.agent_id} ({done.usage_expected:.2f} expected)"
    figures = f"usage {done.usage_before:.2f} → {done.usage_after:.2f}"
    messages = f"{done.num_messages_before} → {done.num_messages_after} messages"
    assert (shown["name"], shown["state"]) == (COMPACT, "SUCCESS")
    assert shown["args"] == f"nightly, usage {done.usage_before:.2f}: {who}"
    assert shown["result"] == f"compacted: {figures}, {messages} ({done.conversation_id})"

    failed = night.row(State.FAILED)
    shown = rows[night.task_of(failed)["uuid"]]
    assert (shown["name"], shown["state"]) == (COMPACT, "FAILURE")
    assert failed.agent_id in shown["args"]
    assert shown["result"].startswith("failed: http_401: answered 401 (the key was not accepted; check LETTA_API_KEY)")

    picture = os.environ.get(PICTURE)
    if picture:
        page.screenshot(path=picture)
        assert Path(picture).stat().st_size > 0


def test_the_other_tasks_read_in_one_line_too(night: Night, page: Page) -> None:
    rows = open_tasks(page, night)
    ticks = [row for row in rows.values() if row["name"] == TICK]
    assert ticks
    assert {row["args"] for row in ticks} == {"schedule:nightly"}
    assert all(
        re.fullmatch(r"\d+ conversations listed, \d+ pages to measure \(scan-\S+\)|skipped: .*", row["result"])
        for row in ticks
    )
    pages = [row for row in rows.values() if row["name"] == ASSESS and row["state"] == "SUCCESS"]
    assert pages
    assert all(re.fullmatch(r"page \d+ of scan-\S+", row["args"]) for row in pages)
    assert any(re.fullmatch(r"\d+ decided: .*\d+ over_trigger.*", row["result"]) for row in pages)


def test_the_page_of_a_failed_task_says_why_and_has_no_traceback(night: Night, page: Page) -> None:
    task = night.task_of(night.row(State.FAILED))
    page.goto(f"{night.flower.url}/task/{task['uuid']}")
    said = page.locator("#task-page").inner_text()
    assert "failed: http_401: " in said
    assert "FAILURE" in said
    assert "traceback" not in said.lower()


def test_a_fault_of_the_service_is_told_by_its_kind_alone(night: Night, fault: dict[str, Any], page: Page) -> None:
    page.goto(f"{night.flower.url}/task/{fault['uuid']}")
    said = page.locator("#task-page").inner_text()
    assert "Error, a fault of the service itself: " in said
    assert "the worker's log has the traceback" in said
    assert PLANTED not in said


def test_no_page_without_the_login(night: Night) -> None:
    for path in HIDDEN:
        assert night.flower.get(path, login=None).status_code == 401, path
        assert night.flower.get(path, login=(USER, "")).status_code == 401, path


def test_what_answers_without_the_login_counts_tasks_and_knows_no_conversation(night: Night) -> None:
    assert night.flower.get("/healthcheck", login=None).text == "OK"
    metrics = night.flower.get("/metrics", login=None).text
    assert re.search(rf'flower_events_total{{.*task="{COMPACT}".*type="task-failed".*}} 1\.0', metrics)
    for row in night.service.rows():
        assert row.conversation_id == "default" or row.conversation_id not in metrics
        assert row.agent_id not in metrics
        assert row.id not in metrics


def test_nothing_that_is_served_carries_a_key_a_message_a_summary_or_a_traceback(
    night: Night, fault: dict[str, Any]
) -> None:
    done = night.row(State.SUCCEEDED)
    assert done.summary
    messages = night.server.get(f"/v1/conversations/{done.conversation_id}/messages", limit=100)
    texts = [message["content"] for message in messages if isinstance(message.get("content"), str)]
    assert texts
    paths = ["/", "/workers", "/tasks", "/broker", "/api/tasks", "/api/workers", "/metrics"]
    tasks = night.flower.tasks()
    assert fault["uuid"] in tasks
    paths += [f"/task/{uuid}" for uuid in tasks]
    served = {path: night.flower.get(path).text for path in paths}
    served["/tasks/datatable"] = night.flower.get(
        "/tasks/datatable", **{"draw": 1, "start": 0, "length": 500, "order[0][column]": 0, "columns[0][data]": "name"}
    ).text
    assert done.conversation_id in served["/tasks/datatable"]
    for path, text in served.items():
        for secret in (KEY, PLANTED, PASSWORD, "Traceback", done.summary, *texts):
            assert secret not in text, f"{path} shows {secret[:60]!r}"
    assert KEY not in night.flower.process.text()
    assert PASSWORD not in night.flower.process.text()


def test_nothing_can_be_done_from_the_pages(night: Night, page: Page) -> None:
    [worker] = night.flower.get("/api/workers").json()
    page.goto(f"{night.flower.url}/workers")
    page.get_by_text(worker).first.wait_for()
    for action in (f"/api/worker/shutdown/{worker}", f"/api/task/send-task/{COMPACT}"):
        assert night.flower.post(action, {"args": ["cmp-1"]}).status_code == 403, action
    assert night.service.processes[0].popen.poll() is None
