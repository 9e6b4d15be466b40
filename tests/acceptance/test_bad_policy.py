"""Mistakes in the policy file: each is named, and nothing starts on one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.terminal import ROOT, Terminal, bare_environment, open_terminal

START_SECONDS = 60

GOOD = """
timezone = "UTC"
[policies.default]
trigger_usage = 0.70
target_usage = 0.40
[policies.default.compaction]
mode = "sliding_window"
[schedules.nightly]
policy = "default"
cron = "0 3 * * *"
"""

DEFAULT = "policies.default"
COMPACTION = "policies.default.compaction"
NIGHTLY = "schedules.nightly"


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


MISTAKES: dict[str, tuple[str, list[str]]] = {
    "empty": ("", ["policies", "is required"]),
    "not TOML": (changed("0.70", "= 0.70"), ["is not TOML", "line 4"]),
    "a key twice": (changed("0.70", "0.70\ntrigger_usage = 0.8"), ["is not TOML", "line 5"]),
    "no policy": ("[policies]\n", ["policies", "at least 1"]),
    "an unknown table": (GOOD + "[polices.x]\n", ["polices", "policies, schedules, timezone", "mean policies"]),
    "a misspelt key": (changed("target_usage", "target"), [f"{DEFAULT}.target", "known:", "mean target_usage?"]),
    "an unknown key of a schedule": (changed("cron =", "crom ="), [f"{NIGHTLY}.crom", "cron, every, policy"]),
    "a trigger in per cent": (changed("0.70", "70"), [f"{DEFAULT}.trigger_usage", "less than or equal to 1"]),
    "a negative target": (changed("0.40", "-0.1"), [f"{DEFAULT}.target_usage", "greater than or equal to 0"]),
    "a usage that is no number": (changed("0.70", '"high"'), [f"{DEFAULT}.trigger_usage", "a number", "not text"]),
    "a usage that is nan": (changed("0.70", "nan"), [f"{DEFAULT}.trigger_usage"]),
    "marks in the wrong order": (
        changed("0.40", "0.80"),
        [DEFAULT, "target_usage 0.8 must be below"],
    ),
    "a duration without a unit": (changed("0.40", "0.40\nidle_for = 30"), [f"{DEFAULT}.idle_for", '"30s" or "30m"']),
    "a duration in words": (
        changed("0.40", '0.40\ncooldown = "one hour"'),
        [f"{DEFAULT}.cooldown", '"90s", "15m", "1h30m"'],
    ),
    "half a message": (
        changed("0.40", "0.40\nmin_messages = 3.5"),
        [f"{DEFAULT}.min_messages", "whole number"],
    ),
    "a brake for good": (
        changed("0.40", "0.40\nmax_per_scan = 0"),
        [f"{DEFAULT}.max_per_scan", "equal to 1"],
    ),
    "an unknown mode": (
        changed("sliding_window", "slide"),
        [f"{COMPACTION}.mode", "'slide' is not allowed", "all, sliding_window"],
    ),
    "an unknown setting": (
        changed("mode =", "clip_characters = 9\nmode ="),
        [f"{COMPACTION}.clip_characters", "known:", "mean clip_chars?"],
    ),
    "a share that wipes": (
        changed("mode =", "sliding_window_percentage = 0.9\nmode ="),
        [f"{COMPACTION}.sliding_window_percentage", "evicts every message at 0.9", "allowed: 0 to below 0.9"],
    ),
    "a share in mode all": (
        changed('mode = "sliding_window"', 'mode = "all"\nsliding_window_percentage = 0.3'),
        [DEFAULT, "sliding_window_percentage has no effect in mode 'all'"],
    ),
    "an unknown provider": (
        GOOD + '[policies.default.compaction.model_settings]\nprovider_type = "opeani"\n',
        [f"{COMPACTION}.model_settings.provider_type", "'opeani' is not allowed", "mean openai?"],
    ),
    "a field of another provider": (
        GOOD + '[policies.default.compaction.model_settings]\nprovider_type = "openai"\nthinking = true\n',
        [f"{COMPACTION}.model_settings", "thinking", "openai has no such field"],
    ),
    "a policy that is no table": (changed("[policies.default]", "policies.x = 1\n[policies.default]"), ["policies.x"]),
    "a name with a blank": (changed("[schedules.nightly]", '[schedules."every night"]'), ["'every night'", "letters"]),
    "a schedule of no policy": (
        changed('policy = "default"', 'policy = "defualt"'),
        [f"{NIGHTLY}.policy", "no policy 'defualt'", "known: default", "mean default?"],
    ),
    "a schedule without a time": (changed('cron = "0 3 * * *"', ""), [NIGHTLY, "exactly one of"]),
    "a schedule with two times": (
        changed("cron =", 'every = "1h"\ncron ='),
        [NIGHTLY, "exactly one of"],
    ),
    "a cron of six fields": (changed("0 3 * * *", "0 0 3 * * *"), [f"{NIGHTLY}.cron", "five fields", '"0 3 * * *"']),
    "a cron out of range": (changed("0 3 * * *", "0 25 * * *"), [f"{NIGHTLY}.cron", "hour"]),
    "a cron that never comes": (changed("0 3 * * *", "0 3 31 2 *"), [f"{NIGHTLY}.cron", "day-of-month"]),
    "an interval of nothing": (changed('cron = "0 3 * * *"', 'every = "0s"'), [NIGHTLY, "at least 1s"]),
    "an unknown time zone": (changed('"UTC"', '"Mars/Olympus"'), ["timezone", "'Mars/Olympus'", "Europe/Berlin"]),
}


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    with open_terminal(tmp_path_factory.mktemp("policies"), {"LETTA_BASE_URL": "http://127.0.0.1:1"}) as typed:
        yield typed


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_file_key_and_what_is_allowed(terminal: Terminal, tmp_path: Path, mistake: str) -> None:
    text, names = MISTAKES[mistake]
    file = tmp_path / "bad.toml"
    file.write_text(text)

    said = terminal("policy", "check", str(file), expect=2)

    assert not said.out
    assert all(line.startswith(f"compactor: {file}: ") for line in said.err.splitlines())
    assert all(name in said.err for name in names), said.err

    shown = terminal("policy", "check", str(file), "--json", expect=2).json()
    assert (shown["file"], shown["valid"]) == (str(file), False)
    assert all(any(name in problem for problem in shown["problems"]) for name in names)


def test_all_mistakes_of_a_file_are_named_at_once(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(changed("0.70", "7").replace("0 3 * * *", "never").replace('"UTC"', '"Mars"'))
    problems = terminal("policy", "check", str(file), "--json", expect=2).json()["problems"]
    assert {problem.partition(":")[0] for problem in problems} == {
        "timezone",
        "policies.default.trigger_usage",
        "schedules.nightly.cron",
    }


def test_the_share_that_wipes_depends_on_what_the_server_does_with_it(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "keep.toml"
    file.write_text(changed("mode =", "sliding_window_percentage = 0.05\nmode ="))
    terminal("policy", "check", str(file), expect=0)
    said = terminal("policy", "check", str(file), expect=2, LETTA_SLIDING_WINDOW="keep")
    assert "LETTA_SLIDING_WINDOW=keep" in said.err
    assert "allowed: above 0.1 to 1" in said.err


def test_a_file_that_is_not_text_is_told_so(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8 text" in terminal("policy", "check", str(file), expect=2).err


def test_no_command_that_needs_the_policies_runs_on_a_bad_file(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(changed("0.70", "7"))
    more = {"COMPACTOR_POLICY_FILE": str(file), "COMPACTOR_STATE_DIR": str(tmp_path / "state")}
    more |= {"COMPACTOR_BROKER_URL": "redis://127.0.0.1:1/0"}
    terminal("db", "upgrade", expect=0, **more)
    for arguments in (["scan"], ["scan", "--dry-run"], ["compact", "conv-1"], ["up", "--once"]):
        said = terminal(*arguments, expect=2, **more)
        assert f"{file}: policies.default.trigger_usage: " in said.err
    said = terminal("doctor", expect=1, **more)
    assert f"policy         {file}: policies.default.trigger_usage: " in said.out
    assert not list((tmp_path / "state").glob("sandbox*"))


@pytest.mark.parametrize("command", [["worker", "worker"], ["scheduler", "beat"]], ids=["worker", "beat"])
def test_worker_and_beat_do_not_start_on_a_bad_file(tmp_path: Path, command: list[str], redis_url: str) -> None:
    (tmp_path / "policy.toml").write_text(changed("0.70", "7"))
    environment = bare_environment() | {
        "LETTA_BASE_URL": "http://127.0.0.1:1",
        "COMPACTOR_BROKER_URL": redis_url,
        "COMPACTOR_STATE_DIR": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "celery", "-A", *command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode == 2, said
    assert "Traceback" not in said
    assert "policy.toml: policies.default.trigger_usage: must be less than or equal to 1" in said
