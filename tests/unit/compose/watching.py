"""What docker-compose.yml and monitoring/ must agree on. The rule takes the file and gives what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.support.composefile import ROOT, Deployed, services
from tests.unit.compose.wiring import PORTS

PROMETHEUS = ROOT / "monitoring" / "prometheus.yml"
PROVISIONING = ROOT / "monitoring" / "grafana" / "provisioning"


def monitoring(document: Mapping[str, Any]) -> Iterator[str]:
    """Prometheus asks services that listen, on networks that it shares; Grafana finds Prometheus and the dashboards."""
    running = services(document)
    prometheus, grafana = running["prometheus"], running["grafana"]
    for job in yaml.safe_load(PROMETHEUS.read_text(encoding="utf-8"))["scrape_configs"]:
        for target in (target for group in job["static_configs"] for target in group["targets"]):
            name, _, port = target.partition(":")
            if name not in PORTS or running[name].environment.get(PORTS[name]) != port:
                yield f"prometheus: asks {target}, where nobody listens"
            elif not _share_a_network(prometheus, running[name]):
                yield f"prometheus: does not reach {name}"
    for source in yaml.safe_load(next(PROVISIONING.glob("datasources/*.yml")).read_text(encoding="utf-8"))[
        "datasources"
    ]:
        host = urlsplit(source["url"]).hostname
        if host != "prometheus" or not _share_a_network(grafana, prometheus):
            yield f"grafana: does not reach {source['url']}"
    mounts = {target: source for source, target in _mounts(grafana)}
    if mounts.get("/etc/grafana/provisioning") != "./monitoring/grafana/provisioning":
        yield "grafana: is not told where its data is"
    for provider in yaml.safe_load(next(PROVISIONING.glob("dashboards/*.yml")).read_text(encoding="utf-8"))[
        "providers"
    ]:
        place = mounts.get(provider["options"]["path"])
        if place is None or not list((ROOT / PurePosixPath(place)).glob("*.json")):
            yield f"grafana: finds no dashboard in {provider['options']['path']}"
    read = re.search(r"--config\.file=/etc/prometheus/(\S+)", " ".join(prometheus.argv))
    if read is None or ("./monitoring", "/etc/prometheus") not in _mounts(prometheus):
        yield "prometheus: does not read what is in monitoring/"


def _mounts(service: Deployed) -> list[tuple[str, str]]:
    texts = [mount for mount in service.body.get("volumes", []) if isinstance(mount, str)]
    return [(text.split(":")[0], text.split(":")[1]) for text in texts]


def _share_a_network(one: Deployed, other: Deployed) -> bool:
    return bool(set(one.body.get("networks", [])) & set(other.body.get("networks", [])))
