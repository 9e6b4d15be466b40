from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import pytest
import typer

from ops import desk
from ops.cli import app
from tests.unit.docs.generated import README, ROOT, settings_table
from tests.unit.docs.markdown import anchor, blocks, headings, links, section, tables
from worker.audit.records import State
from worker.contract.compaction import CompactionMode, CompactionSettings
from worker.names import COMPACT_QUEUE, SCAN_QUEUE
from worker.policy.decide import CANDIDATES, SMALLEST_GAIN, Reason
from worker.policy.forecast import SlidingWindow
from worker.policy.load import load
from worker.policy.proof import Flag
from worker.policy.rules import Policy, PolicyBook, Schedule
from worker.settings import Settings

PAGE = README.read_text(encoding="utf-8")


def commands(group: Any, path: str = "compactor") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_the_table_of_settings_is_what_the_code_says() -> None:
    assert settings_table() in PAGE, (
        "the README's table of settings is not the code's: run `python -m tests.unit.docs.generated`"
    )


def test_every_variable_that_the_page_names_is_a_setting() -> None:
    known = {name for variable, _, _ in Settings.table() for name in (variable, f"{variable}_FILE")}
    assert set(re.findall(r"\b(?:LETTA|COMPACTOR)_[A-Z_]+\b", PAGE)) <= known


def test_the_table_of_commands_has_each_command_and_no_other() -> None:
    rows = tables(section(PAGE, "The command line"))["command"]
    assert [name for name, _ in rows] == list(dict.fromkeys(name for name, _ in rows))
    assert {name for name, _ in rows} == set(COMMANDS)


def test_every_option_in_the_table_of_commands_is_one_of_that_command() -> None:
    for name, text in tables(section(PAGE, "The command line"))["command"]:
        known = {option for parameter in COMMANDS[name].params for option in parameter.opts}
        assert set(re.findall(r"(?<!\S)--[a-z-]+", text)) <= known, name


def test_every_command_on_the_page_exists_and_has_the_options_that_it_is_given() -> None:
    used = re.findall(r"(?:^ {4,}|^\$ |`)(compactor(?: [\w.$<>=-]+)*)", PAGE, re.MULTILINE)
    assert len(used) > len(COMMANDS)
    for line in used:
        name = next((name for name in COMMANDS if f"{line} ".startswith(f"{name} ")), None)
        if name is None:
            assert line == "compactor", f"there is no command `{line}`"
            continue
        known = {option for parameter in COMMANDS[name].params for option in parameter.opts}
        assert set(re.findall(r"(?<=\s)--[a-z-]+", line)) <= known, line


def test_the_commands_without_json_are_the_ones_named() -> None:
    without = {name for name, command in COMMANDS.items() if all("--json" not in p.opts for p in command.params)}
    told = re.search(r"`--json` prints for programs \(all but (.*?)\)", PAGE, re.DOTALL)
    assert told is not None
    assert {f"compactor {name}" for name in re.findall(r"`([^`]+)`", told[1])} == without


def test_the_exit_statuses_are_the_ones_in_use() -> None:
    rows = tables(section(PAGE, "The command line"))["exit status"]
    assert [int(status) for status, _ in rows] == [desk.DONE, desk.FAILED, desk.WRONG_USE]


@pytest.mark.parametrize(("head", "words"), [("state", State), ("flag", Flag), ("reason", Reason)])
def test_each_state_flag_and_reason_has_one_row(head: str, words: type[StrEnum]) -> None:
    rows = tables(section(PAGE, "What the ledger says"))[head]
    assert sorted(row[0] for row in rows) == sorted(words)


def test_each_meaning_of_the_percentage_has_a_row_that_says_what_is_refused() -> None:
    rows = tables(section(PAGE, "The percentage"))["value"]
    told = {row[0].split()[0]: float(row[2].split()[0]) for row in rows}
    assert set(told) == set(SlidingWindow)
    for server in SlidingWindow:
        limit = told[server]
        allowed = limit - 0.01 if server is SlidingWindow.EVICT else limit + 0.01
        assert server.always_wipes(limit)
        assert not server.always_wipes(allowed)


def test_the_shares_that_are_tried_and_the_smallest_gain_are_the_codes() -> None:
    assert f"{CANDIDATES[0]:.0%}, {CANDIDATES[1]:.0%}, ... {CANDIDATES[-1]:.0%}".replace("%", " %") in " ".join(
        PAGE.split()
    )
    assert f"less than {SMALLEST_GAIN * 100:.0f} % of the window" in PAGE


def test_the_policy_file_that_explains_all_keys_is_valid_and_has_them_all() -> None:
    (text,) = blocks(section(PAGE, "The policy file"), "toml")
    load(text, source="README.md", server=SlidingWindow.EVICT)
    data = tomllib.loads(text)
    left_out = set(re.findall(r"^# (\w+) = ", text, re.MULTILINE))
    assert set(data) == set(PolicyBook.model_fields)
    assert set(data["policies"]["default"]) == set(Policy.model_fields)
    assert set(data["policies"]["default"]["compaction"]) | left_out == set(CompactionSettings.model_fields)
    assert {key for schedule in data["schedules"].values() for key in schedule} == set(Schedule.model_fields)


def test_the_values_shown_for_the_default_policy_are_the_defaults() -> None:
    (text,) = blocks(section(PAGE, "The policy file"), "toml")
    book = load(text, source="README.md", server=SlidingWindow.EVICT)
    assert book.policies["default"].model_copy(update={"compaction": CompactionSettings()}) == Policy()


def test_every_mode_is_named_where_the_policy_file_is_explained() -> None:
    assert all(mode.value in section(PAGE, "The policy file") for mode in CompactionMode)


def test_the_policy_file_that_is_delivered_is_valid_for_either_kind_of_server() -> None:
    text = (ROOT / "policy.toml").read_text(encoding="utf-8")
    for server in SlidingWindow:
        assert {"nightly", "pressure"} <= set(load(text, source="policy.toml", server=server).schedules)


def test_the_queues_named_are_the_ones_that_workers_take() -> None:
    assert set(re.findall(r"-Q (\w+)", PAGE)) == {SCAN_QUEUE, COMPACT_QUEUE}


def test_every_target_of_make_that_the_page_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)\b(?= *(?:`|#|$))", PAGE, re.MULTILINE)) <= known


def test_every_link_leads_somewhere() -> None:
    anchors = {anchor(heading) for heading in headings(PAGE)}
    for target in links(PAGE):
        path, _, fragment = target.partition("#")
        assert path == "" or (ROOT / path).exists(), target
        assert path or fragment in anchors, target


def test_every_file_that_the_page_sends_its_reader_to_is_there() -> None:
    named = re.findall(r"`((?:docs|sandbox|tests)/[\w./-]*|[\w.]*\.(?:md|toml|example)|\.ci/run)`", PAGE)
    own = {"bad.toml"}
    assert {"CHANGELOG.md", "docs/adr/", ".ci/run"} <= set(named)
    assert [name for name in named if name not in own and not (ROOT / name).exists()] == []
