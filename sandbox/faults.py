"""Faults on purpose: which request goes wrong, and how. Seeded, so that a run can be repeated."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Any

from sandbox.endpoints import CLASSES, Endpoint

ANY = "any"
"""The endpoint class that stands for all of them."""

BEFORE_KINDS = ("html", "reset")
HICCUP = "hiccup"
"""The summarizer fails at first and works when asked again, by which time the server compacts in mode `all`."""

MODEL_FAILURES = {"llm_error": 500, "llm_rate_limit": 429, "llm_authentication": 401, "llm_bad_request": 400}
"""What the server answers when its own model fails; the body has a shape of its own, and nothing has changed."""

AFTER_KINDS = ("html-after", "reset-after", "reset-mid", "truncated")
_STATUS = re.compile(r"([45]\d\d)(-after)?")
_HANG = re.compile(r"hang:(\d+(?:\.\d+)?)")

KINDS_HELP = (
    "a status such as 500, 502, 503 or 429 (with Retry-After) in place of the effect; html (200 with a page of HTML)"
    " or reset (connection closed without an answer) in place of the effect; 502-after, html-after, reset-after: the"
    " same, but the effect has taken place; truncated (the effect takes place, the JSON or the stream ends halfway);"
    " reset-mid (the connection is closed halfway through the answer); hang:SECONDS (late, but done);"
    f" {', '.join(MODEL_FAILURES)} (the server's own model fails, nothing has changed);"
    " hiccup (a compaction's first summary fails, which turns it into a full wipe)"
)

_WITH_PROBABILITY = 3


@dataclass(frozen=True)
class Fault:
    """One rule. `times` is how often it still may strike (None: no limit)."""

    endpoint: str
    kind: str
    probability: float = 1.0
    times: int | None = None
    conversation_id: str | None = None
    retry_after: float = 1.0

    def __post_init__(self) -> None:
        if self.endpoint != ANY and self.endpoint not in CLASSES:
            raise ValueError(
                f"there is no endpoint {self.endpoint!r}; use {ANY} or one of {', '.join(sorted(CLASSES))}"
            )
        named = self.kind in BEFORE_KINDS + AFTER_KINDS or self.kind in {*MODEL_FAILURES, HICCUP}
        if not named and not _STATUS.fullmatch(self.kind) and not _HANG.fullmatch(self.kind):
            raise ValueError(f"there is no fault {self.kind!r}; use {KINDS_HELP}")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"a probability is between 0 and 1, not {self.probability}")

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read `ENDPOINT:KIND[:PROBABILITY]`, for example `compact:503:0.2` or `compact:hang:3:0.5`."""
        parts = text.split(":")
        if len(parts) > 1 and parts[1] == "hang":
            parts[1:3] = [":".join(parts[1:3])]
        if not 2 <= len(parts) <= _WITH_PROBABILITY:  # noqa: PLR2004
            raise ValueError(f"{text!r} is not a fault; give ENDPOINT:KIND[:PROBABILITY], for example compact:503:0.2")
        try:
            probability = float(parts[2]) if len(parts) == _WITH_PROBABILITY else 1.0
        except ValueError:
            raise ValueError(f"{parts[2]!r} is not a probability; give a number between 0 and 1") from None
        return cls(parts[0], parts[1], probability)

    @property
    def status(self) -> int | None:
        """The status that is answered, when the fault is one."""
        found = _STATUS.fullmatch(self.kind)
        return int(found.group(1)) if found else MODEL_FAILURES.get(self.kind)

    @property
    def hang(self) -> float | None:
        """How long the answer is held back, in seconds, when that is the fault."""
        found = _HANG.fullmatch(self.kind)
        return float(found.group(1)) if found else None

    @property
    def has_effect(self) -> bool:
        """Whether the request takes effect although it goes wrong."""
        return self.kind in AFTER_KINDS or self.kind.endswith("-after") or self.hang is not None

    def shown(self) -> dict[str, Any]:
        """Return the rule as the control endpoint shows it."""
        return {
            "endpoint": self.endpoint,
            "kind": self.kind,
            "probability": self.probability,
            "times": self.times,
            "conversation_id": self.conversation_id,
            "retry_after": self.retry_after,
        }


class Faults:
    """The rules in force and the dice; the first rule that matches and strikes decides."""

    def __init__(self, rules: tuple[Fault, ...], seed: int) -> None:
        self.replace(rules, seed)

    def replace(self, rules: tuple[Fault, ...], seed: int) -> None:
        """Put other rules in force and throw the dice from the start."""
        self._rules = list(rules)
        self._left = [rule.times for rule in rules]
        self._struck = [0] * len(rules)
        self._rng = random.Random(seed)

    def pick(self, endpoint: Endpoint, named: set[str]) -> Fault | None:
        """Choose the fault of one request; `named` are the ids that its path, query and body name."""
        for place, rule in enumerate(self._rules):
            if rule.endpoint not in {ANY, endpoint.name} or self._left[place] == 0:
                continue
            if rule.conversation_id is not None and rule.conversation_id not in named:
                continue
            if self._rng.random() >= rule.probability:
                continue
            left = self._left[place]
            self._left[place] = None if left is None else left - 1
            self._struck[place] += 1
            return rule
        return None

    def shown(self) -> list[dict[str, Any]]:
        """Return the rules with how often each struck and still may."""
        return [
            {**rule.shown(), "times": self._left[place], "struck": self._struck[place]}
            for place, rule in enumerate(self._rules)
        ]
