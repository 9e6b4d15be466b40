"""The process's settings: one frozen object, and the only reader of the environment.

Three layers, the first that names a variable wins: the process's environment, `.env` in the working directory, and
`up.env` in the state directory, which a running `compactor up` leaves there so that a second terminal finds its
broker and its server.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self
from urllib.parse import SplitResult, urlsplit

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from worker.contract.problems import sentences

RUNTIME_FILE = "up.env"
"""Written by `compactor up` into the state directory while it runs; removed when it stops."""

RUNTIME_PID = "UP_PID"
"""In that file: whose it is. One that was killed leaves its file behind."""

BROKER_SCHEMES = ("redis", "rediss", "redis+socket")
"""The brokers that crash safety was measured on; the others lose messages at a kill -9."""

DATABASE_FORMS = "write sqlite:///file or postgresql://user@host/name"


class SettingsError(Exception):
    """The environment holds a value that the service cannot run on; the message names it and says what to do."""


class Settings(BaseModel):
    """Every setting of the service, read once at the start of a process.

    Fields are named by their environment variable (the `alias`). Secrets are `SecretStr`: neither repr nor a log
    shows them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    letta_base_url: str | None = Field(
        None,
        alias="LETTA_BASE_URL",
        description="The Letta server, as the official SDK names it. Without it, `up` starts the sandbox.",
    )
    letta_api_key: SecretStr | None = Field(
        None, alias="LETTA_API_KEY", description="The key sent as `Authorization: Bearer`. Never logged."
    )
    letta_sliding_window: Literal["evict", "keep"] = Field(
        "evict",
        alias="LETTA_SLIDING_WINDOW",
        description="What the server does with `sliding_window_percentage`: `evict` that share of the messages "
        "(what servers were seen to do) or `keep` it (what the field's documentation says).",
    )
    letta_default_conversations: bool = Field(
        default=True,
        alias="LETTA_DEFAULT_CONVERSATIONS",
        description="Whether scans look at the agents' default conversations too (one list of agents a scan).",
    )
    letta_compact_timeout: float = Field(
        600,
        gt=0,
        allow_inf_nan=False,
        alias="LETTA_COMPACT_TIMEOUT",
        description="Seconds to wait for the answer to one compaction. A summarizer may take minutes.",
    )
    letta_server_limit: float = Field(
        900,
        gt=0,
        allow_inf_nan=False,
        alias="LETTA_SERVER_LIMIT",
        description="Seconds after which a compaction that the server was asked for cannot take effect any more. "
        "A lost one is not repeated earlier: the server carries on after its client has left.",
    )
    letta_read_timeout: float = Field(
        30,
        gt=0,
        allow_inf_nan=False,
        alias="LETTA_READ_TIMEOUT",
        description="Seconds to wait for the answer to any read.",
    )
    database_url: str | None = Field(
        None,
        # It may hold a password.
        repr=False,
        alias="COMPACTOR_DATABASE_URL",
        description="The ledger: `sqlite:///file` or `postgresql+psycopg://user@host/name`. "
        "Default: `ledger.db` in the state directory.",
    )
    broker_url: SecretStr | None = Field(
        None,
        alias="COMPACTOR_BROKER_URL",
        description="Redis, as `redis://host:6379/0`. Without it, `up` brings a broker of its own.",
    )
    policy_file: Path = Field(Path("policy.toml"), alias="COMPACTOR_POLICY_FILE", description="Policies and schedules.")
    state_dir: Path = Field(
        Path(".compactor"),
        alias="COMPACTOR_STATE_DIR",
        description="Where a machine keeps the ledger, beat's schedule, the embedded broker's data and the logs. "
        "Default: `.compactor`, and `.compactor/sandbox` while no `LETTA_BASE_URL` is set, "
        "so that a trial never mixes with a server's ledger.",
    )
    concurrency: int = Field(
        32,
        ge=1,
        le=1000,
        alias="COMPACTOR_CONCURRENCY",
        description="Tasks that one worker process runs at once. They wait for the server nearly all the time.",
    )
    max_in_flight: int = Field(
        32,
        ge=1,
        le=10_000,
        alias="COMPACTOR_MAX_IN_FLIGHT",
        description="Compactions under way at once in the whole fleet, however many workers there are.",
    )
    max_in_flight_per_model: int = Field(
        16,
        ge=1,
        le=10_000,
        alias="COMPACTOR_MAX_IN_FLIGHT_PER_MODEL",
        description="The same for each summarizer model handle.",
    )
    lease: float = Field(
        60,
        ge=1,
        allow_inf_nan=False,
        alias="COMPACTOR_LEASE",
        description="Seconds without a heartbeat after which a worker is taken for dead; it beats thrice as often.",
    )
    shutdown_grace: float = Field(
        20,
        ge=0,
        allow_inf_nan=False,
        alias="COMPACTOR_SHUTDOWN_GRACE",
        description="Seconds that running compactions get to finish after SIGTERM. "
        "What does not finish is left to the sweep.",
    )
    measure_concurrency: int = Field(
        4,
        ge=1,
        le=256,
        alias="COMPACTOR_MEASURE_CONCURRENCY",
        description="Measuring requests that one process has under way at once; beyond a few a server gets slower.",
    )
    page_size: int = Field(
        100, ge=1, le=5000, alias="COMPACTOR_PAGE_SIZE", description="Conversations asked for in one list request."
    )
    stale_run_after: int = Field(
        3600,
        ge=1,
        alias="COMPACTOR_STALE_RUN_AFTER",
        description="Seconds after which an unfinished run proves nothing: servers leave some in `created` for ever.",
    )
    reconcile_every: int = Field(
        60,
        ge=1,
        alias="COMPACTOR_RECONCILE_EVERY",
        description="Seconds between two sweeps for planned rows nobody started and open rows whose worker died.",
    )
    look_again_after: float = Field(
        30,
        gt=0,
        allow_inf_nan=False,
        alias="COMPACTOR_LOOK_AGAIN_AFTER",
        description="Seconds between two looks for the effect of a compaction whose answer was lost.",
    )
    message_patience: float = Field(
        600,
        gt=0,
        allow_inf_nan=False,
        alias="COMPACTOR_MESSAGE_PATIENCE",
        description="Seconds that a planned compaction's message may be on its way before the sweep sends it again.",
    )
    scan_lease: float = Field(
        300,
        gt=0,
        allow_inf_nan=False,
        alias="COMPACTOR_SCAN_LEASE",
        description="Seconds without progress after which a scan, or a page of it, is taken up again by the sweep.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", alias="COMPACTOR_LOG_LEVEL", description="How much the processes log."
    )

    @field_validator("letta_base_url")
    @classmethod
    def _base_url_is_http(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = _url_parts(value)
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an http:// or https:// address, such as http://localhost:8283")
        if parts.username or parts.password:
            raise ValueError("must not carry a user or a password; put the key in LETTA_API_KEY")
        return value.rstrip("/").removesuffix("/v1")

    @field_validator("database_url")
    @classmethod
    def _database_is_one_of_two(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            url = make_url(value)
        except (ArgumentError, ValueError):
            # What was taken for the port may be a piece of an unquoted password: it is not shown.
            raise ValueError(f"is no database URL; {DATABASE_FORMS}") from None
        kind = url.get_backend_name()
        if kind not in ("sqlite", "postgresql"):
            raise ValueError(f"names a {kind} database; the ledger runs on sqlite and postgresql")
        if kind == "sqlite" and url.database in (None, "", ":memory:"):
            raise ValueError("must name a file: a ledger in memory would be lost with its process")
        if "@" in (url.host or ""):
            raise ValueError("has an @ in its user or password: write it as %40")
        if kind == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        return url.render_as_string(hide_password=False)

    @field_validator("broker_url")
    @classmethod
    def _broker_is_redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        url = value.get_secret_value()
        scheme = url.partition("://")[0] if "://" in url else ""
        if scheme not in BROKER_SCHEMES:
            known = ", ".join(f"{name}://" for name in BROKER_SCHEMES)
            said = f"has the scheme {scheme!r}" if scheme else "is no URL"
            raise ValueError(f"{said}; a broker is one of {known}, such as redis://localhost:6379/0")
        if _url_parts(url) is None:
            raise ValueError("cannot be read as a URL: percent-encode the password (a slash is %2F), number the port")
        return value

    @classmethod
    def load(
        cls, environ: Mapping[str, str] | None = None, *, directory: Path | None = None, join: bool = True
    ) -> Self:
        """Read the settings of this process.

        environ: stands in for the process's environment; directory: where `.env` lies (default: the working
        directory); join: whether to join what a running `compactor up` has brought up. Raises SettingsError with one
        line for each bad variable.
        """
        here = Path() if directory is None else directory
        given = dict(os.environ if environ is None else environ)
        merged = _file_values(here / ".env") | given
        merged = {name: value for name, value in merged.items() if value != ""}
        if "COMPACTOR_STATE_DIR" not in merged:
            default = Path(".compactor")
            merged["COMPACTOR_STATE_DIR"] = str(default if "LETTA_BASE_URL" in merged else default / "sandbox")
        runtime = _file_values(here / merged["COMPACTOR_STATE_DIR"] / RUNTIME_FILE)
        if join and _runs(runtime.get(RUNTIME_PID)):
            merged = {name: value for name, value in runtime.items() if value} | merged
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            raise SettingsError("\n".join(sentences(error, cls))) from None

    @property
    def ledger_url(self) -> str:
        """The ledger's SQLAlchemy URL, the default filled in. It may hold a password: never print it whole."""
        return self.database_url or f"sqlite:///{self.state_dir / 'ledger.db'}"

    @property
    def absolute_ledger_url(self) -> str:
        """The ledger's URL for a process that runs in another directory."""
        url = make_url(self.ledger_url)
        if url.get_backend_name() == "sqlite" and url.database:
            url = url.set(database=str(Path(url.database).absolute()))
        return url.render_as_string(hide_password=False)

    @property
    def shown_ledger_url(self) -> str:
        """The ledger's URL as an operator may see it, its password masked."""
        return make_url(self.ledger_url).render_as_string(hide_password=True)

    def make_state_dir(self) -> None:
        """Make the state directory where it is missing. Raises SettingsError where that cannot be done."""
        try:
            self.state_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise SettingsError(f"COMPACTOR_STATE_DIR: {self.state_dir} cannot be made: {reason}") from None

    def environment(self) -> dict[str, str]:
        """Give the settings as environment variables, for processes that are to run on the same ones."""
        values: dict[str, str] = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if value is not None and field.alias is not None:
                values[field.alias] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        return values

    def with_values(self, values: Mapping[str, str]) -> Self:
        """Give the same settings with some variables replaced."""
        return type(self).model_validate(self.environment() | dict(values))

    def require_letta(self) -> str:
        """Give the server's base URL, or raise SettingsError that says how to name one."""
        if self.letta_base_url is None:
            raise SettingsError(
                "LETTA_BASE_URL is not set: name the Letta server, such as http://localhost:8283, "
                "or run `compactor up`, which starts a sandbox when there is none"
            )
        return self.letta_base_url

    def require_broker(self) -> str:
        """Give the broker's URL, or raise SettingsError that says how to name one."""
        if self.broker_url is None:
            raise SettingsError(
                "COMPACTOR_BROKER_URL is not set: name a Redis, such as redis://localhost:6379/0, "
                "or run `compactor up`, which brings its own"
            )
        return self.broker_url.get_secret_value()

    @classmethod
    def table(cls) -> list[tuple[str, str, str]]:
        """Every setting as (variable, default, description), in order: what the README's table is held against."""
        return [
            (field.alias or name, "" if field.default is None else str(field.default), field.description or "")
            for name, field in cls.model_fields.items()
        ]


def _file_values(path: Path) -> dict[str, str]:
    """Read a file of variables; one that is not there has none."""
    try:
        return {name: value for name, value in dotenv_values(path).items() if value is not None}
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: is not UTF-8 text") from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror or type(error).__name__}") from None


def _runs(pid: str | None) -> bool:
    """Tell whether a process lives; a file that names none is believed."""
    if pid is None or not pid.isdecimal():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _url_parts(url: str) -> SplitResult | None:
    """Take a URL apart; None for one whose host or port is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts
