"""Deliveries that go on while the broker is dead: the benchmark's small form, on each database."""

from __future__ import annotations

import pytest

from benchmarks.databases import KINDS
from benchmarks.deliveries import main


@pytest.mark.parametrize("kind", KINDS)
def test_of_two_thousand_deliveries_with_the_broker_killed_in_the_middle_each_is_kept_once_and_assessed(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--deliveries", "2000", "--database", kind, "--outage", "1"])
    assert end.value.code == 0, capsys.readouterr().out
