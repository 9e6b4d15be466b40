"""The guard that keeps tests on this machine."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.network import GUARD, NotLoopback, is_loopback

ROOT = Path(__file__).parents[3]


@pytest.fixture
def expected(only_loopback: None) -> Iterator[list[str]]:
    """Attempts that a test makes on purpose, taken away before the guard counts them."""
    yield GUARD.attempts
    GUARD.attempts.clear()


@pytest.mark.parametrize(
    "address", [("127.0.0.1", 80), ("127.9.9.9", 80), ("::1", 80, 0, 0), ("localhost", 1), "/run/x.sock", b"\0x"]
)
def test_this_machine_may_be_reached(address: object) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("2001:db8::1", 80, 0, 0), ("letta.example", 80)])
def test_another_machine_may_not(address: object) -> None:
    assert not is_loopback(address)


def test_a_connection_to_another_machine_is_refused_and_remembered(expected: list[str]) -> None:
    with socket.socket() as client, pytest.raises(NotLoopback, match=r"192\.0\.2\.1"):
        client.connect(("192.0.2.1", 9))
    assert len(expected) == 1


def test_a_datagram_to_another_machine_is_refused(expected: list[str]) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as client, pytest.raises(NotLoopback):
        client.sendto(b"x", ("192.0.2.1", 9))
    assert len(expected) == 1


def test_looking_up_another_machine_is_refused_too(expected: list[str]) -> None:
    with pytest.raises(NotLoopback, match=r"letta\.example"):
        socket.getaddrinfo("letta.example", 80)
    assert len(expected) == 1


def test_a_name_that_never_exists_is_not_found_and_nobody_is_asked() -> None:
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("no-such-host.invalid", 80)


def test_a_refusal_that_was_swallowed_still_fails_the_test(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import only_loopback\n")
    (tmp_path / "test_hiding.py").write_text(
        "import socket\n"
        "def test_that_hides_it():\n"
        "    try:\n"
        "        socket.create_connection(('192.0.2.1', 9), timeout=1)\n"
        "    except Exception:\n"
        "        pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", "-c", os.devnull]
    run = subprocess.run(
        [*command, "-o", f"pythonpath={ROOT}", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "1 passed, 1 error" in run.stdout
    assert "tests talk to loopback addresses only" in run.stdout
    assert "192.0.2.1" in run.stdout
