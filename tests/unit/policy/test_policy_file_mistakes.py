"""Every kind of mistake in a policy file: refused whole, with the file, the key, and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.policy.forecast import SlidingWindow
from worker.policy.load import PolicyError, load
from worker.policyfile import read_policy

GOOD = """
[policies.default]
trigger_usage = 0.7
"""

MISTAKES: dict[str, tuple[str, str, str]] = {
    # what is wrong: (the file, the key that is named, what is said of it)
    "no policies": ('timezone = "UTC"', "policies", "is required"),
    "an empty table of policies": ("[policies]", "policies", "must have at least 1 item"),
    "policies as a list": ("[[policies]]\ntrigger_usage = 0.7", "policies", "must be a table, not a list"),
    "a policy that is no table": ("policies.default = 3", "policies.default", "must be a table, not a whole number"),
    "an unknown table": (
        GOOD + "[schedule.x]\n",
        "schedule",
        "known: policies, schedules, timezone, webhook (did you mean",
    ),
    "a webhook policy that is not there": (
        GOOD + '[webhook]\npolicy = "defalt"\n',
        "webhook.policy",
        "there is no policy 'defalt'; known: default (did you mean default?)",
    ),
    "a misspelt key": (
        "[policies.default]\ntriger_usage = 0.7",
        "policies.default.triger_usage",
        "there is no such field; known: ",
    ),
    "a trigger in percent": (
        "[policies.default]\ntrigger_usage = 70",
        "policies.default.trigger_usage",
        "less than or equal to 1",
    ),
    "a trigger of zero": ("[policies.default]\ntrigger_usage = 0", "policies.default.trigger_usage", "greater than 0"),
    "a trigger in words": (
        '[policies.default]\ntrigger_usage = "high"',
        "policies.default.trigger_usage",
        "must be a number, not text",
    ),
    "a trigger that is no number": (
        "[policies.default]\ntrigger_usage = nan",
        "policies.default.trigger_usage",
        "finite",
    ),
    "a target below nothing": (
        "[policies.default]\ntarget_usage = -0.1",
        "policies.default.target_usage",
        "greater than or equal to 0",
    ),
    "a target above the trigger": (
        "[policies.default]\ntrigger_usage = 0.5\ntarget_usage = 0.6",
        "policies.default",
        "target_usage 0.6 must be below trigger_usage 0.5",
    ),
    "a target equal to the trigger": (
        "[policies.default]\ntrigger_usage = 0.5\ntarget_usage = 0.5",
        "policies.default",
        "must be below",
    ),
    "fewer messages than can be compacted": (
        "[policies.default]\nmin_messages = 2",
        "policies.default.min_messages",
        "greater than or equal to 3",
    ),
    "half a message": ("[policies.default]\nmin_messages = 10.5", "policies.default.min_messages", "whole number"),
    "a scan that may plan nothing": (
        "[policies.default]\nmax_per_scan = 0",
        "policies.default.max_per_scan",
        "greater than or equal to 1",
    ),
    "a duration without a unit": (
        "[policies.default]\nidle_for = 30",
        "policies.default.idle_for",
        'write "30s" or "30m"',
    ),
    "a duration in words": (
        '[policies.default]\ncooldown = "six hours"',
        "policies.default.cooldown",
        'write one such as "90s", "15m", "1h30m" or "2d"',
    ),
    "an endless duration": (
        '[policies.default]\ncooldown = "99999w"',
        "policies.default.cooldown",
        "longer than 3650 days",
    ),
    "an unknown mode": (
        '[policies.default.compaction]\nmode = "sliding"',
        "policies.default.compaction.mode",
        "allowed: all, sliding_window, self_compact_all, self_compact_sliding_window",
    ),
    "a model that is no handle": (
        '[policies.default.compaction]\nmodel = "gpt-4o"',
        "policies.default.compaction.model",
        "provider/model-name",
    ),
    "an unknown setting of the API": (
        "[policies.default.compaction]\nclip_char = 100",
        "policies.default.compaction.clip_char",
        "did you mean clip_chars?",
    ),
    "a setting of the wrong type": (
        '[policies.default.compaction]\nclip_chars = "many"',
        "policies.default.compaction.clip_chars",
        "must be a whole number, not text",
    ),
    "a percentage above one": (
        "[policies.default.compaction]\nsliding_window_percentage = 30",
        "policies.default.compaction.sliding_window_percentage",
        "less than or equal to 1",
    ),
    "a percentage that wipes": (
        "[policies.default.compaction]\nsliding_window_percentage = 0.9",
        "policies.default.compaction.sliding_window_percentage",
        "falls back to mode 'all'; allowed: 0 to below 0.9",
    ),
    "a percentage in a mode that has none": (
        '[policies.default.compaction]\nmode = "all"\nsliding_window_percentage = 0.3',
        "policies.default",
        "sliding_window_percentage has no effect in mode 'all'",
    ),
    "a provider that is not known": (
        '[policies.default.compaction.model_settings]\nprovider_type = "acme"',
        "policies.default.compaction.model_settings.provider_type",
        "allowed: openai, ",
    ),
    "model settings without a provider": (
        "[policies.default.compaction.model_settings]\ntemperature = 0.5",
        "policies.default.compaction.model_settings.provider_type",
        "is required; allowed: openai, ",
    ),
    "a field of another provider": (
        '[policies.default.compaction.model_settings]\nprovider_type = "groq"\nthinking = {type = "enabled"}',
        "policies.default.compaction.model_settings.thinking",
        "groq has no such field",
    ),
    "a schedule without a policy": (
        GOOD + '[schedules.nightly]\nevery = "1h"',
        "schedules.nightly.policy",
        "is required",
    ),
    "a schedule of a policy that is not there": (
        GOOD + '[schedules.nightly]\npolicy = "defualt"\nevery = "1h"',
        "schedules.nightly.policy",
        "known: default (did you mean default?)",
    ),
    "a schedule that is never due": (
        GOOD + '[schedules.nightly]\npolicy = "default"',
        "schedules.nightly",
        "needs exactly one of cron and every",
    ),
    "a schedule with two clocks": (
        GOOD + '[schedules.nightly]\npolicy = "default"\ncron = "0 3 * * *"\nevery = "1h"',
        "schedules.nightly",
        "needs exactly one of cron and every",
    ),
    "a schedule that is always due": (
        GOOD + '[schedules.nightly]\npolicy = "default"\nevery = "0s"',
        "schedules.nightly",
        "every must be at least 1s",
    ),
    "a cron of four fields": (
        GOOD + '[schedules.nightly]\npolicy = "default"\ncron = "0 3 * *"',
        "schedules.nightly.cron",
        "no cron expression of five fields",
    ),
    "a cron with a wrong hour": (
        GOOD + '[schedules.nightly]\npolicy = "default"\ncron = "0 25 * * *"',
        "schedules.nightly.cron",
        "no cron expression (bad hour)",
    ),
    "a cron that is a number": (
        GOOD + '[schedules.nightly]\npolicy = "default"\ncron = 3',
        "schedules.nightly.cron",
        "in quotes",
    ),
    "a cron that never comes": (
        GOOD + '[schedules.nightly]\npolicy = "default"\ncron = "0 0 31 2,4 *"',
        "schedules.nightly.cron",
        "no cron expression (bad day-of-month)",
    ),
    "a cron in seconds": (
        GOOD + '[schedules.nightly]\npolicy = "default"\ncron = "0 0 3 * * *"',
        "schedules.nightly.cron",
        "no cron expression of five fields",
    ),
    "an unknown time zone": (
        GOOD.replace("[", 'timezone = "Mars/Olympus"\n[', 1),
        "timezone",
        "such as UTC or Europe/Berlin",
    ),
    "a time zone that is a path": (
        GOOD.replace("[", 'timezone = "../../etc/passwd"\n[', 1),
        "timezone",
        "is no time zone",
    ),
    "a name that no command line takes": (
        '[policies."my policy"]\n',
        "policies.'my policy'",
        "letters, digits, - and _",
    ),
    "a schedule's name that is none": (
        GOOD + '[schedules.""]\npolicy = "default"\nevery = "1h"',
        "schedules.''",
        "letters, digits, - and _",
    ),
}


def problems(text: str, server: SlidingWindow = SlidingWindow.EVICT) -> tuple[str, ...]:
    with pytest.raises(PolicyError) as caught:
        load(text, source="conf/policy.toml", server=server)
    assert caught.value.source == "conf/policy.toml"
    assert all(line.startswith("conf/policy.toml: ") for line in str(caught.value).splitlines())
    return caught.value.problems


@pytest.mark.parametrize(("text", "key", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_with_its_key_and_what_is_allowed(text: str, key: str, said: str) -> None:
    found = problems(text)
    assert len(found) == 1, found
    path, _, sentence = found[0].partition(": ")
    assert path == key
    assert said in sentence


def test_there_are_at_least_twenty_kinds_of_mistakes() -> None:
    assert len(MISTAKES) >= 20


def test_all_mistakes_of_a_file_are_told_at_once() -> None:
    found = problems("[policies.a]\ntrigger_usage = 70\nidle_for = 5\n[policies.b]\nmin_messages = 1\nmode = 'all'")
    assert [problem.partition(":")[0] for problem in found] == [
        "policies.a.trigger_usage",
        "policies.a.idle_for",
        "policies.b.min_messages",
        "policies.b.mode",
    ]


def test_a_prompt_is_never_repeated_in_a_message() -> None:
    found = problems('[policies.default.compaction]\nprompt = ["my secret instructions"]')
    assert "my secret" not in " ".join(found)


@pytest.mark.parametrize("percentage", ["0.9", "0.95", "1.0", "1"])
def test_a_server_that_evicts_wipes_at_ninety_per_cent_and_above(percentage: str) -> None:
    found = problems(f"[policies.default.compaction]\nsliding_window_percentage = {percentage}")
    assert "the share to evict (LETTA_SLIDING_WINDOW=evict) evicts every message" in found[0]


@pytest.mark.parametrize("percentage", ["0.1", "0.05", "0.0"])
def test_a_server_that_keeps_wipes_at_ten_per_cent_and_below(percentage: str) -> None:
    text = f"[policies.default.compaction]\nsliding_window_percentage = {percentage}"
    found = problems(text, SlidingWindow.KEEP)
    assert "the share to keep (LETTA_SLIDING_WINDOW=keep)" in found[0]
    assert "allowed: above 0.1 to 1" in found[0]


@pytest.mark.parametrize(
    ("percentage", "server"),
    [(0.0, SlidingWindow.EVICT), (0.89, SlidingWindow.EVICT), (0.11, SlidingWindow.KEEP), (1.0, SlidingWindow.KEEP)],
)
def test_the_percentages_up_to_there_are_taken(percentage: float, server: SlidingWindow) -> None:
    book = load(f"[policies.p.compaction]\nsliding_window_percentage = {percentage}", source="x", server=server)
    assert book.policies["p"].compaction.sliding_window_percentage == percentage


def test_a_percentage_counts_in_the_sliding_mode_of_an_agents_own_model_too() -> None:
    text = '[policies.p.compaction]\nmode = "self_compact_sliding_window"\nsliding_window_percentage = 0.95'
    assert "evicts every message" in problems(text)[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[policies.default\n", "line 1"),
        ("[policies.default]\ntrigger_usage = 0,7\n", "line 2"),
        ("[policies.default]\nidle_for = 30m\n", "line 2"),
        ("[policies.default]\n[policies.default]\n", "line 2"),
        ("[policies.default]\ntrigger_usage = 0.7\ntrigger_usage = 0.8\n", "line 3"),
    ],
)
def test_a_file_that_is_not_toml_is_told_with_its_line(text: str, said: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith("is not TOML: ")
    assert said in problem


class TestOnDisk:
    """What only a file can have wrong."""

    def refusal(self, path: Path) -> str:
        with pytest.raises(PolicyError) as caught:
            read_policy(path, SlidingWindow.EVICT)
        assert str(caught.value).startswith(f"{path}: ")
        return str(caught.value)

    def test_a_missing_file_is_told_with_the_setting_that_names_one(self, tmp_path: Path) -> None:
        assert "there is no such file; name one in COMPACTOR_POLICY_FILE" in self.refusal(tmp_path / "policy.toml")

    def test_a_folder_is_told(self, tmp_path: Path) -> None:
        assert "cannot be read: Is a directory" in self.refusal(tmp_path)

    def test_a_path_through_a_file_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        assert "cannot be read: Not a directory" in self.refusal(tmp_path / "file" / "policy.toml")

    def test_a_file_that_is_not_utf_8_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "policy.toml").write_bytes("[policies.default]\n# für später\n".encode("latin-1"))
        assert "is not UTF-8 text" in self.refusal(tmp_path / "policy.toml")

    def test_an_empty_file_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "policy.toml").write_text("")
        assert "policies: is required" in self.refusal(tmp_path / "policy.toml")

    def test_a_good_file_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "policy.toml").write_text(GOOD)
        assert read_policy(tmp_path / "policy.toml", SlidingWindow.EVICT).policies["default"].trigger_usage == 0.7
