"""The settings: every variable, where it may come from, and what is said of a bad one."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from worker.settings import RUNTIME_FILE, RUNTIME_PID, Settings, SettingsError

SECRET = "s3cret/passw0rd"
SIGNING = "whsec_" + base64.b64encode(b"passw0rd" * 4).decode()
OTHER_SIGNING = "whsec_" + base64.b64encode(b"passw1rd" * 4).decode()


def load(tmp_path: Path, **environ: str) -> Settings:
    return Settings.load(environ, directory=tmp_path)


def refusal(tmp_path: Path, **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, **environ)
    assert caught.value.__cause__ is None
    return str(caught.value)


GOOD: dict[str, tuple[str, str, Any]] = {
    # variable: (its field, a value, what it is read as)
    "LETTA_BASE_URL": ("letta_base_url", "https://letta.example:8283/v1/", "https://letta.example:8283"),
    "LETTA_API_KEY": ("letta_api_key", "sk-let-1", SecretStr("sk-let-1")),
    "LETTA_SLIDING_WINDOW": ("letta_sliding_window", "keep", "keep"),
    "LETTA_DEFAULT_CONVERSATIONS": ("letta_default_conversations", "false", False),
    "LETTA_COMPACT_TIMEOUT": ("letta_compact_timeout", "120.5", 120.5),
    "LETTA_SERVER_LIMIT": ("letta_server_limit", "60", 60.0),
    "LETTA_READ_TIMEOUT": ("letta_read_timeout", "5", 5.0),
    "COMPACTOR_DATABASE_URL": (
        "database_url",
        "postgresql://u@db.example/ledger",
        "postgresql+psycopg://u@db.example/ledger",
    ),
    "COMPACTOR_BROKER_URL": (
        "broker_url",
        "redis+socket:///run/redis.sock",
        SecretStr("redis+socket:///run/redis.sock"),
    ),
    "COMPACTOR_POLICY_FILE": ("policy_file", "conf/policy.toml", Path("conf/policy.toml")),
    "COMPACTOR_STATE_DIR": ("state_dir", "var/state", Path("var/state")),
    "COMPACTOR_CONCURRENCY": ("concurrency", "100", 100),
    "COMPACTOR_MAX_IN_FLIGHT": ("max_in_flight", "64", 64),
    "COMPACTOR_MAX_IN_FLIGHT_PER_MODEL": ("max_in_flight_per_model", "4", 4),
    "COMPACTOR_LEASE": ("lease", "90", 90.0),
    "COMPACTOR_SHUTDOWN_GRACE": ("shutdown_grace", "0", 0.0),
    "COMPACTOR_MEASURE_CONCURRENCY": ("measure_concurrency", "4", 4),
    "COMPACTOR_PAGE_SIZE": ("page_size", "5000", 5000),
    "COMPACTOR_STALE_RUN_AFTER": ("stale_run_after", "60", 60),
    "COMPACTOR_RECONCILE_EVERY": ("reconcile_every", "30", 30),
    "COMPACTOR_SCAN_LEASE": ("scan_lease", "120", 120.0),
    "COMPACTOR_MESSAGE_PATIENCE": ("message_patience", "900", 900.0),
    "COMPACTOR_LOOK_AGAIN_AFTER": ("look_again_after", "5", 5.0),
    "COMPACTOR_LOG_LEVEL": ("log_level", "DEBUG", "DEBUG"),
    "COMPACTOR_LOG_FORMAT": ("log_format", "json", "json"),
    "COMPACTOR_FLOWER_AUTH": ("flower_auth", "me:passw0rd", SecretStr("me:passw0rd")),
    "COMPACTOR_FLOWER_HOST": ("flower_host", "::1", "::1"),
    "COMPACTOR_FLOWER_PORT": ("flower_port", "5556", 5556),
    "COMPACTOR_FLOWER_URL_PREFIX": ("flower_url_prefix", "/ops/flower/", "ops/flower"),
    "COMPACTOR_METRICS_HOST": ("metrics_host", "0.0.0.0", "0.0.0.0"),  # noqa: S104
    "COMPACTOR_METRICS_PORT": ("metrics_port", "9000", 9000),
    "COMPACTOR_HEARTBEAT_URL": (
        "heartbeat_url",
        "https://hc.example/ping/{schedule}",
        "https://hc.example/ping/{schedule}",
    ),
    "STEP_COMPLETE_KEY": ("step_complete_key", "k-1", SecretStr("k-1")),
    "COMPACTOR_WEBHOOK_SECRETS": (
        "webhook_secrets",
        f"{SIGNING} {OTHER_SIGNING}",
        (SecretStr(SIGNING), SecretStr(OTHER_SIGNING)),
    ),
    "COMPACTOR_WEBHOOK_HOST": ("webhook_host", "0.0.0.0", "0.0.0.0"),  # noqa: S104
    "COMPACTOR_WEBHOOK_PORT": ("webhook_port", "9000", 9000),
    "COMPACTOR_WEBHOOK_OPEN": ("webhook_open", "true", True),
    "COMPACTOR_WEBHOOK_RATE": ("webhook_rate", "5", 5),
    "COMPACTOR_ATTEND_EVERY": ("attend_every", "2.5", 2.5),
    "COMPACTOR_KEEP_EVENTS_FOR": ("keep_events_for", "7", 7.0),
    "COMPACTOR_NOTIFY_URLS": (
        "notify_urls",
        "https://a.example/hook http://b.example:9/x",
        ("https://a.example/hook", "http://b.example:9/x"),
    ),
    "COMPACTOR_NOTIFY_SECRET": ("notify_secret", SIGNING, SecretStr(SIGNING)),
    "COMPACTOR_NOTIFY_SUMMARY": ("notify_summary", "1", True),
}

NEEDS = {"COMPACTOR_NOTIFY_URLS": {"COMPACTOR_NOTIFY_SECRET": SIGNING}}
"""What has to be set beside a variable."""

BAD: dict[str, list[tuple[str, str]]] = {
    # variable: values, and what is said of each
    "LETTA_BASE_URL": [
        ("letta.example", "must be an http:// or https:// address"),
        ("ftp://letta.example", "must be an http:// or https:// address"),
        ("http://", "must be an http:// or https:// address"),
        ("http://letta.example:port", "must be an http:// or https:// address"),
        (f"http://me:{SECRET.replace('/', '')}@letta.example", "must not carry a user or a password"),
    ],
    "LETTA_SLIDING_WINDOW": [("evicts", "'evicts' is not allowed; allowed: evict, keep")],
    "LETTA_DEFAULT_CONVERSATIONS": [("maybe", "true or false")],
    "LETTA_COMPACT_TIMEOUT": [("0", "greater than 0"), ("ten", "a number"), ("inf", "finite"), ("nan", "finite")],
    "LETTA_SERVER_LIMIT": [("-1", "greater than 0")],
    "COMPACTOR_DATABASE_URL": [
        ("ledger.db", "is no database URL; write sqlite:///file or postgresql://user@host/name"),
        ("mysql://host/name", "names a mysql database; the ledger runs on sqlite and postgresql"),
        ("sqlite://", "must name a file"),
        ("sqlite:///:memory:", "must name a file"),
        ("postgresql://u:passw0rd#@host:x/name", "is no database URL"),
    ],
    "COMPACTOR_BROKER_URL": [
        ("amqp://host", "has the scheme 'amqp'; a broker is one of redis://, rediss://, redis+socket://"),
        ("localhost:6379", "is no URL"),
        (f"redis://:{SECRET}@host:6379/0", "percent-encode the password"),
    ],
    "COMPACTOR_FLOWER_AUTH": [
        ("passw0rd", "must be user:password"),
        (":passw0rd", "must be user:password"),
        ("me:passw0r", "at least 8 characters"),
        ("me:pass w0rd", "without spaces"),
        ("me:passw0rdé", "printable ASCII"),
    ],
    "COMPACTOR_FLOWER_PORT": [("0", "greater than or equal to 1"), ("65536", "less than or equal to 65535")],
    "COMPACTOR_FLOWER_URL_PREFIX": [("my flower", "must be a path"), ("http://x/flower", "must be a path")],
    "COMPACTOR_CONCURRENCY": [("0", "greater than or equal to 1"), ("many", "a whole number"), ("1.5", "whole number")],
    "COMPACTOR_MAX_IN_FLIGHT": [("0", "greater than or equal to 1")],
    "COMPACTOR_MAX_IN_FLIGHT_PER_MODEL": [("0", "greater than or equal to 1")],
    "COMPACTOR_LEASE": [("0", "greater than or equal to 1"), ("inf", "finite")],
    "COMPACTOR_SHUTDOWN_GRACE": [("-1", "greater than or equal to 0"), ("inf", "finite")],
    "COMPACTOR_MEASURE_CONCURRENCY": [("257", "less than or equal to 256")],
    "COMPACTOR_PAGE_SIZE": [("5001", "less than or equal to 5000")],
    "COMPACTOR_STALE_RUN_AFTER": [("0", "greater than or equal to 1")],
    "COMPACTOR_RECONCILE_EVERY": [("soon", "a whole number")],
    "COMPACTOR_HEARTBEAT_URL": [("hc.example/passw0rd", "must be an http:// or https:// address")],
    "STEP_COMPLETE_KEY": [("passw0rd and more", "one word of printable ASCII"), ("passw\u00f6rd", "printable ASCII")],
    "COMPACTOR_WEBHOOK_SECRETS": [
        ("passw0rd", "must be whsec_ and the base64 of 24 to 64 bytes"),
        ("whsec_passw0rd", "the base64 of 24 to 64 bytes; these are 6"),
        (f"{SIGNING} whsec_passw0rd!", "number 2 of its secrets must be whsec_ and the base64"),
    ],
    "COMPACTOR_WEBHOOK_PORT": [("0", "greater than or equal to 1"), ("65536", "less than or equal to 65535")],
    "COMPACTOR_WEBHOOK_OPEN": [("perhaps", "true or false")],
    "COMPACTOR_WEBHOOK_RATE": [("0", "greater than or equal to 1")],
    "COMPACTOR_ATTEND_EVERY": [("0.5", "greater than or equal to 1"), ("inf", "finite")],
    "COMPACTOR_KEEP_EVENTS_FOR": [("0", "greater than or equal to 1")],
    "COMPACTOR_NOTIFY_URLS": [
        ("hooks.example/passw0rd", "number 1 is no http:// or https:// address"),
        ("https://hooks.example/passw0rd", "COMPACTOR_NOTIFY_SECRET is not: webhooks go out signed"),
    ],
    "COMPACTOR_NOTIFY_SECRET": [("whsec_passw0rd", "the base64 of 24 to 64 bytes")],
    "COMPACTOR_LOG_LEVEL": [("debug", "allowed: DEBUG, INFO, WARNING, ERROR")],
}


@pytest.mark.parametrize("variable", GOOD)
def test_a_variable_is_read_as_what_it_is(tmp_path: Path, variable: str) -> None:
    field, text, value = GOOD[variable]
    assert getattr(load(tmp_path, **{variable: text}, **NEEDS.get(variable, {})), field) == value


def test_every_setting_is_tried_here() -> None:
    assert {variable for variable, _, _ in Settings.table()} == set(GOOD)


@pytest.mark.parametrize(
    ("variable", "text", "said"), [(variable, *case) for variable, cases in BAD.items() for case in cases]
)
def test_a_bad_value_is_told_with_its_variable(tmp_path: Path, variable: str, text: str, said: str) -> None:
    told = refusal(tmp_path, **{variable: text})
    assert told.startswith(variable)
    assert said in told
    assert "\n" not in told
    assert "passw0rd" not in told


@pytest.mark.parametrize("variable", GOOD)
def test_an_empty_variable_is_as_if_it_were_not_set(tmp_path: Path, variable: str) -> None:
    field, _, _ = GOOD[variable]
    assert getattr(load(tmp_path, **{variable: ""}), field) == getattr(load(tmp_path), field)


def test_all_bad_variables_are_told_at_once(tmp_path: Path) -> None:
    told = refusal(tmp_path, COMPACTOR_PAGE_SIZE="0", LETTA_BASE_URL="x", COMPACTOR_LOG_LEVEL="loud")
    assert sorted(line.partition(":")[0] for line in told.splitlines()) == [
        "COMPACTOR_LOG_LEVEL",
        "COMPACTOR_PAGE_SIZE",
        "LETTA_BASE_URL",
    ]


def test_no_secret_is_in_a_repr_or_a_str(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        LETTA_API_KEY=f"sk-{SECRET}",
        COMPACTOR_BROKER_URL="redis://:passw0rd@localhost:6379/0",
        COMPACTOR_DATABASE_URL="postgresql://user:passw0rd@localhost/ledger",
    )
    assert "passw0rd" not in f"{settings!r} {settings}"
    assert "passw0rd" not in settings.shown_ledger_url
    assert "user:***@localhost/ledger" in settings.shown_ledger_url
    assert "passw0rd" in settings.ledger_url


def test_the_environment_wins_over_dot_env_and_that_over_what_up_left(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / RUNTIME_FILE).write_text("COMPACTOR_PAGE_SIZE=1\nCOMPACTOR_CONCURRENCY=1\nCOMPACTOR_LEASE=11\n")
    (tmp_path / ".env").write_text("COMPACTOR_PAGE_SIZE=2\nCOMPACTOR_CONCURRENCY=2\nCOMPACTOR_STATE_DIR=state\n")
    settings = load(tmp_path, COMPACTOR_PAGE_SIZE="3")
    assert (settings.page_size, settings.concurrency, settings.lease) == (3, 2, 11)


def test_a_secret_may_lie_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"sk-{SECRET}\n")
    (tmp_path / "empty").write_text("\n")
    settings = load(
        tmp_path, LETTA_API_KEY_FILE=str(tmp_path / "key"), COMPACTOR_BROKER_URL_FILE=str(tmp_path / "empty")
    )
    assert settings.letta_api_key == SecretStr(f"sk-{SECRET}")
    assert settings.broker_url is None


def test_a_process_that_is_given_the_settings_does_not_read_the_secrets_file_again(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"sk-{SECRET}")
    environ = {"LETTA_API_KEY_FILE": str(tmp_path / "key")}
    settings = load(tmp_path, **environ)
    assert load(tmp_path, **environ | settings.environment()) == settings


def test_a_secrets_file_that_cannot_be_read_or_is_one_too_many_is_told(tmp_path: Path) -> None:
    missing, binary = tmp_path / "missing", tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    assert refusal(tmp_path, LETTA_API_KEY_FILE=str(missing)) == (
        f"LETTA_API_KEY_FILE: {missing} cannot be read: No such file or directory"
    )
    assert refusal(tmp_path, LETTA_API_KEY_FILE=str(binary)).endswith("cannot be read: it is not UTF-8 text")
    both = refusal(tmp_path, LETTA_API_KEY_FILE=str(binary), LETTA_API_KEY="k")
    assert both == "LETTA_API_KEY and LETTA_API_KEY_FILE are both set: leave one out"


def test_a_bad_value_in_dot_env_is_told_as_well(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("COMPACTOR_PAGE_SIZE=many\n")
    assert refusal(tmp_path).startswith("COMPACTOR_PAGE_SIZE: ")


def test_a_dot_env_that_is_not_text_is_told(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"LETTA_API_KEY=\xff\xfe\n")
    assert ".env" in refusal(tmp_path)


def test_without_a_server_the_state_is_the_sandboxs_own(tmp_path: Path) -> None:
    assert load(tmp_path).state_dir == Path(".compactor/sandbox")
    assert load(tmp_path, LETTA_BASE_URL="http://localhost:8283").state_dir == Path(".compactor")
    (tmp_path / ".env").write_text("LETTA_BASE_URL=http://localhost:8283\n")
    assert load(tmp_path).state_dir == Path(".compactor")
    assert load(tmp_path, COMPACTOR_STATE_DIR="mine").state_dir == Path("mine")


def test_a_second_terminal_finds_what_up_started_for_the_sandbox(tmp_path: Path) -> None:
    state = tmp_path / ".compactor" / "sandbox"
    state.mkdir(parents=True)
    (state / RUNTIME_FILE).write_text(
        "LETTA_BASE_URL=http://127.0.0.1:4711\nCOMPACTOR_BROKER_URL=redis+socket:///tmp/x.sock\n"
    )
    settings = load(tmp_path)
    assert settings.require_letta() == "http://127.0.0.1:4711"
    assert settings.require_broker() == "redis+socket:///tmp/x.sock"
    assert settings.state_dir == Path(".compactor/sandbox")


def test_the_ledger_lies_in_the_state_directory_unless_it_is_named(tmp_path: Path) -> None:
    assert load(tmp_path, COMPACTOR_STATE_DIR="var").ledger_url == "sqlite:///var/ledger.db"
    assert load(tmp_path, COMPACTOR_DATABASE_URL="sqlite:////data/l.db").ledger_url == "sqlite:////data/l.db"


def test_what_is_missing_is_told_with_how_to_name_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"LETTA_BASE_URL is not set: .* or run `compactor up`"):
        load(tmp_path).require_letta()
    with pytest.raises(SettingsError, match=r"COMPACTOR_BROKER_URL is not set: .* or run `compactor up`"):
        load(tmp_path).require_broker()


def test_settings_do_not_change(tmp_path: Path) -> None:
    settings = load(tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        settings.page_size = 5  # type: ignore[misc]


def test_settings_given_on_as_an_environment_are_the_same(tmp_path: Path) -> None:
    settings = load(tmp_path, **{variable: text for variable, (_, text, _) in GOOD.items()})
    assert load(tmp_path, **settings.environment()) == settings
    assert settings.with_values({"COMPACTOR_PAGE_SIZE": "7"}).page_size == 7


def test_the_table_tells_every_variable_with_what_it_means() -> None:
    assert all(description for _, _, description in Settings.table())


def test_what_an_up_that_was_killed_has_left_behind_is_not_joined(tmp_path: Path) -> None:
    state = tmp_path / ".compactor" / "sandbox"
    state.mkdir(parents=True)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for pid, size in ((gone.pid, 100), (os.getpid(), 7)):
        (state / RUNTIME_FILE).write_text(f"{RUNTIME_PID}={pid}\nCOMPACTOR_PAGE_SIZE=7\n")
        assert Settings.load({}, directory=tmp_path).page_size == size
