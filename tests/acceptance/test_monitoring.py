"""The files for Prometheus and Grafana: checked by Prometheus's own tool, and against a page as it is served."""

import json
import re
import shutil
import subprocess
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ops.metrics import LedgerCollector
from tests.support.metrics import page_of, samples
from tests.support.needs import missing
from tests.support.rows import (
    CLOSING,
    ENDINGS,
    INTENT,
    LEASE,
    NOW,
    OWNER,
    begun,
    claimed,
    closed,
    later,
    planned,
    seen,
)
from worker.audit.database import Database, upgrade
from worker.audit.ledger import Ledger
from worker.audit.records import State
from worker.audit.throttles import Limits
from worker.settings import Settings

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "monitoring"
ALERTS = MONITORING / "alerts.yml"
DASHBOARD = MONITORING / "grafana" / "dashboards" / "compactor.json"
NAME = re.compile(r"\bcompactor_[a-z_]+")
SELECTOR = re.compile(r"\b(compactor_[a-z_]+)\{([^}]*)\}")


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    return found or missing("no promtool: it comes with Debian's package prometheus (`apt-get install prometheus`)")


@pytest.fixture
def page(sqlite_url: str, tmp_path: Path) -> str:
    """A page of a ledger in which everything has happened once."""
    database = Database(sqlite_url)
    upgrade(database)
    ledger = Ledger(database)
    scan = begun(ledger)
    for conversation, state in (("conv-1", State.SUCCEEDED), ("conv-2", State.FAILED)):
        id_ = planned(ledger, conversation, seen=seen(conversation, scan_id=scan.id))
        row = ledger.compactions.claim(id_, now=NOW, owner=OWNER, lease=LEASE)
        assert row is not None
        if state is State.SUCCEEDED:
            ledger.compactions.intend(row.id, INTENT, owner=OWNER, now=NOW, lease=LEASE)
        ENDINGS[state](ledger, row, OWNER, later(seconds=4))
    ledger.compactions.succeed(claimed(ledger, "conv-3"), replace(CLOSING, ids_dropped=("m",)), owner=OWNER, now=NOW)
    closed(ledger, State.REFUSED, "conv-4")
    claimed(ledger, "conv-5")
    ledger.scans.end_listing(scan.id, owner=OWNER)
    ledger.scans.finish(scan.id, now=later(seconds=9))
    ledger.throttles.change("*", Limits(8, 8), lambda throttle: throttle.failed(NOW))
    ledger.answers.add({("/webhooks/compaction", 202): 1})
    policy = tmp_path / "policy.toml"
    policy.write_text('[policies.default]\n[schedules.nightly]\npolicy = "default"\ncron = "0 3 * * *"\n')
    environment = {"COMPACTOR_DATABASE_URL": sqlite_url, "COMPACTOR_POLICY_FILE": str(policy)}
    with closing(database), closing(LedgerCollector(Settings.load(environment, directory=tmp_path))) as collector:
        return page_of(collector)


def rules() -> list[dict[str, str]]:
    found: list[dict[str, str]] = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
    return found


def queries() -> list[str]:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def check(promtool: str, *words: str, given: str | None = None) -> None:
    ran = subprocess.run(
        [promtool, *words], cwd=MONITORING, input=given, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_prometheus_takes_the_rules_and_the_configuration(promtool: str) -> None:
    check(promtool, "check", "rules", "alerts.yml")
    check(promtool, "check", "config", "prometheus.yml")


def test_each_alert_fires_when_it_should_and_not_otherwise(promtool: str) -> None:
    check(promtool, "test", "rules", "alerts_test.yml")
    tested = (MONITORING / "alerts_test.yml").read_text(encoding="utf-8")
    firing = re.findall(r"alertname: (\w+)\n\s+exp_alerts:\n\s+- exp_labels", tested)
    assert set(firing) == {rule["alert"] for rule in rules()}


def test_prometheus_finds_nothing_to_say_against_the_page(promtool: str, page: str) -> None:
    check(promtool, "check", "metrics", given=page)


def test_every_query_of_the_dashboard_is_one(promtool: str, tmp_path: Path) -> None:
    recorded = [
        {"record": f"query:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(queries())
    ]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": recorded}]}))
    check(promtool, "check", "rules", str(file))


def test_rules_and_dashboard_name_only_figures_that_the_page_has_and_show_every_one(page: str) -> None:
    there = {name for name, _ in samples(page)}
    asked = {name for query in queries() for name in NAME.findall(query)}
    alerted = {name for rule in rules() for name in NAME.findall(rule["expr"])}
    assert len(asked) > 20
    assert asked | alerted <= there
    derived = ("_created",)
    unseen = {name for name in there if name not in asked | alerted and not name.endswith(derived)}
    assert unseen == set()


def test_rules_and_dashboard_select_only_by_labels_that_the_figures_have(page: str) -> None:
    labels = {(name, key): set() for name, own in samples(page) for key, _ in own}
    for name, own in samples(page):
        for key, label in own:
            labels[name, key].add(label)
    selected = [
        found for query in [*queries(), *(rule["expr"] for rule in rules())] for found in SELECTOR.findall(query)
    ]
    assert selected
    for name, inside in selected:
        for part in inside.split(","):
            key, _, wanted = part.partition("=")
            assert wanted.strip('"') in labels[name, key.strip()], f"{name}{{{part}}}"


def test_grafana_is_given_the_dashboard_and_where_its_figures_are() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    (variable,) = dashboard["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == ("datasource", "datasource", "prometheus")
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in dashboard["panels"])
    provisioning = MONITORING / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "compactor.yml").read_text())["providers"]
    assert provider["type"] == "file"
