"""Where the service keeps things, how its processes find each other, and how much they do at once."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from worker.configuration.part import Part, url_parts

BROKER_SCHEMES = ("redis", "rediss", "redis+socket")
"""The brokers that crash safety was measured on; the others lose messages at a kill -9."""

DATABASE_FORMS = "write sqlite:///file or postgresql://user@host/name"


class RunningSettings(Part):
    """Ledger, broker, files, limits, leases and intervals."""

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
        if url_parts(url) is None:
            raise ValueError("cannot be read as a URL: percent-encode the password (a slash is %2F), number the port")
        return value
