"""The services of docker-compose.yml as processes of this machine: the file's own commands, environment and checks.

Only what a container would have of its own is mapped: host names, ports, and the places where files are mounted.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.composefile import LETTA_URL, ROOT, SECRETS, Deployed, read, services
from tests.support.network import quiet_port
from tests.support.service import Process, wait_until

PORTS = {"8283": "sandbox", "8484": "webhook", "5555": "flower", "9484": "metrics", "6379": "redis"}
"""The ports that the file names, and who listens on each."""

HEALTHY_SECONDS = 60.0
RUN_SECONDS = 120.0

PUBLIC_ENVIRONMENT = ("HOME", "LANG", "TMPDIR", "SSL_CERT_FILE")


@dataclass
class Stack:
    """One deployment. folder: holds the secrets, the logs, and for each service what its container would."""

    folder: Path
    running: dict[str, Process] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=lambda: {name: quiet_port() for name in PORTS.values()})

    def __post_init__(self) -> None:
        subprocess.run([ROOT / "compose" / "secrets", self.folder / "secrets"], check=True, stdout=subprocess.DEVNULL)
        self._map_secret("broker_url", "@redis:6379", f"@127.0.0.1:{self.ports['redis']}")
        self._services = services(read(), LETTA_URL)

    def secret(self, name: str) -> str:
        """What is in a secret's file."""
        return (self.folder / "secrets" / name).read_text().strip()

    def replace_secret(self, name: str, text: str) -> None:
        """Put something else into a secret's file."""
        path = self.folder / "secrets" / name
        path.unlink()
        path.write_text(f"{text}\n")

    def url(self, name: str, path: str = "") -> str:
        """Where a service is found from here."""
        return f"http://127.0.0.1:{self.ports[name]}{path}"

    def start(self, name: str, *more: str) -> Process:
        """Start a service by its command, with options that this machine needs."""
        service = self.here(name)
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [*service.argv, *more],
                env=self._environment(service),
                cwd=self.folder / name,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process = self.running[name] = Process(popen, log)
        return process

    def wait(self, name: str) -> None:
        """Wait until a service's check passes, as `depends_on` does with `service_healthy`."""
        process = self.running[name]
        wait_until(lambda: process.popen.poll() is not None or self.check(name) == 0, HEALTHY_SECONDS, self.logs)
        status = process.popen.poll()
        if status is not None:
            raise AssertionError(f"{name} ended with {status} before it was healthy:\n{process.text()[-3000:]}")

    def redis(self) -> Process:
        """Start the broker on its port of this machine, and wait for it."""
        process = self.start("redis", "--port", str(self.ports["redis"]), "--bind", "127.0.0.1")
        self.wait("redis")
        return process

    def check(self, name: str) -> int:
        """Run a service's health check once, as Compose would in its container; its status."""
        service = self.here(name)
        return self._run(service, service.check).returncode

    def run(self, name: str, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a service's place, as `docker compose run` and `exec` do; its own where none is given."""
        service = self.here(name)
        return self._run(service, list(argv) or service.argv)

    def stop(self, name: str) -> int:
        """SIGTERM, as `docker compose stop` sends it; the exit status."""
        return self.running.pop(name).stop()

    def logs(self) -> str:
        """What everything that was started has written."""
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')}" for log in self.folder.glob("*.log"))

    def here(self, name: str) -> Deployed:
        """A service as it is on this machine."""
        home = self.folder / name
        for folder in ("state", "etc", "data", "tmp"):
            (home / folder).mkdir(parents=True, exist_ok=True)
        for mount in self._services[name].body.get("volumes", []):
            if isinstance(mount, Mapping) and mount["target"].startswith("/etc/compactor/"):
                shutil.copy(ROOT / mount["source"], home / "etc" / Path(mount["target"]).name)
        places = {
            SECRETS: f"{self.folder / 'secrets'}/",
            "/etc/compactor": str(home / "etc"),
            "/var/lib/compactor": str(home / "state"),
            "/tmp/": f"{home / 'tmp'}/",  # noqa: S108 - a container's, not this machine's
            "/data": str(home / "data"),
            "redis-cli ": f"redis-cli -p {self.ports['redis']} ",
            "//sandbox:": "//127.0.0.1:",
            "//webhook:": "//127.0.0.1:",
            "0.0.0.0": "127.0.0.1",  # noqa: S104 - the same
        }
        places |= {port: str(self.ports[listener]) for port, listener in PORTS.items()}
        # In one go, so that what was put in is not taken for what is to be replaced.
        known = re.compile("|".join(rf"(?<![\w/]){re.escape(place)}" for place in places))

        def mapped(text: str) -> str:
            return known.sub(lambda found: places[found[0]], text)

        return self._services[name].changed(mapped)

    def _map_secret(self, name: str, container: str, machine: str) -> None:
        text = self.secret(name)
        assert container in text
        self.replace_secret(name, text.replace(container, machine))

    def _environment(self, service: Deployed) -> dict[str, str]:
        ours = {name: os.environ[name] for name in PUBLIC_ENVIRONMENT if name in os.environ}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # Docker names a container in this variable as the system does in its host name.
        image = {"PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "HOSTNAME": socket.gethostname()}
        return ours | image | service.environment

    def _run(self, service: Deployed, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv,
            env=self._environment(service),
            cwd=self.folder / service.name,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )


@contextmanager
def composed(folder: Path) -> Iterator[Stack]:
    """Prepare a deployment; whatever still runs at the end is killed."""
    stack = Stack(folder)
    try:
        yield stack
    finally:
        for process in reversed(stack.running.values()):
            if process.popen.poll() is None:
                process.popen.send_signal(signal.SIGCONT)
                process.kill()
