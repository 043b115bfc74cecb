"""`python -m demo.backup [NAME ...]`: back up databases of the estate into BACKUP_DIR with the real pg_dump.

NAME is `main` (the default) or the name of a service. Each backup is one archive, `tracseq_main-20261122T101530Z.dump`,
that gets its name only when it is complete: who looks for the newest never meets one that is being written.
"""

import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from demo.estate import MEMBERS, Member, Settings, SettingsError

NAMES = {member.database: member for member in MEMBERS.values()}
USAGE = f"""usage: python -m demo.backup [NAME ...]
NAME is one of: {", ".join(NAMES)}"""


class BackupFailed(Exception):
    """Nothing was written; the text is one sentence that says why."""


def take(member: Member, settings: Settings) -> Path:
    """Back up one database. Returns the archive. Raises BackupFailed."""
    database = settings.database_name(member)
    folder = settings.backup_folder
    path = folder / f"{database}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.dump"
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # It holds password hashes, so nobody else may read it, not even while it is written.
        os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise BackupFailed(f"{folder} cannot be written: {error.strerror}") from None
    try:
        _dump(database, settings, unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _dump(database: str, settings: Settings, path: Path) -> None:
    address = conninfo_to_dict(settings.database_url)
    # By the environment: a command line can be read by everyone on the machine.
    password = {"PGPASSWORD": str(address.pop("password", ""))}
    target = make_conninfo("", **{**address, "dbname": database, "connect_timeout": 5})
    done = subprocess.run(
        [_pg_dump(), "--format=custom", f"--file={path}", f"--dbname={target}"],
        env=os.environ | password, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        first = done.stderr.strip().partition("\n")[0].removeprefix("pg_dump: error: ")
        raise BackupFailed(f"{database}: {first or 'pg_dump ended without a word'}")


def _pg_dump() -> Path | str:
    """That of the embedded PostgreSQL, which is as new as its server, else the one on PATH. Raises BackupFailed."""
    from controlplane.embedded.errors import StartFailed
    from controlplane.embedded.postgres import installed_binaries

    try:
        return installed_binaries() / "pg_dump"
    except StartFailed as problem:
        if found := shutil.which("pg_dump"):
            return found
        raise BackupFailed(f"there is no pg_dump: {problem}") from None


def main(arguments: list[str]) -> int:
    """Exit status 0 when every backup was taken, 1 at the first that was not, 2 for names that are none."""
    names = arguments or ["main"]
    if any(name not in NAMES for name in names):
        print(USAGE)
        return 2
    try:
        settings = Settings.for_command()
        for name in names:
            started = time.perf_counter()
            path = take(NAMES[name], settings)
            elapsed = time.perf_counter() - started
            print(f"backup: {path}, {path.stat().st_size / 1000:.0f} kB in {elapsed:.1f} s")
    except (SettingsError, BackupFailed) as error:
        print(f"backup: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
