"""One installation on one machine: which parts are ours to run, where they listen, and what the children are told."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from psycopg.conninfo import make_conninfo

from controlplane import environment
from controlplane.embedded import keys, postgres
from controlplane.embedded.errors import StartFailed
from controlplane.embedded.leftovers import MARKER
from controlplane.embedded.ports import WantedPort
from controlplane.embedded.postgres import PostgresServer
from controlplane.embedded.redis import RedisServer
from controlplane.environment import Ports
from controlplane.gateways import Place, write_places

DATABASE = "switchyard"
DEMO_ROLE = "demo"
ACCOUNTS_FILE = "accounts.txt"  # in the state folder: the demo's accounts, as they were printed


@dataclass(frozen=True)
class Installation:
    """What `up` or `demo` runs. A part whose address the environment names is used and not started."""

    state: Path
    ports: Ports
    given: Mapping[str, str]  # the environment of the person who started us
    demo: bool

    def __post_init__(self) -> None:
        if self.gateway_is_given:
            for name in ("GATEWAY_URL", "GATEWAY_ADMIN_URL"):
                if not self.given.get(name):
                    raise StartFailed(f"GATEWAY_DIR names a gateway that runs elsewhere, so {name} must be set too.")
        if self.extra_gateways and (self.gateway_is_given or self.given.get("GATEWAYS")):
            raise StartFailed("GATEWAYS_EXTRA is for gateways that are run here: unset GATEWAYS and GATEWAY_DIR.")
        if self.demo and self.postgres_is_given and not self.given.get("DEMO_DATABASE_URL"):
            raise StartFailed(
                "DATABASE_URL is set, so the demo needs DEMO_DATABASE_URL too: a role that may create databases."
            )

    @property
    def postgres_is_given(self) -> bool:
        return bool(self.given.get("DATABASE_URL"))

    @property
    def redis_is_given(self) -> bool:
        return bool(self.given.get("REDIS_URL"))

    @property
    def gateway_is_given(self) -> bool:
        return bool(self.given.get("GATEWAY_DIR"))

    @cached_property
    def keys(self) -> dict[str, str]:
        """Passwords, made once for each state folder."""
        return keys.load(self.state)

    @cached_property
    def postgres(self) -> PostgresServer:
        return PostgresServer(postgres.data_folder(self.state), self.ports.postgres, self.keys["POSTGRES_PASSWORD"])

    @cached_property
    def redis(self) -> RedisServer:
        return RedisServer(self.state / "redis", self.ports.redis, self.keys["REDIS_PASSWORD"])

    @property
    def gateway_dir(self) -> Path:
        return Path(self.given["GATEWAY_DIR"]) if self.gateway_is_given else self.state / "gateway"

    @cached_property
    def extra_gateways(self) -> dict[str, Place]:
        """The further gateways that are run here, by key: gw-2, gw-3 and so on."""
        found = {}
        for number in range(2, 2 + environment.extra_gateways(self.given)):
            port, admin_port = self.ports.of_extra_gateway(number)
            folder = self.state / f"gateway-{number}"
            found[f"gw-{number}"] = Place(folder, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}")
        return found

    @property
    def backup_dir(self) -> Path:
        return Path(self.given.get("BACKUP_DIR") or self.state / "backups")

    @property
    def dashboard_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.dashboard}"

    @property
    def gateway_url(self) -> str:
        return self.given["GATEWAY_URL"] if self.gateway_is_given else f"http://127.0.0.1:{self.ports.gateway}"

    @property
    def gateway_admin_url(self) -> str:
        if self.gateway_is_given:
            return self.given["GATEWAY_ADMIN_URL"]
        return f"http://127.0.0.1:{self.ports.gateway_admin}"

    def runtime(self, envoy_binary: str) -> dict[str, str]:
        """What a command in a second terminal needs to know; also the core of every child's environment."""
        database_url = self.given.get("DATABASE_URL") or self.postgres.url(
            DATABASE, DATABASE, self.keys["DATABASE_PASSWORD"]
        )
        values = {
            "ALLOWED_HOSTS": "127.0.0.1,localhost",
            "BACKUP_DIR": str(self.backup_dir),
            "DATABASE_URL": database_url,
            "ENVOY_BINARY": envoy_binary,
            "GATEWAY_ADMIN_URL": self.gateway_admin_url,
            "GATEWAY_DIR": str(self.gateway_dir),
            "GATEWAY_URL": self.gateway_url,
            "GATEWAYS": write_places(self.extra_gateways) or self.given.get("GATEWAYS", ""),
            "PORT_OFFSET": str(self.ports.offset),
            "REDIS_URL": self.given.get("REDIS_URL") or self.redis.url(),
            "SECRET_KEY": self.keys["SECRET_KEY"],
            "STATE_DIR": str(self.state),
            "SUPERVISOR_PID": str(os.getpid()),
            "SWITCHYARD_MODE": "local",
        }
        if self.demo:
            values["DEMO_DATABASE_URL"] = self.given.get("DEMO_DATABASE_URL") or self.postgres.url(
                "postgres", DEMO_ROLE, self.keys["DEMO_DATABASE_PASSWORD"]
            )
            values["DEMO_PASSWORD"] = self.keys["DEMO_PASSWORD"]
            values |= self._of_the_demos_checks(values["DEMO_DATABASE_URL"])
        with contextlib.suppress(StartFailed):
            # The one on PATH may be older than the server, and then reads none of its archives.
            values["PG_RESTORE"] = str(postgres.installed_binaries() / "pg_restore")
        # What the person has set wins, addresses of parts that we run ourselves aside: those are facts.
        chosen = {"ALLOWED_HOSTS", "DEMO_PASSWORD", "ENVOY_BINARY", "PG_RESTORE", "SECRET_KEY"}
        chosen |= {name for name in self.given if name.startswith("CHECK_")}
        return values | {name: self.given[name] for name in chosen if self.given.get(name)}

    def _of_the_demos_checks(self, database_url: str) -> dict[str, str]:
        """What the checks of the demo's plan may use: two databases, an account, and the secret of the tokens."""
        from demo.estate import MEMBERS, Settings
        from demo.seed import PASSWORD, usernames

        estate = Settings.read(self.given)
        databases = {"MAIN": MEMBERS["monolith"], "AUTH": MEMBERS["auth"]}
        addresses = {
            f"CHECK_DATABASE_{name}": make_conninfo(database_url, dbname=estate.database_name(member))
            for name, member in databases.items()
        }
        account = f"{usernames()[0]}:{PASSWORD}"
        return {**addresses, "CHECK_ACCOUNT_DEMO": account, "CHECK_SECRET_JWT": estate.jwt_secret}

    def child_environment(self, runtime: Mapping[str, str]) -> dict[str, str]:
        """The environment of every child: the person's, ours over it, and the mark by which leftovers are known."""
        return {
            **self.given,
            **runtime,
            "DJANGO_SETTINGS_MODULE": "controlplane.settings",
            "PYTHONUNBUFFERED": "1",
            MARKER: str(self.state),
        }

    def wanted_ports(self) -> list[WantedPort]:
        """Every port that we are about to listen on."""
        wanted = [WantedPort(self.ports.dashboard, "the dashboard", "DASHBOARD_PORT or PORT_OFFSET")]
        if not self.gateway_is_given:
            wanted.append(WantedPort(self.ports.gateway, "the gateway", "GATEWAY_PORT or PORT_OFFSET"))
            wanted.append(
                WantedPort(self.ports.gateway_admin, "the gateway's admin port", "GATEWAY_ADMIN_PORT or PORT_OFFSET")
            )
        for key, place in self.extra_gateways.items():
            ports = (urlsplit(place.url).port, urlsplit(place.admin_url).port)
            wanted.extend(WantedPort(port, f"the gateway {key}", "GATEWAYS_EXTRA") for port in ports if port)
        if not self.postgres_is_given:
            wanted.append(WantedPort(self.ports.postgres, "PostgreSQL", "POSTGRES_PORT or PORT_OFFSET"))
        if not self.redis_is_given:
            wanted.append(WantedPort(self.ports.redis, "Redis", "REDIS_PORT or PORT_OFFSET"))
        if self.demo:
            from demo.estate import MEMBERS

            wanted.extend(
                WantedPort(member.port + self.ports.offset, f"the demo's {name}", "PORT_OFFSET")
                for name, member in MEMBERS.items()
            )
        return wanted
