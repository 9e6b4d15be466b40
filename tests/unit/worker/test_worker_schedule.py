"""Beat's entries, from a policy file and the settings."""

from datetime import timedelta
from pathlib import Path

import pytest
from celery.schedules import crontab

from scheduler.schedule import Entry, entries
from worker.names import ATTEND, NOTIFY, RECONCILE, TICK
from worker.policy.forecast import SlidingWindow
from worker.policy.load import load
from worker.policyfile import read_policy
from worker.settings import Settings

ROOT = Path(__file__).parents[3]

REGULAR = {"sweep", "attend", "notify"}


def made(tmp_path: Path, schedules: str, **environ: str) -> dict[str, Entry]:
    book = load(f"[policies.default]\n{schedules}", source="policy.toml", server=SlidingWindow.EVICT)
    found = entries(book, Settings.load(environ, directory=tmp_path))
    assert len({entry.name for entry in found}) == len(found)
    return {entry.name: entry for entry in found}


def test_a_schedule_by_cron_expires_after_its_shortest_gap(tmp_path: Path) -> None:
    found = made(tmp_path, '[schedules.nightly]\npolicy = "default"\ncron = "0 3 * * mon-fri"')
    assert found["schedule:nightly"] == Entry(
        "schedule:nightly", TICK, {"schedule": "nightly"}, cron="0 3 * * mon-fri", every=None, expires=86_400
    )


def test_a_schedule_by_interval_expires_after_it(tmp_path: Path) -> None:
    found = made(tmp_path, '[schedules.pressure]\npolicy = "default"\nevery = "15m"')
    assert found["schedule:pressure"] == Entry(
        "schedule:pressure", TICK, {"schedule": "pressure"}, cron=None, every=timedelta(minutes=15), expires=900
    )


def test_what_webhooks_ask_for_is_looked_after_every_few_seconds(tmp_path: Path) -> None:
    found = made(tmp_path, "", COMPACTOR_ATTEND_EVERY="2.5")
    for name, task in (("attend", ATTEND), ("notify", NOTIFY)):
        assert found[name] == Entry(name, task, {}, cron=None, every=timedelta(seconds=2.5), expires=2.5)


def test_the_sweep_is_always_there_and_expires_after_its_own_interval(tmp_path: Path) -> None:
    assert made(tmp_path, "").keys() == REGULAR
    sweep = made(tmp_path, "", COMPACTOR_RECONCILE_EVERY="30")["sweep"]
    assert sweep == Entry("sweep", RECONCILE, {}, cron=None, every=timedelta(seconds=30), expires=30)


def test_a_schedule_called_sweep_does_not_take_the_sweeps_place(tmp_path: Path) -> None:
    found = made(tmp_path, '[schedules.sweep]\npolicy = "default"\nevery = "1h"')
    assert found.keys() == REGULAR | {"schedule:sweep"}


@pytest.mark.parametrize("every", ["1s", "90s", "1d"])
def test_every_entry_has_exactly_one_clock_and_never_expires_at_once(tmp_path: Path, every: str) -> None:
    found = made(tmp_path, f'[schedules.a]\npolicy = "default"\nevery = "{every}"')
    for entry in found.values():
        assert (entry.cron is None) != (entry.every is None)
        assert entry.expires >= 1


def test_the_policy_file_that_is_shipped_makes_a_nightly_and_a_pressure_pass(tmp_path: Path) -> None:
    book = read_policy(ROOT / "policy.toml", SlidingWindow.EVICT)
    found = {entry.name: entry for entry in entries(book, Settings.load({}, directory=tmp_path))}
    assert found.keys() == REGULAR | {"schedule:nightly", "schedule:pressure"}
    assert found["schedule:nightly"].cron == "0 3 * * *"
    assert vars(crontab.from_string("0 3 * * *"))["hour"] == {3}
    assert found["schedule:pressure"].every == timedelta(minutes=15)
    assert book.policies["pressure"].trigger_usage == 0.85
