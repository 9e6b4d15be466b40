"""What docker-compose.yml must hold of every container: how it is locked, limited, stopped, and whom it reaches.

Each rule takes the file and gives what is wrong with it, a sentence for each thing.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from tests.support.composefile import ROOT, services
from worker.settings import Settings

AS_BUILT = {"letta"}
"""Images of vendors that run as root and write where they like."""

ONE_SHOT = {"migrate"}

KEEPS_TO_ITSELF = {"redis", "postgres", "letta-db", "migrate", "metrics", "prometheus"}
"""Services that nothing outside reaches, and that reach nothing outside."""

STOPPING = {"redis", "worker", "scheduler", "webhook", "flower"}
"""Services that have something to finish when they are told to stop."""

UNITS = {"s": 1, "m": 60}


def locks(document: Mapping[str, Any]) -> Iterator[str]:
    """No container is root, writes to its image, has a capability, or can get one."""
    for name, service in services(document).items():
        body = service.body
        if "no-new-privileges:true" not in body.get("security_opt", []):
            yield f"{name}: may gain privileges"
        if body.get("privileged"):
            yield f"{name}: is privileged"
        if name in AS_BUILT:
            continue
        if not re.fullmatch(r"[1-9]\d*:\d+", str(body.get("user", ""))):
            yield f"{name}: runs as root"
        if body.get("read_only") is not True:
            yield f"{name}: writes to its image"
        if body.get("cap_drop") != ["ALL"] or body.get("cap_add"):
            yield f"{name}: has capabilities"


def limits(document: Mapping[str, Any]) -> Iterator[str]:
    """Each container has limits, a bounded log, and a restart policy."""
    for name, service in services(document).items():
        given = service.body.get("deploy", {}).get("resources", {}).get("limits", {})
        yield from (f"{name}: has no limit of {what}" for what in ("cpus", "memory", "pids") if what not in given)
        wanted = "no" if name in ONE_SHOT else "unless-stopped"
        if service.body.get("restart") != wanted:
            yield f"{name}: its restart policy is not {wanted}"
        if "max-size" not in service.body.get("logging", {}).get("options", {}):
            yield f"{name}: its log grows for ever"
        if service.body.get("container_name") or service.body.get("hostname"):
            yield f"{name}: has a fixed name, so that there cannot be two"
    threads = int(next(default for variable, default, _ in Settings.table() if variable == "COMPACTOR_CONCURRENCY"))
    if document["services"]["worker"]["deploy"]["resources"]["limits"].get("pids", 0) < 2 * threads:
        yield "worker: has no room for its threads"


def stopping(document: Mapping[str, Any]) -> Iterator[str]:
    """Each has the time that it needs to stop; a worker more than running compactions are given."""
    grace = float(next(default for variable, default, _ in Settings.table() if variable == "COMPACTOR_SHUTDOWN_GRACE"))
    for name in sorted(STOPPING):
        if _seconds(document["services"][name].get("stop_grace_period", "10s")) <= 10:
            yield f"{name}: is killed after ten seconds"
    if _seconds(document["services"]["worker"].get("stop_grace_period", "10s")) < 2 * grace:
        yield f"worker: is killed before its compactions had their {grace:g} s"


def _seconds(text: str) -> int:
    return int(text[:-1]) * UNITS[text[-1]]


def networks(document: Mapping[str, Any]) -> Iterator[str]:
    """The ledger and the broker are reached by our own processes alone."""
    internal = {name for name, body in document["networks"].items() if (body or {}).get("internal")}
    for name, service in services(document).items():
        joined = set(service.body.get("networks", ["default"]))
        yield from (f"{name}: there is no network {network}" for network in joined - document["networks"].keys())
        if name in KEEPS_TO_ITSELF and not joined <= internal:
            yield f"{name}: is on a network that leads outside"
        if name in KEEPS_TO_ITSELF and service.body.get("ports"):
            yield f"{name}: shows a port"
        if service.body.get("network_mode"):
            yield f"{name}: has a network of its own choice"


def images(document: Mapping[str, Any]) -> Iterator[str]:
    """Each image is pinned by a version, and named without a registry; ours by the package's version."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    for name, service in services(document).items():
        repository, _, tag = service.body["image"].partition(":")
        if not re.search(r"\d+\.\d+", tag):
            yield f"{name}: its image {service.body['image']} is not pinned by a version"
        if "." in repository.split("/")[0]:
            yield f"{name}: its image names a registry"
        if service.ours and service.body["image"] != f"compactor:{version}":
            yield f"{name}: its image is not compactor:{version}"


READS_POLICIES = {"worker", "scheduler", "webhook", "metrics"}


def storage(document: Mapping[str, Any]) -> Iterator[str]:
    """What is mounted is there, and what has to be kept is kept; nothing of this machine can be written."""
    kept = {"redis": "/data", "postgres": "/var/lib/postgresql", "scheduler": "/var/lib/compactor"}
    for name, service in services(document).items():
        targets = set()
        for mount in service.body.get("volumes", []):
            source, target, read_only = _mount(mount)
            targets.add(target)
            if source.startswith("."):
                if not (ROOT / source).exists():
                    yield f"{name}: {source} is not there"
                if not read_only:
                    yield f"{name}: can write to {source}"
            elif source not in document["volumes"]:
                yield f"{name}: there is no volume {source}"
        if name in kept and kept[name] not in targets:
            yield f"{name}: forgets {kept[name]}"
        if name in READS_POLICIES and service.environment.get("COMPACTOR_POLICY_FILE") not in targets:
            yield f"{name}: has the image's policy file, not the operator's"


def _mount(mount: Any) -> tuple[str, str, bool]:
    if isinstance(mount, str):
        source, target, *mode = mount.split(":")
        return source, target, mode == ["ro"]
    return mount["source"], mount["target"], bool(mount.get("read_only"))


def order(document: Mapping[str, Any]) -> Iterator[str]:
    """Who needs the ledger waits for its schema, and who needs the broker for the broker."""
    for name, service in services(document).items():
        waits = {other: how["condition"] for other, how in service.body.get("depends_on", {}).items()}
        yield from (f"{name}: waits for {other}, which there is not" for other in waits.keys() - document["services"])
        given = set(service.body.get("secrets", []))
        needs_schema = service.ours and "database_url" in given and name not in ONE_SHOT
        if needs_schema and waits.get("migrate") != "service_completed_successfully":
            yield f"{name}: does not wait for the schema"
        if service.ours and "broker_url" in given and waits.get("redis") != "service_healthy":
            yield f"{name}: does not wait for the broker"


def persistence(document: Mapping[str, Any]) -> Iterator[str]:
    """The broker keeps what it has, throws nothing away, asks for a password, and does not tell it to everybody."""
    argv = services(document)["redis"].argv
    options = dict(pairwise(argv))
    if options.get("--appendonly") != "yes":
        yield "redis: loses its messages with its process"
    if options.get("--maxmemory-policy") != "noeviction":
        yield "redis: throws messages away when its memory is full"
    if argv[1] != "/run/secrets/redis_auth":
        yield "redis: asks for no password"
    if "--requirepass" in argv:
        yield "redis: has its password on its command line"


RULES = (locks, limits, stopping, networks, images, storage, order, persistence)
