"""Sentences of support and coding chats, from which seeded conversations and the agents' replies are made."""

from __future__ import annotations

import random

QUESTIONS = (
    "The nightly import stopped at row {n} again, can you find out why?",
    "Our customer {name} says that invoice {n} was charged twice.",
    "Which of the feature flags did we turn off before the release {n}?",
    "I get a time-out after {n} seconds when I open the report page.",
    "Please remind {name} that the contract ends in {n} days.",
    "The test for the date parser fails on Mondays only, see run {n}.",
    "How do I move {n} records from the old table without locking it?",
    "{name} wants to know whether order {n} can still be changed.",
    "Can we raise the limit to {n} requests a minute for this tenant?",
    "The search shows product {n} although it is sold out.",
    "Where did we write down the decision about the cache of {n} minutes?",
    "Deploy {n} looks slow, compare it with the one of last week.",
)

DETAILS = (
    "It worked until yesterday, and nobody changed the configuration.",
    "I attached the log; the interesting part begins at line {n}.",
    "The error says that the connection was closed by the other side.",
    "We tried it on two machines, with the same result.",
    "It is not urgent, but {name} asks about it every morning.",
    "As far as I remember we decided to keep the old behaviour for now.",
    "The queue had {n} entries when I looked, usually it is empty.",
    "If it helps, the staging system does not show it.",
    "Our Zürich office sees it too, only there it takes longer.",
)

ANSWERS = (
    "I looked at it: the job waits for a lock that the backup holds until {n} minutes past.",
    "Yes, the second charge was made by a retry, and {name} has the refund by tomorrow.",
    "The flag was turned off on purpose; the note about it says that {name} agreed.",
    "The page asks for {n} rows one by one, so I would fetch them in one query.",
    "Done. I set a reminder and told {name}.",
    "The parser takes the week's first day from the locale, which is why it differs.",
    "Copy them in batches of {n} and switch the readers over at the end.",
    "It can be changed until it is packed, that is in about {n} minutes.",
    "That limit is fine for this tenant, the others stay as they are.",
    "The index lags behind; it should be right again after {n} seconds.",
)

FOLLOW_UPS = (
    "I will keep an eye on it and tell you when it comes back.",
    "If you want I can write that down for the others.",
    "What I do not know yet is why it began on that day.",
    "Nothing was lost, the rows are all there.",
    "The change is small, but it should go through a review.",
    "Let me know whether {name} is fine with that.",
)

NAMES = ("Amira", "Bogdan", "Chiara", "Dmitri", "Elif", "Femi", "Greta", "Hiroshi", "Inês", "Jonas")

TOOLS = (
    ("search_tickets", "query", "ticket {n}: open, assigned to {name}"),
    ("read_log", "service", "{n} lines, the last one: connection closed by peer"),
    ("run_query", "sql", "{n} rows affected"),
)


def fill(rng: random.Random, template: str) -> str:
    """Fill the blanks of a sentence."""
    return template.format(n=rng.randrange(2, 4_000), name=rng.choice(NAMES))


def compose(rng: random.Random, openings: tuple[str, ...], details: tuple[str, ...], chars: int) -> str:
    """Write a paragraph of about `chars` characters: an opening and as many details as fit."""
    text = fill(rng, rng.choice(openings))
    left = list[str]()
    while len(text) < chars:
        left = left or rng.sample(details, len(details))
        text += " " + fill(rng, left.pop())
    return text


def reply(seed: str, chars: int) -> str:
    """Write an agent's reply of exactly `chars` characters; the same seed gives the same reply."""
    return compose(random.Random(seed), ANSWERS, FOLLOW_UPS, chars)[:chars]
