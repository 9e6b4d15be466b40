"""A page of metrics, read as Prometheus reads it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ops.metrics import LedgerCollector


def page_of(collector: LedgerCollector) -> str:
    """The page that a scrape would get now."""
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def samples(page: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def value(page: str, name: str, **labels: str) -> float | None:
    """The one sample of that name that has these labels among its own; None where there is none."""
    found = [
        figure for (sample, own), figure in samples(page).items() if sample == name and frozenset(labels.items()) <= own
    ]
    assert len(found) <= 1, f"{len(found)} samples of {name} have {labels}"
    return found[0] if found else None
