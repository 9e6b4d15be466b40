"""The commands about webhooks: `webhooks events | waiting | deliveries | replay | secret | send`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any
from uuid import uuid4

import typer

from ops import desk, door
from ops.audit import INTERNAL, Json, Limit
from ops.webhookviews import show_deliveries, show_events, show_waiting
from worker.audit.deliveries import Delivery
from worker.audit.records import DeliveryState, EventState
from worker.clock import utc_now
from worker.configuration.part import url_parts
from worker.settings import Settings
from worker.webhooks.courier import shown

app = typer.Typer(no_args_is_help=True, help="What came in by the door, what is watched for it, what was sent.")

OUTDATED = INTERNAL | {"revision", "watch_revision"}
"""Columns that are left out: they say how the service works, not what it did."""

ACCEPTED = 202

ANSWERS = {
    401: "it did not take the signature: is the first of COMPACTOR_WEBHOOK_SECRETS one of the door's own, and are "
    "both clocks right?",
    404: "there is no such page: is this the door's address?",
    429: "it takes no more from this address for the moment: try again, or raise COMPACTOR_WEBHOOK_RATE",
    503: "it cannot write to the ledger at the moment: try again, and look at `compactor doctor`",
}
"""What to make of the door's refusals; others speak for themselves."""


@app.command()
def events(
    state: Annotated[EventState | None, typer.Option(help="Only those in this state.")] = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List what came in, the latest first: who sent it, what it is about, what became of it and why.

    Examples: `compactor webhooks events`, `compactor webhooks events --state failed`.
    """
    with desk.ledger() as ledger:
        rows = ledger.events.recent(limit, states=None if state is None else [state])
    if as_json:
        desk.show_json([_plain(row) for row in rows])
    elif rows:
        show_events(desk.out, rows)
    else:
        desk.out.print("no event in the ledger is like that")


@app.command()
def waiting(limit: Limit = 50, as_json: Json = False) -> None:
    """Show the conversations that are watched until they fall idle, the next one first.

    A conversation is looked at when it is due; what holds it back then, and until when, is shown too.

    Example: `compactor webhooks waiting`.
    """
    with desk.ledger() as ledger:
        rows = ledger.watches.waiting(limit)
    if as_json:
        desk.show_json([_plain(row) for row in rows])
    elif rows:
        show_waiting(desk.out, rows)
    else:
        desk.out.print("no conversation is watched")


@app.command()
def deliveries(
    state: Annotated[DeliveryState | None, typer.Option(help="Only those in this state.")] = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List the service's own webhooks, the latest first: what they tell, to whom, and whether it was taken.

    Of an endpoint only the host is shown: the rest of a URL may hold a token.

    Examples: `compactor webhooks deliveries`, `compactor webhooks deliveries --state dead`.
    """
    with desk.ledger() as ledger:
        rows = ledger.deliveries.recent(limit, state=state)
    if as_json:
        desk.show_json([_delivery(row) for row in rows])
    elif rows:
        show_deliveries(desk.out, rows)
    else:
        desk.out.print("no delivery in the ledger is like that")


@app.command()
def replay(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of deliveries, dead ones or delivered.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="All dead ones.")] = False,
    as_json: Json = False,
) -> None:
    """Have deliveries sent again, as if they were new: a receiver knows them by their `webhook-id`, which stays.

    The workers send them within seconds. Exit status 1 where an id is not in the ledger.

    Examples: `compactor webhooks replay --dead`,
    `compactor webhooks replay msg-0d2f4b8e-4b0f-4a53-9d41-6a3f5c1e7d20`.
    """
    if bool(ids) == dead:
        desk.fail("give the ids of deliveries, or --dead for all dead ones", desk.WRONG_USE)
    wanted = list(dict.fromkeys(ids or ()))
    with desk.ledger() as ledger:
        unknown = [one for one in wanted if ledger.deliveries.get(one) is None]
        known = [one for one in wanted if one not in unknown]
        now = utc_now()
        count = ledger.deliveries.replay_dead(now=now) if dead else ledger.deliveries.replay(known, now=now)
    if as_json:
        desk.show_json({"replayed": count, "unknown": unknown})
    else:
        desk.out.print(f"{count} deliver{'y is' if count == 1 else 'ies are'} due again now")
        if count < len(known):
            desk.out.print(f"not yet delivered or dead, and left as they were: {len(known) - count}")
    if unknown:
        desk.fail(f"not in the ledger: {', '.join(unknown)}; see `compactor webhooks deliveries --json`")


@app.command()
def secret() -> None:
    """Make a new secret that signs webhooks, and print it; it is written down nowhere.

    Example: `compactor webhooks secret`.
    """
    desk.out.print(door.new_secret(), markup=False, soft_wrap=True)
    desk.err.print(
        "Put it first into the door's COMPACTOR_WEBHOOK_SECRETS, before the old one, which goes when no sender "
        "uses it any more; or into COMPACTOR_NOTIFY_SECRET.",
        markup=False,
        soft_wrap=True,
    )


@app.command()
def send(
    conversation: Annotated[str | None, typer.Option(help="The conversation, `conv-...`.")] = None,
    agent: Annotated[str | None, typer.Option(help="The agent, whose default conversation is meant.")] = None,
    policy: Annotated[str | None, typer.Option(help="The policy to judge by. Default: the `[webhook]` one.")] = None,
    reason: Annotated[str | None, typer.Option(help="A note of yours, kept with the event.")] = None,
    url: Annotated[str | None, typer.Option(help="The door's address. Default: the settings' host and port.")] = None,
    as_json: Json = False,
) -> None:
    """Sign a request with the first of COMPACTOR_WEBHOOK_SECRETS and send it to the door, as anybody else would.

    It tries the set-up out: that the door is reached, and takes the signature. The conversation is compacted only if
    the policy says so.

    Example: `compactor webhooks send --conversation conv-5054fb3c-5b85-4720-8a84-8fa0b0f06c84`.
    """
    if (conversation is None) == (agent is None):
        desk.fail("give --conversation or --agent, one of them", desk.WRONG_USE)
    settings = desk.settings()
    signing = _signing(settings)
    base_url = _base(url) if url else door.address(settings)
    where = f"the door at {shown(base_url)}"
    given = {"conversation_id": conversation, "agent_id": agent, "policy": policy, "reason": reason}
    body = json.dumps({name: value for name, value in given.items() if value is not None})
    try:
        answer = door.send(base_url, body, signing, webhook_id=f"msg-{uuid4()}", at=utc_now())
    except door.DoorUnreachable as error:
        desk.fail(f"{where} cannot be reached: {error}; is it running? see `compactor doctor`")
    if answer.status != ACCEPTED or not isinstance(answer.body, dict):
        desk.fail(f"{where} answered {answer.status}: {_why(answer)}")
    if as_json:
        desk.show_json(answer.body)
    else:
        event = answer.body.get("event_id")
        desk.out.print(f"{event} is taken; follow it with `compactor webhooks events`", markup=False, soft_wrap=True)


def _base(url: str) -> str:
    """Read the address of a door, with or without the path that webhooks go to."""
    parts = url_parts(url)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        desk.fail("--url is no http:// or https:// address", desk.WRONG_USE)
    return url.rstrip("/").removesuffix(door.COMPACTION)


def _signing(settings: Settings) -> str | None:
    """Give the secret to sign with; None where the door is open and takes requests without one."""
    if settings.webhook_secrets:
        return settings.webhook_secrets[0].get_secret_value()
    if not settings.webhook_open:
        desk.fail(
            "COMPACTOR_WEBHOOK_SECRETS is not set, here: make a secret with `compactor webhooks secret`", desk.WRONG_USE
        )
    return None


def _why(answer: door.Answer) -> str:
    """Put a refusal into words: what to do where we know it, else what the door says of the request itself."""
    if answer.status in ANSWERS:
        return ANSWERS[answer.status]
    detail = answer.body.get("detail") if isinstance(answer.body, dict) else None
    if isinstance(detail, str):
        return detail
    return "that is not what a door answers" if detail is None else desk.json_line(detail)


def _plain(row: Any) -> dict[str, Any]:
    return {name: value for name, value in asdict(row).items() if name not in OUTDATED}


def _delivery(row: Delivery) -> dict[str, Any]:
    """Give a delivery for programs: its endpoint by the host, its body as what it is."""
    return _plain(row) | {"endpoint": shown(row.endpoint), "body": json.loads(row.body)}
