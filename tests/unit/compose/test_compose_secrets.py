from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.composefile import ROOT, read
from tests.unit.compose.wiring import SECRETS_SCRIPT


def make(folder: Path, umask: int = 0o022) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SECRETS_SCRIPT, folder], capture_output=True, text=True, check=False, umask=umask)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text().strip() for path in folder.iterdir()}


def test_every_secret_of_the_file_is_made_and_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    done = make(folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(contents(folder)) == set(read()["secrets"])
    assert all(contents(folder).values())


def test_no_two_runs_make_the_same_and_none_shows_what_it_made(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    one, other = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert all(one[name] != other[name] for name in one)
    assert not [value for value in one.values() if value in first.stdout]
    assert first.stdout == second.stdout


def test_what_is_there_stays_as_it_is(tmp_path: Path) -> None:
    make(tmp_path)
    before = contents(tmp_path)
    (tmp_path / "letta_api_key").unlink()
    done = make(tmp_path)
    assert done.stdout == "made letta_api_key\n"
    after = contents(tmp_path)
    assert after.pop("letta_api_key") != before.pop("letta_api_key")
    assert after == before
    assert make(tmp_path).stdout == "all were there already\n"


def test_a_url_has_the_password_of_what_it_opens(tmp_path: Path) -> None:
    (tmp_path / "postgres_password").write_text("mine\n")
    make(tmp_path)
    made = contents(tmp_path)
    assert made["database_url"] == "postgresql://compactor:mine@postgres:5432/compactor"
    assert made["broker_url"].split(":")[2] == f"{made['redis_auth'].removeprefix('requirepass ')}@redis"
    assert f":{made['letta_postgres_password']}@" in made["letta_database_url"]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_folder_lets_its_owner_in_alone_and_containers_can_read_the_files(tmp_path: Path, umask: int) -> None:
    folder = tmp_path / "secrets"
    make(folder, umask)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}  # their owner writes a key anew


def test_the_folder_is_no_part_of_the_repository() -> None:
    assert ".secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_where_nothing_can_be_written_it_fails_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    done = make(tmp_path / "taken" / "secrets")
    assert done.returncode != 0
    assert "taken/secrets cannot be made; name another folder" in done.stderr
