"""The command line: `compactor`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ops import audit, desk, doctor, flower, scanning, sweeping, up, webhooks
from ops.broker import BrokerUnavailable
from ops.place import PlaceUnusable
from ops.scanning import Json
from ops.supervisor import SupervisorError
from worker.asked import CannotAsk
from worker.audit.database import Database, LedgerError, SchemaMismatch, upgrade
from worker.letta.errors import LettaError
from worker.policy.durations import spell
from worker.policy.forecast import SlidingWindow
from worker.policy.load import PolicyError
from worker.policyfile import read_policy
from worker.scan import UnknownName
from worker.settings import SettingsError

app = typer.Typer(
    name="compactor",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Autovacuum for agent conversations: keeps the conversations of a Letta server compact.",
    epilog="Exit status: 0 done, 1 something failed, 2 wrong use or configuration.",
)
policy_app = typer.Typer(no_args_is_help=True, help="The policy file.")
db_app = typer.Typer(no_args_is_help=True, help="The ledger's database.")

app.command("up")(up.up_command)
app.command("scan")(scanning.scan_command)
app.command("compact")(scanning.compact_command)
app.command("reconcile")(sweeping.reconcile_command)
app.add_typer(audit.app, name="audit")
app.command("conversations")(audit.conversations_command)
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(policy_app, name="policy")
app.add_typer(db_app, name="db")
app.command("doctor")(doctor.doctor_command)
app.command("flower")(flower.flower_command)

MISCONFIGURED = (SettingsError, PolicyError, SchemaMismatch, BrokerUnavailable, PlaceUnusable, UnknownName)
FAILED = (LedgerError, LettaError, CannotAsk, SupervisorError)


@policy_app.command("check")
def check(
    file: Annotated[Path | None, typer.Argument(help="Default: COMPACTOR_POLICY_FILE.")] = None,
    as_json: Json = False,
) -> None:
    """Tell what is wrong with a policy file, key by key; or what is in it.

    Example: `compactor policy check new-policy.toml`.
    """
    settings = desk.settings()
    path = file or settings.policy_file
    try:
        book = read_policy(path, SlidingWindow(settings.letta_sliding_window))
    except PolicyError as error:
        if not as_json:
            raise
        desk.show_json({"file": str(path), "valid": False, "problems": error.problems})
        raise typer.Exit(desk.WRONG_USE) from None
    if as_json:
        found = {name: policy.body() | {"version": policy.version} for name, policy in book.policies.items()}
        schedules = {name: schedule.model_dump(mode="json") for name, schedule in book.schedules.items()}
        desk.show_json({"file": str(path), "valid": True, "policies": found, "schedules": schedules})
        return
    desk.out.print(f"{path} is valid; times are {book.timezone}", markup=False)
    for name, policy in book.policies.items():
        usages = f"from usage {policy.trigger_usage:g} down to {policy.target_usage:g}"
        desk.out.print(f"  policy    {name:<16} {usages}  (version {policy.version})", markup=False)
    for name, schedule in book.schedules.items():
        when = f"cron {schedule.cron}" if schedule.cron else f"every {spell(schedule.interval)}"
        desk.out.print(f"  schedule  {name:<16} {when}, policy {schedule.policy}", markup=False)


@db_app.command("upgrade")
def upgrade_command() -> None:
    """Bring the ledger's schema to this release's; safe to run at every start.

    Example: `compactor db upgrade && celery -A worker worker`.
    """
    database = Database(desk.settings().ledger_url)
    try:
        before, after = upgrade(database)
    finally:
        database.close()
    told = f"is at schema {after}" if before == after else f"was upgraded from {before or 'nothing'} to schema {after}"
    desk.out.print(f"the ledger at {database.shown_url} {told}", markup=False, soft_wrap=True)


def main() -> None:
    """Run the command line; every error that an operator can do something about is a sentence, never a traceback.

    Typer answers wrong use itself (status 2), and ends with 130 at Ctrl-C, as shells have it.
    """
    try:
        app()
    except MISCONFIGURED as error:
        sys.exit(_said(str(error), desk.WRONG_USE))
    except FAILED as error:
        sys.exit(_said(str(error), desk.FAILED))


def _said(sentences: str, status: int) -> int:
    for line in sentences.splitlines():
        desk.err.print(f"compactor: {line}", style="red", markup=False, soft_wrap=True)
    return status


if __name__ == "__main__":
    main()
