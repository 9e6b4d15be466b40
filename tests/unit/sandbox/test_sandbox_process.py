from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[3]


def command(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sandbox", *options], capture_output=True, text=True, timeout=20, cwd=ROOT, check=False
    )


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_within_two_seconds_with_status_0(start: Callable[..., Any], signum: signal.Signals) -> None:
    box = start("--seed", "3")
    box.http.get("/v1/health/").raise_for_status()
    started = time.monotonic()
    box.process.send_signal(signum)
    assert box.process.wait(5) == 0
    assert time.monotonic() - started < 2.0


def test_it_stops_in_time_also_while_a_compaction_runs(start: Callable[..., Any]) -> None:
    box = start("--compact-latency", "30")
    conversation = box.conversation(pairs=10)
    lost: list[type[BaseException]] = []

    def compact() -> None:
        try:
            httpx.post(f"{box.base_url}/v1/conversations/{conversation}/compact", timeout=20)
        except httpx.HTTPError as error:
            lost.append(type(error))

    waiting = threading.Thread(target=compact)
    waiting.start()
    time.sleep(0.4)
    started = time.monotonic()
    box.process.terminate()
    assert box.process.wait(5) == 0
    assert time.monotonic() - started < 2.0
    waiting.join()
    assert len(lost) <= 1


def test_what_it_leaves_unfinished_when_it_stops_makes_no_traceback(tmp_path: Path) -> None:
    options = ("--database", str(tmp_path / "x.db"), "--seed", "2", "--compact-latency", "30", "--reply-latency", "30")
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().split()[-1] + "/v1/conversations/"
        conversation = httpx.get(url, params={"order_by": "last_message_at"}).json()[0]["id"]
        asked: list[tuple[str, dict[str, Any]]] = [("compact", {}), ("messages", {"input": "hello"})]
        failed: list[Exception] = []

        def ask(path: str, body: dict[str, Any]) -> None:
            try:
                httpx.post(f"{url}{conversation}/{path}", json=body, timeout=20)
            except httpx.RemoteProtocolError as error:
                failed.append(error)

        threads = [threading.Thread(target=ask, args=one) for one in asked]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        process.terminate()
        told = process.stderr.read()
        for thread in threads:
            thread.join()
        assert process.wait() == 0
    assert len(failed) == 2
    assert "Traceback" not in told


def test_started_again_with_the_same_file_it_goes_on_where_it_was(start: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "kept.db"
    first = start("--seed", "5", database=file)
    conversation = first.conversation(pairs=10)
    first.compact(conversation).raise_for_status()
    context, log = first.context(conversation), first.log(conversation)
    first.process.kill()
    first.process.wait()
    second = start("--seed", "50", database=file)
    assert second.context(conversation) == context
    assert second.log(conversation) == log
    assert len(second.http.get("/v1/conversations/", params={"limit": 500}).json()) == 6


def test_help_names_every_option_and_explains_the_faults() -> None:
    told = command("--help")
    assert told.returncode == 0
    for option in (
        "--host",
        "--port",
        "--database",
        "--seed",
        "--latency",
        "--compact-latency",
        "--api-key",
        "--fault",
    ):
        assert option in told.stdout
    assert "reset-after" in told.stdout


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ((), "--database"),
        (("--seed", "many"), "'many' is not a whole number"),
        (("--port", "70000"), "'70000' is not a whole number"),
        (("--latency", "soon"), "'soon' is not a delay"),
        (("--ping-interval", "0"), "greater than 0"),
        (("--fault", "compact:nonsense"), "there is no fault 'nonsense'"),
    ],
)
def test_wrong_use_is_status_2_with_the_reason(tmp_path: Path, options: tuple[str, ...], complaint: str) -> None:
    database = ("--database", str(tmp_path / "x.db")) if options else ()
    told = command(*database, *options)
    assert told.returncode == 2
    assert complaint in told.stderr
    assert "Traceback" not in told.stderr


def test_a_port_that_is_taken_is_an_error_that_names_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        told = command("--database", str(tmp_path / "x.db"), "--port", port)
    assert told.returncode == 1
    assert port in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize("content", [None, b"This is no database, it only looks like a file." * 100])
def test_a_file_that_is_no_database_is_an_error_that_names_it(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "missing" / "x.db" if content is None else tmp_path / "text.db"
    if content is not None:
        file.write_bytes(content)
    told = command("--database", str(file))
    assert told.returncode == 1
    assert str(file) in told.stderr
    assert "Traceback" not in told.stderr


def test_it_imports_nothing_of_the_product_and_the_product_nothing_of_it() -> None:
    imported = re.compile(r"^\s*(?:from|import) (worker|scheduler|ops)\b", re.MULTILINE)
    modules = list((ROOT / "sandbox").rglob("*.py"))
    assert len(modules) > 20
    assert [module.name for module in modules if imported.search(module.read_text())] == []
