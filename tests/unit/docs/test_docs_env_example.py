from __future__ import annotations

from pathlib import Path

from tests.unit.docs.generated import ENV_EXAMPLE, env_example
from worker.settings import Settings

TEXT = ENV_EXAMPLE.read_text(encoding="utf-8")
SERVER = {"LETTA_BASE_URL": "http://localhost:8283"}


def test_it_is_what_the_code_says() -> None:
    assert env_example() == TEXT, ".env.example is not the code's: run `python -m tests.unit.docs.generated`"


def test_it_names_each_setting_once_and_nothing_else() -> None:
    named = [line[1:].partition("=")[0] for line in TEXT.splitlines() if line.startswith("#") and line[1:2] != " "]
    assert named == [variable for variable, _, _ in Settings.table()]


def test_used_as_it_stands_it_changes_nothing(tmp_path: Path) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / ".env").write_text(TEXT, encoding="utf-8")
    assert Settings.load({}, directory=used) == Settings.load({}, directory=tmp_path)


def test_the_defaults_that_it_shows_are_values_that_the_settings_take(tmp_path: Path) -> None:
    used = tmp_path / "used"
    used.mkdir()
    lines = [line[1:] for line in TEXT.splitlines() if line.startswith("#") and line[1:2] != " "]
    (used / ".env").write_text("\n".join(lines), encoding="utf-8")
    assert Settings.load(SERVER, directory=used) == Settings.load(SERVER, directory=tmp_path)
