"""`backup_fresh`: the newest backup is a readable pg_dump archive, whole, and not too old.

Only files directly in BACKUP_DIR count, and links are none. The file is opened once, and everything is asked of that
open file, so nobody can put another in its place meanwhile. What `pg_restore --list` (PG_RESTORE) accepts is also
followed to its end (`archives`), because it accepts archives that lack their data.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from django.conf import settings

from migrations_app.choices import CheckState
from migrations_app.durations import in_words
from migrations_app.gates.parameters import BackupFresh
from migrations_app.gates.seen import Finding

from .archives import Broken, Unfamiliar, refuse_broken
from .printable import printable
from .probe import Scene

AHEAD = timedelta(minutes=5)  # how far the clock of another machine may be ahead of ours
_TABLE_DATA = re.compile(r"[0-9]+; [0-9]+ [0-9]+ TABLE DATA \S+ (\S+) \S+\n")
_TAKE = "Take a new backup with pg_dump -Fc into BACKUP_DIR, under another name until it is complete."


class _Told(Exception):
    """What is wrong with the backup, as the finding's state, value and act."""

    def __init__(self, value: str, act: str = _TAKE, *, state: CheckState = CheckState.NOT_HELD) -> None:
        super().__init__(value)
        self.state, self.value, self.act = state, value, act


@dataclass(frozen=True, slots=True)
class _Backup:
    """An open file: its name as it is shown, its descriptor, when it was last written, and its size in bytes."""

    name: str
    descriptor: int
    written: datetime
    size: int


def backup_fresh(parameters: Mapping[str, Any], scene: Scene) -> Finding:
    """`file: tracseq_main-*.dump`, `max_age: 24h`, and `tables: [names]` whose data must be in it."""
    asked = BackupFresh.of(parameters)
    deadline = time.monotonic() + scene.within * 0.9
    limit = f"readable, at most {in_words(asked.max_age)} old"
    try:
        with _newest(asked.file) as backup:
            age = _refuse_old(backup, scene.now, asked.max_age)
            _refuse_unreadable(backup, asked.tables, deadline)
    except _Told as told:
        return Finding(told.state, told.value, limit, told.act)
    return Finding(CheckState.HELD, f"{backup.name}, {in_words(age)} old, {_size(backup.size)}", limit)


@contextmanager
def _newest(pattern: str) -> Iterator[_Backup]:
    file = _name_of_newest(pattern)
    name = printable(file)
    try:
        # Not through a link, and without waiting for a pipe's other end, if the file is exchanged for one.
        descriptor = os.open(settings.BACKUP_DIR / file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        raise _Told(f"{name} cannot be read: {problem.strerror}", "Let Switchyard's account read it.") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _Told(f"{name} is no file")
        yield _Backup(name, descriptor, datetime.fromtimestamp(found.st_mtime, UTC), found.st_size)
    finally:
        os.close(descriptor)


def _name_of_newest(pattern: str) -> str:
    files: list[tuple[int, str]] = []
    others = False
    try:
        with os.scandir(settings.BACKUP_DIR) as entries:
            for entry in entries:
                if fnmatchcase(entry.name, pattern):
                    if entry.is_file(follow_symlinks=False):
                        files.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.name))
                    else:
                        others = True
    except OSError as problem:
        told = f"the folder of the backups cannot be read: {problem.strerror}"
        raise _Told(told, "Make the folder that BACKUP_DIR names.", state=CheckState.UNKNOWN) from None
    if not files:
        raise _Told(f"no file matches {pattern}" + (", only a link or a folder" if others else ""))
    return max(files)[1]


def _refuse_old(backup: _Backup, now: datetime, max_age: timedelta) -> timedelta:
    """Its age. Raises _Told."""
    age = now - backup.written
    if age < -AHEAD:
        act = "Set the clock of the machine that took it, and take it again."
        raise _Told(f"{backup.name} says that it was written {in_words(-age)} from now", act)
    if backup.size == 0:
        raise _Told(f"{backup.name} is empty")
    if age > max_age:
        raise _Told(f"{backup.name}, {in_words(age)} old, {_size(backup.size)}")
    return age


def _refuse_unreadable(backup: _Backup, tables: tuple[str, ...], deadline: float) -> None:
    held = _tables_in(backup, deadline)
    if not held:
        raise _Told(f"{backup.name} holds no table's data")
    if missing := [table for table in tables if table not in held]:
        raise _Told(f"{backup.name} does not hold the data of {', '.join(missing)}")
    try:
        refuse_broken(backup.descriptor, deadline)
    except Broken as problem:
        raise _Told(f"{backup.name} is not complete, or still being written: it {problem}") from None
    except Unfamiliar:
        told = f"{backup.name} has a format whose end cannot be found"
        raise _Told(told, "Take it with pg_dump -Fc of PostgreSQL 9.0 to 18.", state=CheckState.UNKNOWN) from None
    except TimeoutError:
        told = f"{backup.name} could not be followed to its end in time"
        act = "Nothing: the next check goes on from there."
        raise _Told(told, act, state=CheckState.UNKNOWN) from None
    except OSError as problem:
        raise _Told(f"{backup.name} cannot be read: {problem.strerror}") from None


def _tables_in(backup: _Backup, deadline: float) -> set[str]:
    """Names of the tables whose data the archive holds, by the word of pg_restore. Raises _Told."""
    os.lseek(backup.descriptor, 0, os.SEEK_SET)
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                [_pg_restore(), "--list"],
                stdin=backup.descriptor, stdout=subprocess.PIPE, stderr=errors, cwd="/",
                env={"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)},
                text=True, encoding="utf-8", errors="replace",
            )  # fmt: skip
        except OSError as problem:
            raise _no_pg_restore(str(problem.strerror)) from None
        killer = threading.Timer(max(0.0, deadline - time.monotonic()), process.kill)
        killer.start()
        held = set()
        with process:
            # In pieces: what a hostile file makes it say must not fill the memory.
            for line in iter(lambda: process.stdout.readline(1000) if process.stdout else "", ""):
                if match := _TABLE_DATA.fullmatch(line):
                    held.add(match[1])
        late = not killer.is_alive()
        killer.cancel()
        if late:
            told = f"pg_restore did not read {backup.name} in time"
            raise _Told(told, "Look at the disk of BACKUP_DIR.", state=CheckState.UNKNOWN)
        if process.returncode:
            errors.seek(0)
            raise _refused(backup.name, errors.read(2000).decode(errors="replace"))
    return held


def _refused(name: str, said: str) -> _Told:
    if re.search(r"unsupported version \(1\.[0-9]+\)", said):
        act = "Set PG_RESTORE to a pg_restore at least as new as the pg_dump that wrote it."
        return _Told(f"{name} is of a newer pg_dump than PG_RESTORE", act, state=CheckState.UNKNOWN)
    if "text format dump" in said:
        return _Told(f"{name} is plain SQL, which pg_restore cannot check", "Take it with pg_dump -Fc.")
    if "does not appear to be a valid" in said:
        return _Told(f"{name} is no archive of pg_dump")
    first = said.strip().partition("\n")[0].removeprefix("pg_restore: error: ")
    return _Told(f"{name} is not complete, or still being written: pg_restore says '{printable(first, 150)}'")


def _pg_restore() -> Path | str:
    """PG_RESTORE, else the one on PATH, else the one that comes with the embedded PostgreSQL. Raises _Told."""
    if settings.PG_RESTORE:
        return str(settings.PG_RESTORE)
    if found := shutil.which("pg_restore"):
        return found
    try:
        from controlplane.embedded.errors import StartFailed
        from controlplane.embedded.postgres import installed_binaries
    except ImportError:
        raise _no_pg_restore("it is not installed") from None
    try:
        return installed_binaries() / "pg_restore"
    except StartFailed:
        raise _no_pg_restore("it is not installed") from None


def _no_pg_restore(why: str) -> _Told:
    act = "Install PostgreSQL's client programs, or set PG_RESTORE to the path of pg_restore."
    return _Told(f"there is no pg_restore to read it: {why}", act, state=CheckState.UNKNOWN)


def _size(count: int) -> str:
    """`1.2 MB`, in powers of 1,000."""
    size, units = float(count), iter(("kB", "MB", "GB", "TB"))
    unit = "B"
    while size >= 999.5:
        following = next(units, None)
        if following is None:
            break
        size, unit = size / 1000, following
    return f"{size:.1f} {unit}" if unit != "B" and size < 9.95 else f"{size:.0f} {unit}"
