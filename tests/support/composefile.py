"""docker-compose.yml as Compose itself reads it: variables put in; each service's command, environment and check."""

from __future__ import annotations

import copy
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"

SECRETS = "/run/secrets/"
"""Where a container finds its secrets."""

LETTA_URL = {"LETTA_BASE_URL": "http://sandbox:8283"}
"""What has to be named, as the demo names it."""

_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?:(?P<how>:[-?+])(?P<rest>[^}]*))?\})")


class Unset(Exception):
    """A variable that has to be named is not; the message is the file's own."""


@dataclass(frozen=True)
class Deployed:
    """One service, its variables put in."""

    name: str
    body: Mapping[str, Any]
    given: Mapping[str, str]
    """The environment that Compose itself runs in."""

    @property
    def argv(self) -> list[str]:
        """The command; none where the image's own runs."""
        return [str(word) for word in self.body.get("command", [])]

    @property
    def program(self) -> list[str]:
        """The command without the shell that may start it, and without the variables that this one reads from files."""
        if self.argv[:2] != ["sh", "-c"]:
            return self.argv
        words = shlex.split(re.sub(r'"\$\([^)]*\)"', "READ", self.argv[2]))
        return words[words.index("exec") + 1 :]

    @property
    def environment(self) -> dict[str, str]:
        """The variables of its containers: one without a value is handed on, where it is set."""
        named = self.body.get("environment", {})
        handed_on = {name: self.given[name] for name, value in named.items() if value is None and name in self.given}
        return {name: str(value) for name, value in named.items() if value is not None} | handed_on

    @property
    def check(self) -> list[str]:
        """Its health check as a command; empty where it has none."""
        kind, *words = self.body.get("healthcheck", {}).get("test", ["NONE"])
        return ["sh", "-c", *words] if kind == "CMD-SHELL" else words

    @property
    def ours(self) -> bool:
        """Whether it runs the image that is built here."""
        return "build" in self.body

    def changed(self, change: Callable[[str], str]) -> Deployed:
        """The same with every string changed, keys left as they are."""
        return Deployed(self.name, _each(self.body, change), {name: change(text) for name, text in self.given.items()})


def read() -> dict[str, Any]:
    """The file as it is written: a copy that may be altered."""
    return copy.deepcopy(_document())


def services(document: Mapping[str, Any], given: Mapping[str, str] = LETTA_URL) -> dict[str, Deployed]:
    """Every service, in the file's order. Raises Unset."""
    return {
        name: Deployed(name, _each(body, lambda text: interpolated(text, given)), given)
        for name, body in document["services"].items()
    }


def interpolated(text: str, given: Mapping[str, str]) -> str:
    """Put variables into a string, by Compose's rules for the forms that the file uses; empty counts as unset."""

    def value(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        found, how, rest = given.get(match["name"], ""), match["how"], match["rest"]
        if how == ":+":
            return rest if found else ""
        if not found and how == ":?":
            raise Unset(rest)
        return found or (rest if how == ":-" else "")

    return _VARIABLE.sub(value, text)


def strings(node: Any) -> Iterator[str]:
    """Every string in a piece of the file, keys left out."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        for value in node.values():
            yield from strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from strings(value)


@cache
def _document() -> dict[str, Any]:
    # An anchor makes one object of many places; JSON knows no such thing.
    written: dict[str, Any] = json.loads(json.dumps(yaml.safe_load(COMPOSE_FILE.read_text(encoding="utf-8"))))
    return written


def _each(node: Any, change: Callable[[str], str]) -> Any:
    if isinstance(node, str):
        return change(node)
    if isinstance(node, Mapping):
        return {key: _each(value, change) for key, value in node.items()}
    if isinstance(node, list):
        return [_each(value, change) for value in node]
    return node
