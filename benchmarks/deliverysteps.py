"""What a server knows of the steps that are delivered: conversations that were talked in, and steps of theirs."""

from __future__ import annotations

import random
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.activity import Activity
from sandbox.ids import new_id
from sandbox.schema import connect
from sandbox.store import Store
from tests.support.sandbox import Sandbox
from tests.support.talking import WINDOW, Talk, talk

DELIVERIES_A_CONVERSATION, MOST_STEPS = 400, 19
"""Deliveries for each conversation near its trigger, of which one, two and so on up to so many are its own steps."""

OVER, NEAR, QUIET = 0.88, 0.72, 10
"""How full conversations over the trigger of 0.70 and near it are made, about a tenth less by the server's count; the
agents that all other steps are of."""

FULLEST_FAR = 0.59
"""The highest usage that puts a step's conversation out of the question."""


@dataclass(frozen=True)
class Steps:
    """The ids of all steps, in no order; those that need a closer look; the conversations over the trigger."""

    ids: list[str]
    closer: frozenset[str]
    over: frozenset[str]
    near: frozenset[str]


def make_steps(sandbox: Sandbox, database: Path, count: int, chance: random.Random) -> Steps:
    """Talk, and write further steps like those that the talk led to into the sandbox's file."""
    busy = max(count // DELIVERIES_A_CONVERSATION, 5)
    over, near = _talks(sandbox, busy * 4 // 5, OVER), _talks(sandbox, busy - busy * 4 // 5, NEAR)
    busy_steps = [_step_of(one) for one in (*over, *near)]
    closer = [_like(step, chance) for number, step in enumerate(busy_steps) for _ in range(number % MOST_STEPS + 1)]
    quiet = [_step_of(one) for one in _talks(sandbox, QUIET, 0.1)]
    far = [
        _like(chance.choice(quiet), chance, prompt_tokens=chance.randrange(int(FULLEST_FAR * WINDOW)))
        for _ in range(count - len(closer))
    ]
    with closing(connect(database)) as connection, Store(connection).transaction():
        activity = Activity(connection)
        for step in (*closer, *far):
            activity.add_step(step)
    ids = [step["id"] for step in (*closer, *far)]
    chance.shuffle(ids)
    return Steps(
        ids,
        frozenset(step["id"] for step in closer),
        frozenset(one.conversation_id for one in over),
        frozenset(one.conversation_id for one in near),
    )


def _talks(sandbox: Sandbox, count: int, usage: float) -> list[Talk]:
    talks = [talk(sandbox) for _ in range(count)]
    for one in talks:
        one.fill(usage)
    return talks


def _step_of(one: Talk) -> dict[str, Any]:
    """The step that a conversation's last answer was."""
    rows = one.sandbox.get(f"/v1/conversations/{one.conversation_id}/messages", limit=1)
    step: dict[str, Any] = one.sandbox.get(f"/v1/steps/{rows[0]['step_id']}")
    return step


def _like(step: dict[str, Any], chance: random.Random, **fields: Any) -> dict[str, Any]:
    return step | fields | {"id": new_id("step", chance)}
