"""The process's settings: one frozen object, and the only reader of the environment.

Three layers, the first that names a variable wins: the process's environment, `.env` in the working directory, and
`up.env` in the state directory, which a running `compactor up` leaves there so that a second terminal finds its
broker and its server.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from dotenv import dotenv_values
from pydantic import SecretStr, ValidationError
from sqlalchemy.engine import make_url

from worker.configuration.letta import LettaSettings
from worker.configuration.operating import OperatingSettings
from worker.configuration.running import RunningSettings
from worker.configuration.webhooks import WebhookSettings
from worker.contract.problems import sentences

RUNTIME_FILE = "up.env"
"""Written by `compactor up` into the state directory while it runs; removed when it stops."""

RUNTIME_PID = "UP_PID"
"""In that file: whose it is. One that was killed leaves its file behind."""


class SettingsError(Exception):
    """The environment holds a value that the service cannot run on; the message names it and says what to do."""


class Settings(OperatingSettings, WebhookSettings, RunningSettings, LettaSettings):
    """Every setting of the service, read once at the start of a process; `worker.configuration` has them by noun."""

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
        merged = _from_files(cls, merged) | merged
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
            if value not in (None, ()) and field.alias is not None:
                values[field.alias] = " ".join(map(_text, value)) if isinstance(value, tuple) else _text(value)
                # The file that it was read from, if it was, is not to be read a second time.
                values[f"{field.alias}_FILE"] = ""
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
            (field.alias or name, "" if field.default in (None, ()) else str(field.default), field.description or "")
            for name, field in cls.model_fields.items()
        ]


def _from_files(settings: type[Settings], given: Mapping[str, str]) -> dict[str, str]:
    """Read the values that lie in a file of their own, named by the variable with `_FILE` behind it.

    That is how containers are given secrets: an environment is shown by too many tools.
    """
    values: dict[str, str] = {}
    for alias in (field.alias or name for name, field in settings.model_fields.items()):
        path = given.get(f"{alias}_FILE")
        if path is None:
            continue
        if alias in given:
            raise SettingsError(f"{alias} and {alias}_FILE are both set: leave one out")
        try:
            value = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or "it is not UTF-8 text"
            raise SettingsError(f"{alias}_FILE: {path} cannot be read: {why}") from None
        if value:
            values[alias] = value
    return values


def _text(value: object) -> str:
    """Write a value as an environment variable holds it."""
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


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
