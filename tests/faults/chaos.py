"""Everything at once, at random instants: the dice decide what breaks next, and where workers die."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.faults.answers import LOST_AFTER_COMMIT, say
from tests.faults.crashes import POINTS
from tests.faults.stage import Stage

WORKERS = 2

DEATHS = 2
"""Most deaths at each of the hook's points, beside those at random instants."""

ODDS = 0.03
"""The chance to die when passing such a point."""

CALM_SECONDS = 0.4, 1.6
"""How long nothing new breaks, between the two."""

TRICKLE = 15
"""The part of all conversations that is there from the start, and that comes with each act of the dice: one in so many.
"""

SECONDS_EACH = 1.5
"""How long it may go on, for each conversation."""

ENOUGH = 0.8
"""The share of the conversations that are closed when it ends."""

FAULTS = [
    *({"endpoint": "compact", "kind": kind, "probability": 0.04} for kind in LOST_AFTER_COMMIT),
    {"endpoint": "compact", "kind": "hang:3", "probability": 0.04},
    {"endpoint": "compact", "kind": "429", "probability": 0.04, "retry_after": 1},
    {"endpoint": "compact", "kind": "503", "probability": 0.04, "retry_after": 1},
    {"endpoint": "compact", "kind": "reset", "probability": 0.04},
    {"endpoint": "compact", "kind": "hiccup", "probability": 0.03},
    {"endpoint": "context", "kind": "500", "probability": 0.03},
    {"endpoint": "conversation", "kind": "reset", "probability": 0.03},
    {"endpoint": "messages", "kind": "truncated", "probability": 0.03},
]


def chaos(stage: Stage, cut_database: Callable[[], None] | None) -> None:
    """Strike again and again while conversations fill up, until most are compacted; then let it settle.

    cut_database: ends every connection to the ledger, where it is a server.
    """
    dice = stage.dice
    told: dict[str, Any] = {"kill": dict.fromkeys(POINTS.values(), DEATHS), "odds": ODDS}
    stage.sandbox.set_faults(*FAULTS, seed=dice.randrange(1 << 30))
    for _ in range(WORKERS):
        stage.worker(**told)
    beats = [stage.beat()]

    def kill_worker() -> None:
        dice.choice(stage.fleet).kill()

    def stop_worker() -> None:
        dice.choice(stage.fleet).stop()

    def kill_beat() -> None:
        beats.pop().kill()
        beats.append(stage.beat())

    def restart_redis() -> None:
        stage.redis.kill()
        stage.redis.start()

    def write() -> None:
        for name in stage.under_way()[:1]:
            say(stage, name)

    acts = [kill_worker, kill_worker, stop_worker, kill_beat, stage.redis.flush, restart_redis, write, write]
    acts += [cut_database] if cut_database is not None else []
    until = time.monotonic() + stage.size * SECONDS_EACH
    while time.monotonic() < until and stage.closed() < ENOUGH * stage.size:
        stage.add_conversations(min(stage.size - len(stage.wanted), trickle(stage.size)))
        stage.replace_the_dead(**told)
        dice.choice(acts)()
        time.sleep(dice.uniform(*CALM_SECONDS))
    stage.add_conversations(stage.size - len(stage.wanted))
    stage.settle()


def trickle(size: int) -> int:
    """How many conversations come at a time."""
    return max(1, size // TRICKLE)
