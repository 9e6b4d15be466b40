"""What import contracts cannot see of a pure package: that it never asks what time it is."""

import re
from pathlib import Path

import pytest

import worker.contract
import worker.policy

SOURCES = [
    path for package in (worker.policy, worker.contract) for path in sorted(Path(package.__path__[0]).rglob("*.py"))
]

CLOCKS = re.compile(r"\b(?:datetime|date)\.(?:now|today|utcnow)\(|\bopen\(|\bprint\(")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_a_pure_module_neither_asks_for_the_time_nor_opens_or_prints_anything(path: Path) -> None:
    assert CLOCKS.findall(path.read_text(encoding="utf-8")) == []
