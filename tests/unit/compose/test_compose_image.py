from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.composefile import ROOT
from tests.unit.compose import image

TEXT = image.DOCKERFILE.read_text(encoding="utf-8")

Rule = Callable[[str], Iterator[str]]

BROKEN: list[tuple[Rule, str, str, str]] = [
    (image.bases, "FROM python:3.11.15-slim\n", "FROM python:3.11-slim\n", "python:3.11-slim is not pinned"),
    (image.bases, "FROM python:3.11.15-slim\n", "FROM python:3.12.1-slim\n", "runs on another"),
    (image.bases, "FROM python:3.11.15-slim\n", "", "it is not built in stages"),
    (image.copies, "COPY worker worker", "COPY workers workers", "workers is not there"),
    (image.copies, "COPY worker worker", "COPY tests tests", "tests is kept from the builder"),
    (image.copies, "COPY worker worker", "COPY .env.example .env", ".env.example is secret"),
    (image.users, "USER 10001:10001", "USER 1000:1000", "it runs as ['1000:1000']"),
    (image.users, "USER 10001:10001", "", "it runs as root"),
    (image.users, "--mode 0750 /var/lib/compactor", "--mode 0750 /srv", "nobody makes the state directory"),
    (image.tools, "WORKDIR /etc/compactor", "RUN apt-get install -y curl", "installs something: apt-get"),
    (image.tools, "WORKDIR /etc/compactor", "HEALTHCHECK CMD true", "health is Compose's to check"),
    (image.tools, "--constraint constraints.txt ", "", "not the ones that were tested together"),
    (image.tools, "install --constraint", "install --index-url https://index.example/ --constraint", "names an index"),
]


@pytest.mark.parametrize("rule", image.RULES, ids=lambda rule: rule.__name__)
def test_the_dockerfile_keeps_every_rule(rule: Rule) -> None:
    assert list(rule(TEXT)) == []


@pytest.mark.parametrize(("rule", "old", "new", "found"), BROKEN, ids=[found for *_, found in BROKEN])
def test_a_dockerfile_that_breaks_a_rule_is_found_out(rule: Rule, old: str, new: str, found: str) -> None:
    assert old in TEXT
    problems = list(rule(TEXT.replace(old, new)))
    assert any(found in problem for problem in problems), problems


def test_every_rule_is_broken_by_one_of_them() -> None:
    assert {rule for rule, *_ in BROKEN} == set(image.RULES)


@pytest.mark.parametrize(
    "path",
    [".secrets", ".secrets/database_url", ".env", ".venv", ".git", ".compactor/ledger.db", "tests", "worker/x.pyc"],
)
def test_what_is_secret_or_of_this_machine_does_not_reach_the_builder(path: str) -> None:
    assert image.ignored(path)


def test_every_package_of_the_product_reaches_the_image() -> None:
    copied = {rest.split()[0] for word, rest in image.instructions(TEXT) if word == "COPY"}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert {"worker", "scheduler", "ops", "sandbox"} <= packages
    assert packages <= copied
