"""What a check of the doctor's comes to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: fine, or not, with what to do. needed: whether the service cannot do without it."""

    name: str
    sentence: str
    remedy: str = ""
    fine: bool = True
    needed: bool = True


def fine(name: str, sentence: str) -> Finding:
    """Tell that something is as it should be."""
    return Finding(name, sentence)


def wrong(name: str, sentence: str, remedy: str = "") -> Finding:
    """Tell what is wrong with something, and what to do."""
    return Finding(name, sentence, remedy, fine=False)


def note(name: str, sentence: str, remedy: str = "") -> Finding:
    """Tell what is not as it should be and stops nothing, and what to do."""
    return Finding(name, sentence, remedy, fine=False, needed=False)
