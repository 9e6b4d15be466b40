"""Filling an empty file with agents and conversations of many kinds, the same ones for the same seed value."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sandbox import tokens
from sandbox.agents import compiled_system_message, create_agent, create_conversation
from sandbox.bodies import CreateAgent, MemoryBlock
from sandbox.ids import new_id, stamp
from sandbox.messages import Stored, message, tool_call, tool_result
from sandbox.store import Agent, Store
from sandbox.summary import pack, summarize
from sandbox.vocabulary import (
    ANSWERS,
    DETAILS,
    FOLLOW_UPS,
    NAMES,
    QUESTIONS,
    TOOLS,
    compose,
    fill,
)

CONVERSATIONS_PER_AGENT = 8

WINDOWS = (8_000, 16_000, 32_000)
"""Context windows of the agents, in tokens, in turn."""

_ROLES = ("support desk", "code reviewer", "release helper", "data steward", "onboarding guide")

HOUR = 60
DAY = 24 * HOUR


@dataclass(frozen=True)
class Kind:
    """A kind of conversation: its usage (0..1), how long ago it was last used (minutes), and its style."""

    usage: tuple[float, float]
    age: tuple[int, int]
    chars: tuple[int, int] = (120, 700)
    tools: bool = False
    compacted_once: bool = False


EMPTY = Kind((0.0, 0.0), (0, 0))

KINDS = (
    EMPTY,
    Kind((0.86, 0.90), (2 * HOUR, 20 * HOUR), tools=True),
    Kind((0.10, 0.20), (3 * HOUR, 2 * DAY)),
    Kind((0.62, 0.70), (9 * HOUR, 4 * DAY)),
    Kind((0.01, 0.05), (20, 3 * HOUR)),
    Kind((0.25, 0.35), (6 * DAY, 40 * DAY), tools=True),
    Kind((0.70, 0.78), (2 * DAY, 12 * DAY), compacted_once=True),
    Kind((0.45, 0.55), (1, 6)),
    Kind((0.90, 0.95), (3 * DAY, 60 * DAY)),
    Kind((0.01, 0.05), (30 * DAY, 150 * DAY)),
    Kind((0.30, 0.45), (1 * DAY, 9 * DAY), chars=(1_200, 2_600)),
    Kind((0.74, 0.84), (1, 5), tools=True),
    EMPTY,
    Kind((0.15, 0.25), (8 * HOUR, 30 * HOUR), compacted_once=True),
    Kind((0.50, 0.58), (5 * HOUR, 3 * DAY), tools=True),
    Kind((0.92, 0.97), (1, 4)),
    Kind((0.05, 0.10), (1, 8)),
    Kind((0.35, 0.45), (60 * DAY, 200 * DAY)),
    Kind((0.10, 0.30), (40, 4 * HOUR), tools=True),
    Kind((0.50, 0.58), (10 * DAY, 30 * DAY)),
)
"""Twenty kinds, of which six are above 0.6 and three above 0.85; two of those are still in use."""


def seed(store: Store, conversations: int, value: int) -> None:
    """Make `conversations` conversations, their agents, and the agents' default conversations.

    Ids and texts depend on `value` alone; times lie before now.
    """
    rng = random.Random(value)
    present = datetime.now(UTC)
    count = -(-conversations // CONVERSATIONS_PER_AGENT)
    with store.transaction():
        agents = [_agent(store, rng, number, present) for number in range(max(count, min(len(WINDOWS), conversations)))]
        for number, agent in enumerate(agents):
            _fill_default(store, rng, agent, present, usage=(0.05, 0.72, 0.3)[number % 3])
        for number in range(conversations):
            # Shifted by one each round, so that every kind meets every window.
            agent = agents[(number + number // len(KINDS)) % len(agents)]
            _conversation(store, rng, agent, KINDS[number % len(KINDS)], present)


def _agent(store: Store, rng: random.Random, number: int, present: datetime) -> Agent:
    role = _ROLES[number % len(_ROLES)]
    body = CreateAgent(
        name=f"{role} {number + 1}",
        model="openai/gpt-4o-mini",
        context_window_limit=WINDOWS[number % len(WINDOWS)],
        memory_blocks=[
            MemoryBlock(label="human", value=f"Works with {rng.choice(NAMES)} and {rng.choice(NAMES)}."),
            MemoryBlock(label="persona", value=f"I am the {role} of a small team, and I keep my answers short."),
        ],
    )
    return create_agent(store, body, stamp(present - timedelta(days=220 - number)), rng)


def _fill_default(store: Store, rng: random.Random, agent: Agent, present: datetime, usage: float) -> None:
    kind = Kind((usage, usage), (1 * DAY, 20 * DAY))
    made = _exchanges(store, rng, agent, None, kind)
    _date(rng, made, kind, present)
    store.add_messages(made)
    store.set_context(agent["id"], None, [*agent["message_ids"], *(one["id"] for one in made)])


def _conversation(store: Store, rng: random.Random, agent: Agent, kind: Kind, present: datetime) -> None:
    age = timedelta(days=rng.randrange(1, 30)) if kind is EMPTY else timedelta()
    conversation = create_conversation(store, agent["id"], when=stamp(present - age), rng=rng)
    if kind is EMPTY:
        return
    conversation_id = conversation["id"]
    made = _exchanges(store, rng, agent, conversation_id, kind)
    _date(rng, made, kind, present)
    store.add_messages(made)
    store.attach(conversation_id, [one["id"] for one in made], 1)
    if kind.compacted_once:
        _compact_once(store, rng, agent, conversation_id)
    store.backdate(conversation_id, made[0]["created_at"], made[-1]["created_at"])


def _exchanges(store: Store, rng: random.Random, agent: Agent, conversation_id: str | None, kind: Kind) -> list[Stored]:
    """Write questions and answers until the context is as full as the kind wants it, the newest last."""
    window = agent["window"]
    empty = tokens.overview(compiled_system_message(store, agent), [], window, 0)["context_window_size_current"]
    budget = rng.uniform(*kind.usage) * window - empty
    if kind.compacted_once:
        budget *= 1.45  # what the older third takes with it
    made: list[Stored] = []
    used = 0
    while not made or used < budget:
        exchange = _exchange(rng, agent, conversation_id, kind)
        used += tokens.of_messages(exchange)
        made += exchange
    return made


def _exchange(rng: random.Random, agent: Agent, conversation_id: str | None, kind: Kind) -> list[Stored]:
    own = {"agent_id": agent["id"], "conversation_id": conversation_id}
    question = compose(rng, QUESTIONS, DETAILS, rng.randrange(*kind.chars))
    said = [message(new_id("message", rng), "user", question, **own)]
    if kind.tools and rng.random() < 0.5:  # noqa: PLR2004 - every other answer looks something up first
        name, argument, result = rng.choice(TOOLS)
        call_id = new_id("call", rng)
        call = tool_call(call_id, name, {argument: fill(rng, "{name} {n}")})
        said.append(message(new_id("message", rng), "assistant", fill(rng, FOLLOW_UPS[0]), tool_calls=[call], **own))
        found = " / ".join(fill(rng, result) for _ in range(rng.randrange(1, 9)))
        said.append(tool_result(new_id("message", rng), call_id, name, found, stamp(datetime.now(UTC)), **own))
    answer = compose(rng, ANSWERS, FOLLOW_UPS, rng.randrange(*kind.chars))
    return [*said, message(new_id("message", rng), "assistant", answer, **own)]


def _date(rng: random.Random, made: list[Stored], kind: Kind, present: datetime) -> None:
    moment = present - timedelta(minutes=rng.uniform(*kind.age))
    for one in reversed(made):
        one["created_at"] = stamp(moment)
        moment -= timedelta(seconds=rng.uniform(4, 1_500) if one["role"] == "user" else rng.uniform(2, 9))


def _compact_once(store: Store, rng: random.Random, agent: Agent, conversation_id: str) -> None:
    """Make it look as if the older third had been compacted before; what is left is that much less full."""
    ids = store.in_context_ids(conversation_id)
    messages = store.messages(ids)
    third = len(messages) // 3
    place = next((place for place in range(third, 1, -1) if messages[place]["role"] == "assistant"), None)
    if place is None:
        return
    kept, evicted = messages[place:], messages[1:place]
    note = message(
        new_id("message", rng),
        "summary",
        pack(summarize(evicted, None), "sliding_window", kept[0]["created_at"]),
        agent_id=agent["id"],
        conversation_id=conversation_id,
        created_at=kept[0]["created_at"],
    )
    store.add_messages([note])
    store.attach(conversation_id, [note["id"]])
    store.set_context(agent["id"], conversation_id, [ids[0], note["id"], *(one["id"] for one in kept)])
