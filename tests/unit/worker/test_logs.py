from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog import contextvars

from worker.logs.about import about, begin_task, end_task
from worker.logs.lines import FIELDS
from worker.logs.setup import configure
from worker.loop import LettaLoop
from worker.names import ATTEND, COMPACT, NOTIFY, TICK
from worker.settings import Settings
from worker.telemetry.tasklogs import Unseen

KEY = "sk-marked-key"
LOGIN = "ops:hush-hush-1"
PASSWORD = "p@ss/wörd"
SECRET = "whsec_bWFya2VkLXNlY3JldC1vZi0zMi1ieXRlcy1sb25nIQ=="
TOKEN = "T0/B0/marked-token-of-a-hook"

GIVEN = {
    "LETTA_API_KEY": KEY,
    "STEP_COMPLETE_KEY": "marked-step-key",
    "COMPACTOR_WEBHOOK_SECRETS": SECRET,
    "COMPACTOR_NOTIFY_SECRET": SECRET,
    "COMPACTOR_NOTIFY_URLS": f"https://hooks.example/{TOKEN}?sig=marked-query",
    "COMPACTOR_FLOWER_AUTH": LOGIN,
    "COMPACTOR_BROKER_URL": "redis://:p%40ss%2Fw%C3%B6rd@localhost:6379/0",
    "COMPACTOR_DATABASE_URL": "postgresql://me:marked-db-password@localhost/ledger",
}

SECRETS = {
    "the API key": KEY,
    "the server's own key": "marked-step-key",
    "a signing secret": SECRET,
    "a signing secret's bare form": SECRET.removeprefix("whsec_"),
    "an endpoint's path": TOKEN,
    "an endpoint's query": "marked-query",
    "a login": LOGIN,
    "a login's password": "hush-hush-1",
    "a login as a header": "b3BzOmh1c2gtaHVzaC0x",
    "the database's password": "marked-db-password",
}


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.raiseExceptions, warnings.formatwarning
    hooks = sys.excepthook, threading.excepthook
    contextvars.clear_contextvars()
    yield
    contextvars.clear_contextvars()
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level, logging.raiseExceptions, warnings.formatwarning = before
    sys.excepthook, threading.excepthook = hooks


class Log:
    """A process's log, held in memory."""

    def __init__(self, folder: Path, form: str = "json", **given: str) -> None:
        self.stream = io.StringIO()
        settings = Settings.load({"COMPACTOR_LOG_FORMAT": form, **GIVEN, **given}, directory=folder)
        configure(settings, stream=self.stream)
        self.logger = logging.getLogger("worker.some.place")

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    def line(self) -> dict[str, Any]:
        [line] = self.lines()
        return line


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_a_line_is_an_object_with_its_time_its_level_its_logger_and_its_sentence(log: Log) -> None:
    log.logger.info("%d of %s", 3, "ü")
    line = log.line()
    assert line.pop("timestamp").endswith("Z")
    assert line == {"level": "info", "logger": "worker.some.place", "message": "3 of ü"}


def test_a_line_carries_what_it_is_about(log: Log) -> None:
    with about(compaction_id="cmp-1", scan_id=None), about(conversation_id="conv-1"):
        log.logger.info("inside")
    log.logger.info("outside")
    inside, outside = log.lines()
    assert (inside["compaction_id"], inside["conversation_id"]) == ("cmp-1", "conv-1")
    assert "scan_id" not in inside
    assert not {"compaction_id", "conversation_id"} & outside.keys()


def test_a_block_that_fails_leaves_nothing_behind(log: Log) -> None:
    with pytest.raises(KeyError), about(event_id="evt-1"):
        raise KeyError
    log.logger.info("later")
    assert "event_id" not in log.line()


def test_a_task_forgets_what_the_one_before_it_in_the_thread_was_about(log: Log) -> None:
    begin_task("compactor.compact", "task-1")
    contextvars.bind_contextvars(compaction_id="cmp-left-behind")
    begin_task("compactor.scan", "task-2")
    log.logger.info("the second")
    end_task()
    log.logger.info("between two")
    second, between = log.lines()
    assert (second["task"], second["task_id"]) == ("compactor.scan", "task-2")
    assert "compaction_id" not in second
    assert not {"task", "task_id"} & between.keys()


def test_what_a_thread_asks_the_loop_for_is_about_the_same(log: Log) -> None:
    async def ask(_: object) -> None:
        log.logger.info("on the loop")

    class Connection:
        async def __aenter__(self) -> None: ...
        async def __aexit__(self, *_: object) -> None: ...

    loop = LettaLoop(Connection)  # type: ignore[arg-type,type-abstract]
    try:
        with about(compaction_id="cmp-1"):
            loop.call(ask)
        loop.call(ask)
    finally:
        loop.close()
    first, second = log.lines()
    assert first["compaction_id"] == "cmp-1"
    assert "compaction_id" not in second


def test_the_fields_of_a_sentence_are_for_programs_alone(log: Log, tmp_path: Path) -> None:
    log.logger.info("it is done", extra={FIELDS: {"usage_after": 0.38, "flags": ["target_missed"]}})
    assert (log.line()["usage_after"], log.line()["flags"]) == (0.38, ["target_missed"])
    for_people = Log(tmp_path, "text")
    for_people.logger.info("it is done", extra={FIELDS: {"usage_after": 0.38}})
    assert "it is done" in for_people.text
    assert "usage_after" not in for_people.text


def test_a_text_line_has_its_ids_behind_its_sentence(tmp_path: Path) -> None:
    log = Log(tmp_path, "text")
    with about(compaction_id="cmp-1"):
        log.logger.warning("something is up")
    [line] = log.text.splitlines()
    assert line.index("warning") < line.index("something is up") < line.index("compaction_id=cmp-1")


def test_a_quoted_line_end_or_control_sequence_stays_within_its_line(tmp_path: Path) -> None:
    log = Log(tmp_path, "text")
    log.logger.info("it said %s", "one\n2026-01-01 [info] all is well\x1b[2J\x9b\u2028")
    [line] = log.text.splitlines()
    assert line.isprintable()


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS.keys())
def test_a_secret_is_masked_wherever_it_stands(form: str, secret: str, tmp_path: Path) -> None:
    log = Log(tmp_path, form)
    with about(agent_id=f"agent-{secret}"):
        log.logger.error("it was (%s)", secret, extra={FIELDS: {"deep": [{"er": secret}], secret: (secret,)}})
        try:
            raise OSError(f"no way to {secret}")  # noqa: TRY301
        except OSError:
            log.logger.exception("so it went")
    assert secret not in log.text
    assert "***" in log.text


@pytest.mark.parametrize("written", [PASSWORD, "p%40ss%2Fw%C3%B6rd", "redis://:p%40ss%2Fw%C3%B6rd@localhost:6379/0"])
def test_the_brokers_password_is_masked_in_each_of_its_forms(log: Log, written: str) -> None:
    log.logger.info("cannot connect to %s", written)
    assert written.partition("://")[2].partition("@l")[0].lstrip(":") not in log.text or "://" not in written
    assert PASSWORD not in log.text
    assert "w%C3%B6rd" not in log.text


@pytest.mark.parametrize(
    ("said", "masked"),
    {
        "redis://user:pw@host/0": "redis://user:***@host/0",
        "redis://:pw@host/0": "redis://:***@host/0",
        "Authorization: Bearer abc.def-123": "Authorization: Bearer ***",
        "authorization: basic dXNlcjpwdw==": "authorization: basic ***",
        "see https://host:8283/path": "see https://host:8283/path",
        "a basic idea, the bearer of news": "a basic idea, the bearer of news",
    }.items(),
)
def test_what_stands_where_secrets_stand_is_masked_though_nobody_set_it(log: Log, said: str, masked: str) -> None:
    log.logger.info("%s", said)
    assert log.line()["message"] == masked


def test_a_field_that_is_no_plain_value_cannot_smuggle_a_secret(log: Log) -> None:
    class Holder:
        def __repr__(self) -> str:
            return f"<holds {KEY}>"

    log.logger.info("look", extra={FIELDS: {"what": Holder(), "set": {KEY}}})
    assert KEY not in log.text
    assert log.line()["what"] == "<holds ***>"


def test_a_traceback_names_places_and_kinds_and_none_of_the_values(log: Log) -> None:
    def read(text: str) -> None:
        int(text)

    said = " ".join(["what", "the", "user", "said"])
    try:
        try:
            read(said)
        except ValueError as error:
            raise RuntimeError(said) from error
    except RuntimeError:
        log.logger.exception("it broke")
    told = log.line()["exception"]
    assert "in read" in told
    assert "ValueError (its words are withheld" in told
    assert "RuntimeError (its words are withheld" in told
    assert told.index("ValueError (") < told.index("RuntimeError (")
    assert said not in log.text


@pytest.mark.parametrize("error", [ValueError("a prompt"), KeyError("a prompt"), UnicodeError("a prompt")])
def test_an_error_that_is_told_in_a_sentence_does_not_quote_what_it_worked_on(log: Log, error: Exception) -> None:
    log.logger.warning("it did not work: %s", error)
    assert log.line()["message"].startswith(f"it did not work: {type(error).__name__} (its words are withheld")
    assert "a prompt" not in log.text


def test_an_error_of_the_machine_is_told_in_its_own_words(log: Log) -> None:
    log.logger.warning("it did not work: %s", ConnectionRefusedError(111, "Connection refused"))
    assert log.line()["message"] == "it did not work: [Errno 111] Connection refused"


def test_what_a_server_answered_is_left_to_the_ledger(log: Log) -> None:
    log.logger.error("failed: POST /v1/x: answered 500 (the server failed): could not summarize 'dear diary\nmore'")
    log.logger.error("the answer was lost: cut short; it answered: {'summary': 'dear diary'}")
    first, second = log.lines()
    assert first["message"] == "failed: POST /v1/x: answered 500 (the server failed); its words are in the ledger"
    assert second["message"] == "the answer was lost: cut short"


def test_celerys_line_about_a_failed_task_does_not_hold_the_errors_repr(log: Log) -> None:
    try:
        raise ValueError("a prompt")  # noqa: TRY301
    except ValueError as error:
        context = {"name": "compactor.compact", "id": "task-1", "exc": repr(error), "args": "['a prompt']"}
        told = "Task %(name)s[%(id)s] raised unexpected: %(exc)s"
        logging.getLogger("celery.app.trace").error(told, context, exc_info=True, extra={"data": context})
    line = log.line()
    assert line["message"].startswith("Task compactor.compact[task-1] raised unexpected: ValueError (its words")
    assert "a prompt" not in line["message"]
    assert "data" not in line


def test_an_error_that_nobody_caught_is_a_line_of_the_log(log: Log) -> None:
    def fall() -> None:
        raise LookupError("a prompt")

    thread = threading.Thread(target=fall, name="heart")
    thread.start()
    thread.join()
    line = log.line()
    assert line["message"] == "a fault of the service itself ended the thread heart"
    assert "in fall" in line["exception"]
    assert "LookupError (its words are withheld" in line["exception"]


def test_the_form_is_text_on_a_terminal_and_json_elsewhere(tmp_path: Path) -> None:
    assert Log(tmp_path, "auto").text == ""
    logging.getLogger("x").warning("nobody looks")
    elsewhere = Log(tmp_path, "auto")
    elsewhere.logger.warning("nobody looks")
    assert elsewhere.line()["message"] == "nobody looks"

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    configure(Settings.load({}, directory=tmp_path), stream=stream)
    logging.getLogger("x").warning("somebody looks")
    assert not stream.getvalue().startswith("{")
    assert "somebody looks" in stream.getvalue()


def test_configured_again_each_line_is_written_once(tmp_path: Path) -> None:
    first, second = Log(tmp_path), Log(tmp_path)
    second.logger.warning("once")
    assert first.text == ""
    assert second.line()["message"] == "once"


def test_loggers_that_tell_whole_urls_are_quiet(log: Log) -> None:
    logging.getLogger("httpx").info("HTTP Request: GET https://host/?token=abc")
    assert log.text == ""


@pytest.mark.parametrize(
    ("speaker", "args", "seen"),
    [
        ("celery.app.trace", ({"name": ATTEND, "id": "1"},), False),
        ("celery.worker.strategy", ({"name": NOTIFY, "id": "1"},), False),
        ("celery.beat", ("attend", ATTEND), False),
        ("celery.beat", ("nightly", TICK), True),
        ("celery.app.trace", ({"name": COMPACT, "id": "1"},), True),
    ],
)
def test_tasks_of_every_few_seconds_do_not_bury_the_others(
    speaker: str, args: tuple[object, ...], *, seen: bool
) -> None:
    come = logging.LogRecord(speaker, logging.INFO, "x.py", 1, "it came", args, None)
    fell = logging.LogRecord(speaker, logging.ERROR, "x.py", 1, "it fell", args, None)
    assert Unseen().filter(come) is seen
    assert Unseen().filter(fell)
