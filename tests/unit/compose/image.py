"""What the Dockerfile must hold. Each rule takes its text and gives what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatch

from tests.support.composefile import ROOT, read

DOCKERFILE = ROOT / "Dockerfile"
DOCKERIGNORE = ROOT / ".dockerignore"

TOOLS = re.compile(r"\b(?:apt-get|apt|apk|gcc|build-essential|curl|wget|pip)\b")
"""What is of use in building alone."""


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, continued lines joined, without comments."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def last_stage(text: str) -> list[tuple[str, str]]:
    """What the image that is delivered is made by."""
    found = instructions(text)
    return found[max(place for place, (word, _) in enumerate(found) if word == "FROM") :]


def bases(text: str) -> Iterator[str]:
    """Each stage begins with an official image, pinned to a patch version; the same for all."""
    found = [rest.split()[0] for word, rest in instructions(text) if word == "FROM"]
    if len(found) < 2:
        yield "it is not built in stages"
    yield from (f"{base} is not pinned" for base in found if not re.fullmatch(r"python:3\.\d+\.\d+-slim", base))
    if len(set(found)) != 1:
        yield "what is built by one Python runs on another"


def copies(text: str) -> Iterator[str]:
    """What is copied is there, and reaches the builder."""
    for word, rest in instructions(text):
        if word in ("COPY", "ADD") and not rest.startswith("--from="):
            for path in rest.split()[:-1]:
                if not (ROOT / path).exists():
                    yield f"{path} is not there"
                elif ignored(path):
                    yield f"{path} is kept from the builder by .dockerignore"
                if ".secrets" in path or ".env" in path:
                    yield f"{path} is secret"


def ignored(path: str, rules: str | None = None) -> bool:
    """Whether .dockerignore keeps a path from the builder: the last rule that matches decides."""
    found = False
    for rule in (DOCKERIGNORE.read_text(encoding="utf-8") if rules is None else rules).split("\n"):
        pattern = rule.strip().removeprefix("!")
        if rule.startswith("#") or not pattern:
            continue
        parents = ["/".join(path.split("/")[:depth]) for depth in range(1, path.count("/") + 2)]
        if any(fnmatch(parent, pattern) or fnmatch(f"/{parent}", pattern.replace("**", "*")) for parent in parents):
            found = not rule.startswith("!")
    return found


def users(text: str) -> Iterator[str]:
    """It runs as the user that Compose names, who owns the state directory."""
    said = [rest for word, rest in last_stage(text) if word == "USER"]
    named = {body["user"] for body in read()["services"].values() if "build" in body}
    if not said or {said[-1]} != named:
        yield f"it runs as {said[-1:] or 'root'}, and Compose says {sorted(named)}"
    made = " ".join(rest for word, rest in last_stage(text) if word == "RUN")
    state = next(body["environment"] for name, body in read()["services"].items() if name == "worker")
    if not re.search(rf"install --directory [^&]*{state['COMPACTOR_STATE_DIR']}(?= |$)", made):
        yield "nobody makes the state directory"


def tools(text: str) -> Iterator[str]:
    """What builds stays behind, versions are the tested ones, and no index but the builder's own is named."""
    for word, rest in last_stage(text):
        if word == "RUN" and TOOLS.search(rest):
            yield f"the image that is delivered installs something: {rest}"
        if word == "HEALTHCHECK":
            yield "health is Compose's to check: the image runs many things"
    if "--constraint constraints.txt" not in text:
        yield "versions are not the ones that were tested together"
    if re.search(r"--(?:extra-)?index-url|https?://|PIP_INDEX", text):
        yield "it names an index"


RULES = (bases, copies, users, tools)
