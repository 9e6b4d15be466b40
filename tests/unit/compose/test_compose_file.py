from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.composefile import COMPOSE_FILE, LETTA_URL, Unset, interpolated, read, services
from tests.unit.compose import hardening, wiring
from tests.unit.compose.watching import monitoring

Document = dict[str, Any]
Rule = Callable[[Mapping[str, Any]], Iterator[str]]
Change = Callable[[Document], object]

RULES: tuple[Rule, ...] = (*wiring.RULES, *hardening.RULES, monitoring)


def validated(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_file_is_what_the_compose_specification_allows() -> None:
    done = validated(COMPOSE_FILE)
    assert done.returncode == 0, done.stdout


def test_a_field_that_the_specification_does_not_have_is_found(tmp_path: Path) -> None:
    document = read()
    document["services"]["worker"]["health_check"] = {}
    altered = tmp_path / "docker-compose.yml"
    altered.write_text(yaml.safe_dump(document))
    done = validated(altered)
    assert done.returncode == 1
    assert "health_check" in done.stdout


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_file_keeps_every_rule(rule: Rule) -> None:
    assert list(rule(read())) == []


def put(service: str, **values: Any) -> Change:
    return lambda document: document["services"][service].update(values)


def environment(service: str, **values: Any) -> Change:
    return lambda document: document["services"][service]["environment"].update(values)


def drop(service: str, key: str) -> Change:
    return lambda document: document["services"][service].pop(key)


def without(service: str, variable: str) -> Change:
    return lambda document: document["services"][service]["environment"].pop(variable)


def check(service: str, *test: str) -> Change:
    return lambda document: document["services"][service]["healthcheck"].update(test=list(test))


def word(service: str, old: str, new: str) -> Change:
    def change(document: Document) -> None:
        body = document["services"][service]
        body["command"] = [new if each == old else each for each in body["command"]]

    return change


def locked_out(document: Document) -> None:
    document["secrets"]["database_url"] = {"file": "./passwords/database_url"}


BROKEN: list[tuple[Rule, Change, str]] = [
    (wiring.commands, put("migrate", command=["compactor", "db", "migrate"]), "migrate: compactor has no command"),
    (wiring.commands, put("webhook", command=["python", "-m", "scheduler.door.none"]), "webhook: there is no module"),
    (wiring.commands, put("metrics", command=["gunicorn"]), "metrics: nothing is known of the command"),
    (wiring.commands, word("worker", "--without-gossip", "--without-talk"), "worker: celery worker has no option"),
    (wiring.commands, word("scheduler", "beat", "tick"), "scheduler: celery has no command"),
    (wiring.commands, word("worker", "-A", "--app-of"), "worker: nothing is known"),
    (wiring.commands, put("sandbox", command=["python", "-m", "sandbox", "--speed", "2"]), "no option --speed"),
    (wiring.variables, environment("worker", COMPACTOR_CONCURENCY="8"), "worker: COMPACTOR_CONCURENCY is no setting"),
    (wiring.variables, environment("webhook", COMPACTOR_BROKER_FILE="x"), "webhook: COMPACTOR_BROKER_FILE is no"),
    (wiring.variables, environment("worker", COMPACTOR_BROKER_URL="redis://redis"), "as it is, and in a file"),
    (wiring.variables, without("worker", "COMPACTOR_LEASE"), "COMPACTOR_LEASE cannot be given"),
    (wiring.settings, environment("worker", COMPACTOR_LEASE="soon"), "worker: COMPACTOR_LEASE"),
    (wiring.settings, environment("webhook", COMPACTOR_BROKER_URL_FILE="/run/secrets/redis_auth"), "webhook: COMPAC"),
    (wiring.secrets, put("worker", secrets=["database_url"]), "worker: reads the secret broker_url"),
    (wiring.secrets, put("grafana", secrets=["grafana_password", "database_url"]), "grafana: is given the secret"),
    (wiring.secrets, lambda document: document["secrets"].pop("database_url"), "the file has no secret database_url"),
    (wiring.secrets, lambda document: document["secrets"].update(spare={"file": "./.secrets/spare"}), "by nobody"),
    (wiring.secrets, locked_out, "database_url is not one that compose/secrets makes"),
    (wiring.ports, environment("webhook", COMPACTOR_WEBHOOK_PORT="8080"), "webhook: listens on 8080"),
    (wiring.ports, environment("flower", COMPACTOR_FLOWER_HOST="127.0.0.1"), "flower: listens where no other"),
    (wiring.ports, put("flower", ports=["127.0.0.1:5555:5556"]), "flower: shows port 5556, and listens on 5555"),
    (wiring.ports, put("webhook", ports=["8484:8484"]), "webhook: port 8484:8484 is shown to everybody"),
    (wiring.health, drop("postgres", "healthcheck"), "postgres: has no health check"),
    (wiring.health, check("webhook", "CMD", "get", "http://127.0.0.1:8484/health"), "webhook: it has no page /health"),
    (wiring.health, check("flower", "CMD", "get", "http://127.0.0.1:8484/healthcheck"), "flower: its check asks port"),
    (wiring.health, check("flower", "CMD", "get", "http://127.0.0.1:5555/alive"), "flower: it has no page /alive"),
    (wiring.health, check("sandbox", "CMD", "get", "http://127.0.0.1:8283/v1/alive"), "sandbox: it has no page"),
    (wiring.health, environment("sandbox", STEP_COMPLETE_WEBHOOK="http://webhook:8484/step"), "sandbox: sends its"),
    (wiring.health, word("worker", "worker@%h", "celery@%h"), "worker: its check asks for another name"),
    (wiring.health, check("scheduler", "CMD-SHELL", "find /tmp -mmin -3"), "scheduler: its check does not see"),
    (hardening.locks, put("worker", user="0:0"), "worker: runs as root"),
    (hardening.locks, drop("redis", "user"), "redis: runs as root"),
    (hardening.locks, put("flower", read_only=False), "flower: writes to its image"),
    (hardening.locks, drop("webhook", "cap_drop"), "webhook: has capabilities"),
    (hardening.locks, put("webhook", cap_add=["NET_ADMIN"]), "webhook: has capabilities"),
    (hardening.locks, put("letta", security_opt=[]), "letta: may gain privileges"),
    (hardening.locks, put("metrics", privileged=True), "metrics: is privileged"),
    (hardening.limits, drop("scheduler", "deploy"), "scheduler: has no limit of memory"),
    (hardening.limits, put("worker", container_name="worker"), "worker: has a fixed name"),
    (hardening.limits, put("worker", restart="no"), "worker: its restart policy is not unless-stopped"),
    (hardening.limits, put("migrate", restart="always"), "migrate: its restart policy is not no"),
    (hardening.limits, drop("postgres", "logging"), "postgres: its log grows for ever"),
    (hardening.stopping, drop("redis", "stop_grace_period"), "redis: is killed after ten seconds"),
    (hardening.stopping, put("worker", stop_grace_period="20s"), "worker: is killed before its compactions"),
    (hardening.networks, put("postgres", networks=["data", "front"]), "postgres: is on a network that leads outside"),
    (hardening.networks, put("redis", ports=["127.0.0.1:6379:6379"]), "redis: shows a port"),
    (hardening.networks, put("worker", networks=["backend"]), "worker: there is no network backend"),
    (hardening.networks, lambda document: document["networks"].update(data={}), "redis: is on a network that leads"),
    (hardening.networks, put("worker", network_mode="host"), "worker: has a network of its own choice"),
    (hardening.images, put("redis", image="redis:latest"), "redis: its image redis:latest is not pinned"),
    (hardening.images, put("redis", image="redis"), "redis: its image redis is not pinned"),
    (hardening.images, put("redis", image="registry.example/redis:8.10.0"), "redis: its image names a registry"),
    (hardening.images, put("worker", image="compactor:0.0.9"), "worker: its image is not compactor:"),
    (hardening.storage, put("redis", volumes=[]), "redis: forgets /data"),
    (hardening.storage, put("redis", volumes=["broker:/data"]), "redis: there is no volume broker"),
    (hardening.storage, put("worker", volumes=["./policies:/etc/compactor:ro"]), "worker: ./policies is not there"),
    (
        hardening.storage,
        put("worker", volumes=["./policy.toml:/etc/policy.toml"]),
        "worker: can write to ./policy.toml",
    ),
    (hardening.storage, drop("metrics", "volumes"), "metrics: has the image's policy file, not the operator's"),
    (hardening.order, put("worker", depends_on={}), "worker: does not wait for the schema"),
    (hardening.order, put("scheduler", depends_on={}), "scheduler: does not wait for the broker"),
    (hardening.order, put("flower", depends_on={"rabbit": {"condition": "service_healthy"}}), "which there is not"),
    (hardening.persistence, word("redis", "yes", "no"), "redis: loses its messages"),
    (hardening.persistence, word("redis", "noeviction", "allkeys-lru"), "redis: throws messages away"),
    (hardening.persistence, word("redis", "/run/secrets/redis_auth", "--save"), "redis: asks for no password"),
    (monitoring, environment("metrics", COMPACTOR_METRICS_PORT="9100"), "prometheus: asks metrics:9484, where nobody"),
    (monitoring, put("flower", networks=["data", "front"]), "prometheus: does not reach flower"),
    (monitoring, put("grafana", networks=["front"]), "grafana: does not reach http://prometheus:9090"),
    (monitoring, put("grafana", volumes=[]), "grafana: finds no dashboard in /etc/grafana/dashboards"),
    (monitoring, put("grafana", volumes=["grafana:/var/lib/grafana"]), "grafana: is not told where its data is"),
    (monitoring, put("prometheus", volumes=[]), "prometheus: does not read what is in monitoring/"),
    (hardening.persistence, word("redis", "--dir", "--requirepass"), "redis: has its password on its command line"),
]


@pytest.mark.parametrize(("rule", "change", "found"), BROKEN, ids=[found for _, _, found in BROKEN])
def test_a_file_that_breaks_a_rule_is_found_out(rule: Rule, change: Change, found: str) -> None:
    document = read()
    change(document)
    problems = list(rule(document))
    assert any(found in problem for problem in problems), problems


def test_every_rule_is_broken_by_one_of_them() -> None:
    assert {rule for rule, _, _ in BROKEN} == set(RULES)


def test_without_a_server_named_nothing_starts_and_the_reason_names_it() -> None:
    with pytest.raises(Unset, match="name the Letta server, http://sandbox:8283 with --profile demo"):
        services(read(), {})


def test_a_setting_of_the_operators_reaches_every_process_and_one_that_is_not_set_reaches_none() -> None:
    given = LETTA_URL | {"COMPACTOR_MAX_IN_FLIGHT": "3"}
    for service in services(read(), given).values():
        if service.ours and service.name != "sandbox":
            assert service.environment["COMPACTOR_MAX_IN_FLIGHT"] == "3"
            assert "COMPACTOR_LEASE" not in service.environment


def test_the_profiles_are_the_ones_that_are_told_of_and_bring_only_what_belongs_to_them() -> None:
    profiles: dict[str, set[str]] = {}
    for name, body in read()["services"].items():
        for profile in body.get("profiles", ["always"]):
            profiles.setdefault(profile, set()).add(name)
    assert profiles.pop("always") == {
        *("redis", "postgres", "migrate", "worker", "scheduler", "webhook", "flower", "metrics"),
    }
    assert profiles == {
        "demo": {"sandbox"},
        "letta": {"letta", "letta-db"},
        "monitoring": {"prometheus", "grafana"},
    }


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        ("$$HOSTNAME", "$HOSTNAME"),
        ("${SET}", "value"),
        ("${UNSET}", ""),
        ("${SET:-other}", "value"),
        ("${EMPTY:-other}", "other"),
        ("${UNSET:-http://host:1}", "http://host:1"),
        ("a${SET:+b}c", "abc"),
        ("a${UNSET:+b}c", "ac"),
        ("$${SET:+$$SET/}", "${SET:+$SET/}"),
        ("100 %", "100 %"),
    ],
)
def test_variables_are_put_in_as_compose_does(text: str, read_as: str) -> None:
    assert interpolated(text, {"SET": "value", "EMPTY": ""}) == read_as
