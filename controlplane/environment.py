"""Where this installation lives: its ports, its state folder, and what a running supervisor has written down.

No Django in here: the settings, the supervisor, the demo processes and the tests all import it. Nothing is read at
import.

A supervisor (`make up`, `make demo`) writes `<state>/runtime.env` and holds a lock on `<state>/supervisor.lock` for as
long as it runs. So a command in a second terminal finds the same databases and gateway with nothing set.
"""

from __future__ import annotations

import fcntl
import os
import shlex
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
RUNTIME_FILE = "runtime.env"
LOCK_FILE = "supervisor.lock"

DEMO_MONOLITH_PORT = 3000
DEMO_SERVICE_PORTS = tuple(range(3010, 3020))

_PORT_SETTINGS = {
    "dashboard": ("DASHBOARD_PORT", 8000),
    "gateway": ("GATEWAY_PORT", 8089),
    "gateway_admin": ("GATEWAY_ADMIN_PORT", 9901),
    "postgres": ("POSTGRES_PORT", 5439),
    "redis": ("REDIS_PORT", 6389),
}
MOST_EXTRA_GATEWAYS = 8


class EnvironmentProblem(ValueError):
    """A setting of the environment that cannot be used; the message is one sentence that names it."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The loopback TCP ports of one installation.

    `offset` (PORT_OFFSET) moves every port, the demo estate's as well, so that two installations can run side by side;
    a port that is set by its own name is taken as it is, without the offset.
    """

    offset: int
    dashboard: int
    gateway: int
    gateway_admin: int
    postgres: int
    redis: int

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Ports:
        """Read the ports. Raises EnvironmentProblem for what is no number or lies outside 1-65535."""
        environ = os.environ if environ is None else environ
        offset = port_offset(environ)
        values: dict[str, int] = {}
        for name, (setting, default) in _PORT_SETTINGS.items():
            own = environ.get(setting)
            values[name] = _number(setting, own) if own else default + offset
            if not 0 < values[name] < 65536:
                named = setting if own else "PORT_OFFSET"
                raise EnvironmentProblem(f"{named} gives port {values[name]}, not in 1-65535.")
        return cls(offset=offset, **values)

    @property
    def demo(self) -> tuple[int, ...]:
        """The demo estate's ports: the monolith's, then the ten services'."""
        return tuple(port + self.offset for port in (DEMO_MONOLITH_PORT, *DEMO_SERVICE_PORTS))

    def of_extra_gateway(self, number: int) -> tuple[int, int]:
        """The data port and the admin port of the further gateway with this number, from 2: one on from the last one's.

        Raises EnvironmentProblem.
        """
        found = self.gateway + number - 1, self.gateway_admin + number - 1
        if max(found) > 65535:
            raise EnvironmentProblem(f"GATEWAYS_EXTRA gives port {max(found)}, not in 1-65535.")
        return found

    @staticmethod
    def setting(name: str) -> str:
        """The setting that moves the port called `name` (a field of this class)."""
        return _PORT_SETTINGS[name][0]


def extra_gateways(environ: Mapping[str, str] | None = None) -> int:
    """GATEWAYS_EXTRA: how many gateways are run beside the first one, 0 unless set. Raises EnvironmentProblem."""
    environ = os.environ if environ is None else environ
    number = _number("GATEWAYS_EXTRA", environ.get("GATEWAYS_EXTRA") or "0")
    if not 0 <= number <= MOST_EXTRA_GATEWAYS:
        raise EnvironmentProblem(f"GATEWAYS_EXTRA must be 0 to {MOST_EXTRA_GATEWAYS}, not {number}.")
    return number


def _number(setting: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise EnvironmentProblem(f"{setting} must be a whole number, not {text!r}.") from None


def port_offset(environ: Mapping[str, str] | None = None) -> int:
    """PORT_OFFSET as a number, 0 when it is not set. Raises EnvironmentProblem."""
    environ = os.environ if environ is None else environ
    offset = _number("PORT_OFFSET", environ.get("PORT_OFFSET") or "0")
    # The highest port of all is the gateway's admin port.
    highest = 65535 - _PORT_SETTINGS["gateway_admin"][1]
    if not 0 <= offset <= highest:
        raise EnvironmentProblem(f"PORT_OFFSET must be 0 to {highest}, not {offset}.")
    return offset


def state_dir(environ: Mapping[str, str] | None = None) -> Path:
    """The state folder that the environment names: STATE_DIR, else the repository's `.state` or `.state-<offset>`."""
    environ = os.environ if environ is None else environ
    if environ.get("STATE_DIR"):
        return Path(environ["STATE_DIR"]).expanduser().resolve()
    offset = port_offset(environ)
    return REPOSITORY / (f".state-{offset}" if offset else ".state")


def current_state_dir(environ: Mapping[str, str] | None = None, repository: Path = REPOSITORY) -> Path:
    """The state folder that a command should use.

    As `state_dir`; but when the environment names none, nothing runs on the default one and exactly one other state
    folder of this repository is in use, that one. With two in use, one must be named.
    """
    environ = os.environ if environ is None else environ
    if environ.get("STATE_DIR") or environ.get("PORT_OFFSET"):
        return state_dir(environ)
    default = repository / ".state"
    if is_running(default):
        return default
    others = [folder for folder in sorted(repository.glob(".state-*")) if is_running(folder)]
    return others[0] if len(others) == 1 else default


def is_running(state: Path) -> bool:
    """Whether a supervisor holds this state folder. A lock tells it, so a recycled process id cannot."""
    try:
        descriptor = os.open(state / LOCK_FILE, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def read_runtime(state: Path) -> dict[str, str]:
    """What the last supervisor of this state folder wrote down; empty when there is none or it is another user's."""
    try:
        text = (state / RUNTIME_FILE).read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = (word.partition("=") for line in text.splitlines() for word in shlex.split(line, comments=True))
    return {key: value for key, _, value in pairs if key}


def write_runtime(state: Path, values: Mapping[str, str]) -> None:
    """Write `runtime.env` (mode 0600, a shell can source it), whole or not at all."""
    temporary = state / f"{RUNTIME_FILE}.new"
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.writelines(f"{key}={shlex.quote(value)}\n" for key, value in sorted(values.items()))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(state / RUNTIME_FILE)


def load_runtime(environ: MutableMapping[str, str] | None = None) -> dict[str, str]:
    """Fill in the settings that the environment leaves open from the running, or last, supervisor; return those.

    Nothing happens when the environment is about another installation: SWITCHYARD_MODE other than local, or a
    DATABASE_URL that is not the one the supervisor wrote. Half of one installation and half of another would move
    traffic on the wrong gateway.
    """
    environ = os.environ if environ is None else environ
    if environ.get("SWITCHYARD_MODE", "local") != "local":
        return {}
    runtime = read_runtime(current_state_dir(environ))
    if environ.get("DATABASE_URL", runtime.get("DATABASE_URL")) != runtime.get("DATABASE_URL"):
        return {}
    added = {key: value for key, value in runtime.items() if key not in environ}
    environ.update(added)
    return added
