"""What the command line says of itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from ops.cli import app
from tests.acceptance.terminal import Terminal, open_terminal
from tests.support.redis import fresh_database
from tests.support.sandbox import running_sandbox
from tests.support.service import POLICY

ACTING = ["up", "scan", "compact", "policy check", "db upgrade", "audit list", "audit export"]


def commands(group: Any, prefix: tuple[str, ...] = ()) -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*prefix, name))
        else:
            yield " ".join((*prefix, name))


COMMANDS = sorted(commands(typer.main.get_command(app)))


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory, redis_server: str) -> Iterator[Terminal]:
    folder = tmp_path_factory.mktemp("help")
    (folder / "policy.toml").write_text(POLICY)
    with (
        running_sandbox(folder, seed=8) as server,
        fresh_database(redis_server) as broker,
        open_terminal(folder, {}) as typed,
    ):
        typed.environment |= {
            "LETTA_BASE_URL": server.base_url,
            "COMPACTOR_BROKER_URL": broker,
            "COMPACTOR_STATE_DIR": str(folder / "state"),
        }
        typed("db", "upgrade", expect=0)
        yield typed


def test_the_commands_are_those_that_are_promised() -> None:
    promised = {"up", "scan", "compact", "conversations", "doctor", "policy check", "db upgrade"}
    promised |= {f"audit {name}" for name in ("list", "show", "export", "stats")}
    assert promised <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_in_a_sentence_what_a_command_is_for(terminal: Terminal, command: str) -> None:
    help_text = terminal(*command.split(), "--help", expect=0).out
    before_options = re.split(r"(Options|Arguments) ─", help_text)[0]
    assert re.search(r"[A-Z][^.]{20,}\.", before_options), help_text


@pytest.mark.parametrize("command", ACTING)
def test_help_of_a_command_that_acts_shows_an_example(terminal: Terminal, command: str) -> None:
    help_text = terminal(*command.split(), "--help", expect=0).out
    assert re.search(rf"Examples?:.*compactor {command}", help_text, re.DOTALL), help_text


def test_help_lists_every_command_and_the_exit_statuses(terminal: Terminal) -> None:
    help_text = terminal("--help", expect=0).out
    assert all(command.split()[0] in help_text for command in COMMANDS)
    assert "0 done, 1 something failed, 2 wrong use or configuration" in help_text


@pytest.mark.parametrize(
    "command", ["doctor", "policy check", "scan --dry-run", "scan", "conversations", "audit list", "audit stats"]
)
def test_json_is_all_that_goes_to_standard_output(terminal: Terminal, command: str) -> None:
    assert terminal(*command.split(), "--json", expect=0).json() is not None


def test_json_of_a_compaction_leads_to_its_row(terminal: Terminal) -> None:
    decisions = terminal("scan", "--dry-run", "--json", expect=0).json()["decisions"]
    wanted = next(row for row in decisions if row["decision"] == "compact" and row["conversation_id"] != "default")

    planned = terminal("compact", wanted["conversation_id"], "--json", expect=0).json()
    shown = terminal("audit", "show", planned["compaction_id"], "--json", expect=0).json()

    assert (shown["conversation_id"], shown["state"]) == (wanted["conversation_id"], "planned")
    lines = terminal("audit", "export", expect=0).out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [planned["compaction_id"]]
    assert terminal("audit", "show", planned["compaction_id"][:-8], "--json", expect=0).json() == shown


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["nonsense"], ["nonsense"]),
        (["audit", "show"], ["compaction_id"]),
        (["audit", "list", "--state", "odd"], ["--state", "odd", "planned", "failed"]),
        (["audit", "list", "--since", "soon"], ["--since", "soon", "1h30m"]),
        (["audit", "list", "--limit", "0"], ["--limit", "1"]),
        (["audit", "list", "--limit", "lots"], ["--limit"]),
        (["audit", "export", "--format", "xml"], ["--format", "xml", "jsonl", "csv"]),
        (["audit", "export", "--output", "/nowhere/at/all"], ["/nowhere/at/all", "cannot be written"]),
        (["conversations", "--reason", "odd"], ["--reason", "odd", "below_trigger"]),
        (["scan", "--policy", "default", "--schedule", "nightly"], ["--schedule or --policy"]),
        (["scan", "--schedule", "nope"], ["nope", "policy.toml", "known: nightly"]),
        (["scan", "--policy", "nope"], ["nope", "policy.toml", "known: default, eager"]),
        (["scan", "--dry-run", "--policy", "nope"], ["nope", "known: default, eager"]),
        (["compact"], ["conversation_id"]),
        (["compact", "default"], ["default", "--agent"]),
        (["policy", "check", "no-such-file"], ["no-such-file", "there is no such file"]),
        (["policy", "check", "."], ["cannot be read"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_use_is_named_and_ends_with_status_2(terminal: Terminal, arguments: list[str], names: list[str]) -> None:
    said = terminal(*arguments, expect=2)
    assert not said.out
    assert all(name in said.err for name in names), said.err
