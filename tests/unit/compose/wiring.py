"""What docker-compose.yml must share with the code: commands, variables, ports, secrets, health checks.

Each rule takes the file and gives what is wrong with it, a sentence for each thing.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import typer
from celery.bin.celery import celery as celery_command
from flower.urls import handlers
from opentelemetry import environment_variables as tracing_variables
from opentelemetry.sdk import environment_variables as sdk_variables

from ops import door
from ops.cli import app as compactor
from sandbox.__main__ import _parser as sandbox_parser
from sandbox.endpoints import UNKNOWN, endpoint_of
from scheduler.door.app import HEALTHZ, READYZ
from tests.support.composefile import ROOT, SECRETS, Deployed, services, strings
from worker.settings import Settings, SettingsError

SETTINGS = {variable: default for variable, default, _ in Settings.table()}

FIXED = {
    "COMPACTOR_DATABASE_URL",
    "COMPACTOR_BROKER_URL",
    "COMPACTOR_WEBHOOK_OPEN",  # refused everywhere but on loopback
}
"""Settings that an operator does not give to this deployment as they are: it has its own, or cannot have them."""

PORTS = {
    "webhook": "COMPACTOR_WEBHOOK_PORT",
    "flower": "COMPACTOR_FLOWER_PORT",
    "metrics": "COMPACTOR_METRICS_PORT",
}
"""Our services that listen, and the setting that says where."""

TRACING = {name for module in (tracing_variables, sdk_variables) for name in vars(module) if name.startswith("OTEL_")}
"""What OpenTelemetry reads by itself."""

SECRETS_SCRIPT = ROOT / "compose" / "secrets"


def commands(document: Mapping[str, Any]) -> Iterator[str]:
    """Each command of our image runs something that the code has, with options that it takes."""
    for service in services(document).values():
        if service.ours:
            problem = _problem_of(service.program)
            if problem:
                yield f"{service.name}: {problem}"


def _problem_of(argv: list[str]) -> str | None:
    match argv:
        case ["celery", "-A", application, sub, *options] | ["celery", "--quiet", "-A", application, sub, *options]:
            return _celery_problem(application, sub, options)
        case ["compactor", *words]:
            return _click_problem(typer.main.get_command(compactor), words, "compactor")
        case ["python", "-m", "sandbox", *options]:
            known = set(sandbox_parser()._option_string_actions)
            unknown = [word for word in options if word.startswith("--") and word not in known]
            return f"the sandbox has no option {unknown[0]}" if unknown else None
        case ["python", "-m", module]:
            return None if _found(module) else f"there is no module {module}"
    return f"nothing is known of the command {argv}"


def _found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _celery_problem(application: str, sub: str, options: list[str]) -> str | None:
    if not (ROOT / application / "celery.py").exists():
        return f"there is no Celery app in {application}"
    return _click_problem(celery_command, [sub, *options], "celery")


def _click_problem(group: Any, words: list[str], name: str) -> str | None:
    command, rest = group, list(words)
    while hasattr(command, "commands"):
        if not rest or rest[0] not in command.commands:
            return f"{name} has no command {rest[:1]}"
        command = command.commands[rest.pop(0)]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [word for word in rest if word.startswith("-") and word not in known]
    return f"{name} {words[0]} has no option {unknown[0]}" if unknown else None


def variables(document: Mapping[str, Any]) -> Iterator[str]:
    """Each variable of our processes is a setting, given as it is or from a secret's file, and each can be given."""
    for service in services(document).values():
        if not service.ours or service.name == "sandbox":
            continue
        named = service.body["environment"]
        known = SETTINGS.keys() | {f"{name}_FILE" for name in SETTINGS} | TRACING
        yield from (f"{service.name}: {name} is no setting" for name in named if name not in known)
        secret = {name.removesuffix("_FILE") for name in named if name.endswith("_FILE")}
        yield from (f"{service.name}: {name} is given as it is, and in a file" for name in secret & named.keys())
    workers = document["services"]["worker"]["environment"]
    elsewhere = FIXED | {name for name, field in _aliases().items() if "SecretStr" in str(field.annotation)}
    elsewhere |= {name for name in SETTINGS if name.endswith(("_HOST", "_PORT"))}
    yield from (f"{name} cannot be given" for name in SETTINGS if name not in workers.keys() | elsewhere)


def _aliases() -> dict[str, Any]:
    return {field.alias or name: field for name, field in Settings.model_fields.items()}


def settings(document: Mapping[str, Any]) -> Iterator[str]:
    """Each of our processes can read its settings, with the secrets that the script makes."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([SECRETS_SCRIPT, folder], check=True, stdout=subprocess.DEVNULL)
        for service in services(document).values():
            if service.ours and service.name != "sandbox":
                here = service.changed(lambda text: text.replace(SECRETS, f"{folder}/"))
                try:
                    Settings.load(here.environment, directory=Path(folder), join=False)
                except SettingsError as error:
                    yield f"{service.name}: {error}"


def secrets(document: Mapping[str, Any]) -> Iterator[str]:
    """Each secret that is read is one that the service is given, that the file knows, and that the script makes."""
    made = set(re.findall(r"^keep (\w+)", SECRETS_SCRIPT.read_text(encoding="utf-8"), re.MULTILINE))
    known = document["secrets"]
    used: set[str] = set()
    for service in services(document).values():
        given = set(service.body.get("secrets", []))
        read = {name for text in strings(service.body) for name in re.findall(rf"{SECRETS}(\w+)", text)}
        yield from (f"{service.name}: reads the secret {name}, which it is not given" for name in sorted(read - given))
        yield from (f"{service.name}: is given the secret {name}, which it does not read" for name in given - read)
        yield from (f"{service.name}: the file has no secret {name}" for name in sorted(given - known.keys()))
        used |= given
    yield from (f"the secret {name} is used by nobody" for name in sorted(known.keys() - used))
    for name, where in known.items():
        if where != {"file": f"./.secrets/{name}"} or name not in made:
            yield f"the secret {name} is not one that compose/secrets makes"


def ports(document: Mapping[str, Any]) -> Iterator[str]:
    """Our servers listen on their settings' own ports, and are shown to this machine's loopback alone."""
    running = services(document)
    for name, variable in PORTS.items():
        said = running[name].environment.get(variable)
        if said is None or said != SETTINGS.get(variable):
            yield f"{name}: listens on {said}, not on {variable}'s {SETTINGS.get(variable)}"
        if running[name].environment.get(variable.replace("_PORT", "_HOST")) != "0.0.0.0":  # noqa: S104 - within its own networks
            yield f"{name}: listens where no other container reaches it"
        for target in _targets(running[name]):
            if target != said:
                yield f"{name}: shows port {target}, and listens on {said}"
    for service in running.values():
        for port in service.body.get("ports", []):
            if not str(port).startswith("127.0.0.1:"):
                yield f"{service.name}: port {port} is shown to everybody"


def _targets(service: Deployed) -> list[str]:
    return [str(port).rpartition(":")[2] for port in service.body.get("ports", [])]


def health(document: Mapping[str, Any]) -> Iterator[str]:
    """Each service that stays has a check; what it asks for is a page of the service, at the port it listens on."""
    running = services(document)
    for service in running.values():
        if not service.check and service.name != "migrate":
            yield f"{service.name}: has no health check"
        for url in re.findall(r"https?://[^'\"\s]+", " ".join(service.check)):
            parts = urlsplit(re.sub(r"\$\{[^}]*\}", "", url))
            if service.name in PORTS and str(parts.port) != service.environment.get(PORTS[service.name]):
                yield f"{service.name}: its check asks port {parts.port}"
            if service.name in PAGES and not PAGES[service.name](parts.path):
                yield f"{service.name}: it has no page {parts.path}"
        hook = service.environment.get("STEP_COMPLETE_WEBHOOK")
        where = f"http://webhook:{SETTINGS['COMPACTOR_WEBHOOK_PORT']}{door.STEP_COMPLETE}"
        if hook not in (None, where):
            yield f"{service.name}: sends its webhook to {hook}, and the door is at {where}"
    yield from _asks_beat_and_worker(running)


def _asks_beat_and_worker(running: Mapping[str, Deployed]) -> Iterator[str]:
    name = running["worker"].program[running["worker"].program.index("--hostname") + 1]
    if f"--destination {name.replace('%h', '$HOSTNAME')} " not in f"{' '.join(running['worker'].check)} ":
        yield f"worker: its check asks for another name than {name}"
    due = min(float(SETTINGS[variable]) for variable in ("COMPACTOR_ATTEND_EVERY", "COMPACTOR_RECONCILE_EVERY"))
    minutes = re.search(r"-mmin -(\d+)", " ".join(running["scheduler"].check))
    state = running["scheduler"].environment["COMPACTOR_STATE_DIR"]
    if minutes is None or int(minutes[1]) * 60 < 2 * due or state not in " ".join(running["scheduler"].check):
        yield f"scheduler: its check does not see that beat sends something every {due:g} s"


def _flower_has(path: str) -> bool:
    # The last one is the page for what is not found.
    rules = [entry[0] if isinstance(entry, tuple) else entry.regex.pattern for entry in handlers[:-1]]
    return any(re.fullmatch(rule, path) for rule in rules)


PAGES: dict[str, Callable[[str], bool]] = {
    "webhook": {HEALTHZ, READYZ}.__contains__,
    "flower": _flower_has,
    "metrics": {"/metrics"}.__contains__,
    "sandbox": lambda path: endpoint_of("GET", path) is not UNKNOWN,
}

RULES = (commands, variables, settings, secrets, ports, health)
