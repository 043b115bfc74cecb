"""Who is in the estate, and the settings each process reads from its environment.

Every port is a TCP port on 127.0.0.1, before PORT_OFFSET is added.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
REPOSITORY = Path(__file__).resolve().parent.parent


class SettingsError(Exception):
    """A setting in the environment cannot be used; the text is one sentence for a person."""


@dataclass(frozen=True)
class Member:
    """One process of the estate.

    `nouns` are the modules of `demo.nouns` that it serves; `prefix` is put before their paths ("/api" on the monolith).
    """

    name: str
    port: int
    nouns: tuple[str, ...]
    prefix: str = ""

    @property
    def side(self) -> str:
        """The value of the `x-side` header."""
        return "monolith" if self.name == "monolith" else "service"

    @property
    def served_by(self) -> str:
        """The value of the `x-served-by` header."""
        return "monolith" if self.name == "monolith" else f"{self.name}-service"

    @property
    def database(self) -> str:
        """The name of its database, without the prefix that all databases of an estate share."""
        return "main" if self.name == "monolith" else self.name


MONOLITH = Member(
    "monolith",
    3000,
    ("auth", "notifications", "rag", "samples", "sequencing", "storage", "templates"),
    prefix="/api",
)
SERVICES = (
    Member("auth", 3010, ("auth",)),
    Member("sample", 3011, ("samples",)),
    Member("sequencing", 3012, ("sequencing",)),
    Member("template", 3013, ("templates",)),
    Member("storage", 3014, ("storage",)),
    Member("dashboard", 3015, ("dashboard",)),
    Member("notification", 3016, ("notifications",)),
    Member("reports", 3017, ("reports",)),
    Member("spreadsheet", 3018, ("spreadsheets",)),
    Member("rag", 3019, ("rag",)),
)
MEMBERS = {member.name: member for member in (MONOLITH, *SERVICES)}
# These were never part of the monolith, so it says so instead of a bare 404.
ONLY_SERVICES = ("dashboard", "reports", "spreadsheets")


@dataclass(frozen=True)
class Settings:
    """The environment of one estate, read once."""

    port_offset: int
    state_folder: Path
    gateway_url: str
    database_url: str
    database_prefix: str
    jwt_secret: str
    backup_folder: Path

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read the environment. Raises SettingsError with a sentence naming the variable."""
        env = os.environ if environ is None else environ
        raw = env.get("PORT_OFFSET") or "0"
        try:
            offset = int(raw)
        except ValueError:
            raise SettingsError(f"PORT_OFFSET must be a whole number, not {raw!r}.") from None
        if not 0 <= offset <= 60_000:
            raise SettingsError(f"PORT_OFFSET must be between 0 and 60000, not {offset}.")
        default_state = REPOSITORY / (f".state-{offset}" if offset else ".state")
        state = Path(env.get("STATE_DIR") or default_state)
        return cls(
            port_offset=offset,
            state_folder=state / "demo",
            gateway_url=env.get("GATEWAY_URL") or f"http://{HOST}:{8089 + offset}",
            database_url=env.get("DEMO_DATABASE_URL") or f"postgresql://postgres@{HOST}:{5439 + offset}/postgres",
            database_prefix=env.get("DEMO_DATABASE_PREFIX") or "tracseq_",
            jwt_secret=env.get("DEMO_JWT_SECRET") or "tracseq-demo-signing-key-not-for-production",
            backup_folder=Path(env.get("BACKUP_DIR") or state / "backups"),
        )

    @classmethod
    def for_command(cls) -> "Settings":
        """As `read`, for what a person types: what is not set comes from the `make demo` that runs on this machine.

        DEMO_DATABASE_URL names an estate of one's own, and then nothing is taken from another. Raises SettingsError.
        """
        if os.environ.get("DEMO_DATABASE_URL"):
            return cls.read()
        # Not at the top: it brings Celery along, which the processes of the estate must not carry.
        from controlplane.environment import EnvironmentProblem, load_runtime

        environ = dict(os.environ)
        try:
            load_runtime(environ)
        except EnvironmentProblem as problem:
            raise SettingsError(str(problem)) from None
        return cls.read(environ)

    def port(self, member: Member) -> int:
        """The port that this member listens on in this estate."""
        return member.port + self.port_offset

    def database_name(self, member: Member) -> str:
        """The member's database on the server of this estate."""
        return self.database_prefix + member.database
