"""The policy file while the service runs: changes are taken, bad ones are not."""

import logging
import os
from pathlib import Path

import pytest

from tests.support.race import race
from worker.policy.forecast import SlidingWindow
from worker.policy.load import PolicyError
from worker.policyfile import PolicyFile


def write(path: Path, trigger: float) -> None:
    path.write_text(f"[policies.default]\ntrigger_usage = {trigger}\n")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    written = tmp_path / "policy.toml"
    write(written, 0.7)
    return written


@pytest.fixture
def file(path: Path) -> PolicyFile:
    return PolicyFile(path, SlidingWindow.EVICT)


def trigger(file: PolicyFile) -> float:
    return file.book().policies["default"].trigger_usage


def test_a_service_does_not_start_on_a_bad_file(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text("[policies.default]\ntrigger_usage = 70\n")
    with pytest.raises(PolicyError, match="trigger_usage"):
        PolicyFile(tmp_path / "policy.toml", SlidingWindow.EVICT)


def test_a_service_does_not_start_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="there is no such file"):
        PolicyFile(tmp_path / "policy.toml", SlidingWindow.EVICT)


def test_an_unchanged_file_is_read_once(file: PolicyFile) -> None:
    assert file.book() is file.book()


def test_a_change_is_in_force_with_the_next_look(file: PolicyFile, path: Path) -> None:
    write(path, 0.8)
    assert trigger(file) == 0.8


def test_a_change_of_the_same_length_within_the_clocks_tick_is_seen_when_an_editor_replaces_the_file(
    file: PolicyFile, path: Path, tmp_path: Path
) -> None:
    before = path.stat()
    other = tmp_path / "policy.toml~"
    write(other, 0.9)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    assert trigger(file) == 0.9


@pytest.mark.parametrize("damage", ["bad value", "not toml", "not utf-8", "gone", "a folder"])
def test_a_file_that_turns_bad_leaves_the_last_good_one_in_force_and_is_told_once(
    file: PolicyFile, path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    match damage:
        case "bad value":
            write(path, 70)
        case "not toml":
            path.write_text("[policies.default")
        case "not utf-8":
            path.write_bytes(b"# f\xfcr\n")
        case "gone":
            path.unlink()
        case "a folder":
            path.unlink()
            path.mkdir()
    with caplog.at_level(logging.INFO):
        assert [trigger(file) for _ in range(3)] == [0.7, 0.7, 0.7]
    (told,) = caplog.records
    assert told.levelno == logging.ERROR
    assert told.exc_info is None
    assert str(path) in told.getMessage()
    assert "the last good one stays in force" in told.getMessage()
    assert isinstance(file.problem, PolicyError)


def test_a_file_that_is_good_again_is_taken(file: PolicyFile, path: Path) -> None:
    write(path, 70)
    assert trigger(file) == 0.7
    write(path, 0.85)
    assert trigger(file) == 0.85
    assert file.problem is None


def test_a_percentage_that_would_wipe_is_not_taken_by_a_running_service_either(file: PolicyFile, path: Path) -> None:
    path.write_text("[policies.default.compaction]\nsliding_window_percentage = 0.95\n")
    assert file.book().policies["default"].compaction.sliding_window_percentage is None
    assert file.problem is not None


def test_threads_that_look_at_once_all_see_the_change(file: PolicyFile, path: Path) -> None:
    write(path, 0.8)
    assert race(lambda _: trigger(file)) == [0.8] * 8
