"""`backup_fresh` on archives that the real pg_dump wrote."""

from __future__ import annotations

import importlib
import itertools
import os
import subprocess
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from django.utils import timezone

from controlplane.embedded.postgres import installed_binaries
from demo.backup import take
from demo.estate import MEMBERS, Settings
from migrations_app.choices import CheckState
from migrations_app.gates.checks import archives
from migrations_app.gates.checks.backup_fresh import backup_fresh
from migrations_app.gates.checks.probe import Scene
from migrations_app.gates.seen import Finding
from migrations_app.models import Plan
from tests.gates.checks.conftest import NewDatabase

HELD, NOT_HELD, UNKNOWN = CheckState.HELD, CheckState.NOT_HELD, CheckState.UNKNOWN
NAME = "tracseq_main-20261122.dump"
PARAMETERS = {"file": "tracseq_main-*.dump", "max_age": "24h", "tables": ["users"]}
LIMIT = "readable, at most 24 h old"


@pytest.fixture
def folder(tmp_path: Path, settings) -> Path:
    settings.BACKUP_DIR = tmp_path
    settings.PG_RESTORE = str(installed_binaries() / "pg_restore")
    return tmp_path


@pytest.fixture
def database(new_database: NewDatabase) -> str:
    """Two tables, the second of which is dumped last, and a large object."""
    url = new_database()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE users (id bigint PRIMARY KEY, name text)")
        connection.execute("INSERT INTO users SELECT n, md5(n::text) FROM generate_series(1, 20000) n")
        connection.execute("CREATE TABLE visits (id bigint PRIMARY KEY, users_id bigint REFERENCES users)")
        connection.execute("INSERT INTO visits SELECT n, n FROM generate_series(1, 20000) n")
        connection.execute("CREATE TABLE empty (id bigint)")
        connection.execute("SELECT lo_from_bytea(0, decode(repeat('00ff', 40000), 'hex'))")
    return url


def dump(url: str, *options: str) -> bytes:
    """What pg_dump writes into a pipe: the places of its blocks are not in it."""
    done = subprocess.run([installed_binaries() / "pg_dump", *options, url], capture_output=True, check=True)
    return done.stdout


def dump_into(url: str, path: Path, *options: str) -> Path:
    subprocess.run([installed_binaries() / "pg_dump", *options, "--file", path, url], check=True)
    return path


def check(*, within: float = 20, later: timedelta = timedelta(0), **changed: object) -> Finding:
    return backup_fresh(PARAMETERS | changed, Scene(Plan(), 3, "", timezone.now() + later, within))


def told(found: Finding) -> tuple[CheckState, str]:
    assert found.limit == LIMIT
    assert bool(found.act) == (found.state != HELD)
    return found.state, found.value


@pytest.fixture
def opened() -> Callable[[], set[str]]:
    """The files that this process has open now and had not before."""

    def now() -> set[str]:
        return {f"{one} {os.readlink(one)}" for one in Path("/proc/self/fd").iterdir() if one.is_symlink()}

    before = now()
    return lambda: now() - before


@pytest.mark.parametrize("options", [("-Fc",), ("-Ft",), ("-Fc", "-Z0"), ("-Fc", "--no-blobs")], ids=" ".join)
def test_a_whole_archive_holds(folder, database, options):
    archive = dump_into(database, folder / NAME, *options)
    size = archive.stat().st_size
    shown = f"{size / 1000:.0f} kB" if size < 999_500 else f"{size / 1e6:.1f} MB"
    assert told(check(later=timedelta(hours=3, seconds=5))) == (HELD, f"{NAME}, 3 h old, {shown}")


@pytest.mark.parametrize("options", [("-Fc",), ("-Ft",)], ids=" ".join)
def test_a_whole_archive_out_of_a_pipe_holds(folder, database, options):
    (folder / NAME).write_bytes(dump(database, *options))
    assert told(check())[0] == HELD


@pytest.mark.parametrize("kind", ["file", "pipe", "tar"])
def test_an_archive_that_lacks_its_end_does_not_hold_wherever_it_is_cut(folder, database, kind):
    if kind == "file":
        whole = dump_into(database, folder / NAME, "-Fc").read_bytes()
    else:
        whole = dump(database, "-Ft" if kind == "tar" else "-Fc")
    cuts = [len(whole) - 1, len(whole) - 600, *(len(whole) * part // 10 for part in range(9, 0, -1)), 400, 11, 5, 3, 1]
    for cut in cuts:
        (folder / NAME).write_bytes(whole[:cut])
        state, value = told(check())
        assert state == NOT_HELD, (cut, value)
        assert value.startswith(f"{NAME} "), value
    assert {cut for cut in cuts if listed(whole[:cut])}, "pg_restore --list alone would do"


def listed(archive: bytes) -> bool:
    """Whether `pg_restore --list` accepts it."""
    command = [installed_binaries() / "pg_restore", "--list"]
    return subprocess.run(command, input=archive, capture_output=True, check=False).returncode == 0


def test_an_archive_cut_between_two_blocks_lacks_data(folder, database):
    whole = dump(database, "-Fc")
    (folder / NAME).write_bytes(whole)
    assert check().state == HELD
    # An empty chunk ends a block; the next one begins with its kind.
    ends = [at for at in range(20, len(whole)) if whole[at - 5 : at] == bytes(5) and whole[at] in (1, 3)]
    (folder / NAME).write_bytes(whole[: ends[-1]])
    assert listed(whole[: ends[-1]])
    assert told(check()) == (
        NOT_HELD,
        f"{NAME} is not complete, or still being written: it lacks the data of some tables",
    )


def test_a_file_that_is_being_written_does_not_hold_until_it_is_complete(folder, database):
    with psycopg.connect(database) as blocker:
        blocker.execute("LOCK TABLE visits IN ACCESS EXCLUSIVE MODE")
        writer = subprocess.Popen(
            [installed_binaries() / "pg_dump", "-Fc", "--file", folder / NAME, database], stderr=subprocess.DEVNULL
        )
        try:
            while not (folder / NAME).exists():
                assert writer.poll() is None
                time.sleep(0.01)
            state, value = told(check())
            assert (state, value) == (NOT_HELD, f"{NAME} is empty")
            blocker.rollback()
            assert writer.wait(20) == 0
        finally:
            writer.kill()
            writer.wait()
    assert check().state == HELD


def test_a_backup_of_the_demo_holds(folder, seeded, settings):
    estate = Settings.read(seeded.environ | {"BACKUP_DIR": str(folder)})
    pattern = f"{estate.database_prefix}main-*.dump"
    assert told(check(file=pattern)) == (NOT_HELD, f"no file matches {pattern}")
    path = take(MEMBERS["monolith"], estate)
    found = check(file=pattern)
    assert found.state == HELD
    assert found.value.startswith(f"{path.name}, ")


def test_plain_sql_does_not_hold(folder, database):
    dump_into(database, folder / NAME)
    assert told(check()) == (NOT_HELD, f"{NAME} is plain SQL, which pg_restore cannot check")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"not a dump, " * 100, "is no archive of pg_dump"),
        (b"PGDMP" + bytes(100), "is not complete, or still being written: pg_restore says "),
        (b"PGDMP\x01\x10\x00\x04\x08\x01" + b"\xff" * 99, "is not complete, or still being written: pg_restore says "),
    ],
)
def test_what_is_no_archive_does_not_hold(folder, content, reason):
    (folder / NAME).write_bytes(content)
    state, value = told(check())
    assert state == NOT_HELD
    assert value.startswith(f"{NAME} {reason}")


def test_no_file_does_not_hold(folder):
    assert told(check()) == (NOT_HELD, "no file matches tracseq_main-*.dump")


def test_no_folder_is_unknown(folder, settings):
    settings.BACKUP_DIR = folder / "none"
    assert told(check()) == (UNKNOWN, "the folder of the backups cannot be read: No such file or directory")


def test_an_old_one_does_not_hold(folder, database):
    dump_into(database, folder / NAME, "-Fc")
    state, value = told(check(later=timedelta(hours=25, seconds=5)))
    assert state == NOT_HELD
    assert value.startswith(f"{NAME}, 25 h old, ")


def test_one_from_the_future_does_not_hold(folder, database):
    dump_into(database, folder / NAME, "-Fc")
    state, value = told(check(later=-timedelta(hours=2)))
    assert state == NOT_HELD
    assert "says that it was written 2 h from now" in value
    assert check(later=-timedelta(minutes=1)).state == HELD


def test_the_newest_counts(folder, database):
    good = dump_into(database, folder / NAME, "-Fc")
    newer = folder / "tracseq_main-20261123.dump"
    newer.write_bytes(b"")
    os.utime(newer, ns=(good.stat().st_mtime_ns + 10**9,) * 2)
    assert told(check()) == (NOT_HELD, f"{newer.name} is empty")
    os.utime(newer, ns=(good.stat().st_mtime_ns - 10**9,) * 2)
    assert check().state == HELD
    (folder / "tracseq_main-20261124.dump.part").write_bytes(b"")
    assert check().state == HELD


def test_a_table_whose_data_is_not_in_it_is_named(folder, database):
    dump_into(database, folder / NAME, "-Fc", "--exclude-table-data=users")
    assert told(check()) == (NOT_HELD, f"{NAME} does not hold the data of users")
    assert check(tables=["visits", "empty"]).state == HELD
    assert check(tables=[]).state == HELD
    found = check(tables=["visits", "USERS", "none"])
    assert found.value == f"{NAME} does not hold the data of USERS, none"


def test_a_schema_alone_is_no_backup(folder, database):
    dump_into(database, folder / NAME, "-Fc", "--schema-only")
    assert told(check(tables=[])) == (NOT_HELD, f"{NAME} holds no table's data")


def test_only_files_of_the_folder_itself_count(folder, database, tmp_path_factory):
    outside = dump_into(database, tmp_path_factory.mktemp("outside") / NAME, "-Fc")
    (folder / NAME).symlink_to(outside)
    assert told(check()) == (NOT_HELD, "no file matches tracseq_main-*.dump, only a link or a folder")
    (folder / NAME).unlink()
    (folder / NAME).mkdir()
    outside.rename(folder / NAME / NAME)
    assert told(check()) == (NOT_HELD, "no file matches tracseq_main-*.dump, only a link or a folder")
    os.mkfifo(folder / "tracseq_main-pipe.dump")
    assert check().state == NOT_HELD


@pytest.mark.parametrize("pattern", ["../*.dump", "/etc/passwd", ".*", "a/b", "--help", "a b", "[a]*", "a\n", ""])
def test_a_pattern_that_leaves_the_folder_is_refused(folder, pattern):
    with pytest.raises(ValueError, match="file"):
        check(file=pattern)


def test_a_link_that_takes_the_place_of_the_file_is_not_followed(folder, database, monkeypatch):
    outside = dump_into(database, folder / "outside", "-Fc")
    (folder / NAME).symlink_to(outside)
    # By its name: in the package it is the function of the same name.
    module = importlib.import_module("migrations_app.gates.checks.backup_fresh")
    monkeypatch.setattr(module, "_name_of_newest", lambda pattern: NAME)
    state, value = told(check())
    assert (state, value) == (NOT_HELD, f"{NAME} cannot be read: Too many levels of symbolic links")


def test_an_older_pg_restore_cannot_tell(folder, database, settings, tmp_path):
    dump_into(database, folder / NAME, "-Fc")
    older = tmp_path / "older"
    older.write_text("#!/bin/sh\necho 'pg_restore: error: unsupported version (1.16) in file header' >&2\nexit 1\n")
    older.chmod(0o755)
    settings.PG_RESTORE = str(older)
    found = check()
    assert told(found) == (UNKNOWN, f"{NAME} is of a newer pg_dump than PG_RESTORE")
    assert "PG_RESTORE" in found.act


def test_no_pg_restore_is_unknown(folder, database, settings):
    dump_into(database, folder / NAME, "-Fc")
    settings.PG_RESTORE = str(folder / "none")
    state, value = told(check())
    assert (state, value) == (UNKNOWN, "there is no pg_restore to read it: No such file or directory")


def test_without_a_setting_the_one_on_the_path_is_taken_else_the_embedded_one(folder, database, settings, monkeypatch):
    dump_into(database, folder / NAME, "-Fc")
    settings.PG_RESTORE = ""
    monkeypatch.setenv("PATH", str(folder))
    assert check().state == HELD
    own = folder / "pg_restore"
    own.write_text("#!/bin/sh\necho '1; 0 1 TABLE DATA public users me'\n")
    own.chmod(0o755)
    assert check().state == HELD
    own.write_text("#!/bin/sh\necho '1; 0 1 TABLE DATA public others me'\n")
    assert check().state == NOT_HELD


def test_a_pg_restore_that_hangs_is_given_up_and_ended(folder, database, settings, opened):
    dump_into(database, folder / NAME, "-Fc")
    hangs = folder / "hangs"
    hangs.write_text(f"#!/bin/sh\necho $$ > {folder}/pid\nexec tail -f /dev/null\n")
    hangs.chmod(0o755)
    settings.PG_RESTORE = str(hangs)
    found = check(within=0.6)
    assert told(found) == (UNKNOWN, f"pg_restore did not read {NAME} in time")
    assert not Path(f"/proc/{(folder / 'pid').read_text().strip()}").exists()
    assert opened() == set()


def test_a_pg_restore_that_talks_without_end_is_given_up(folder, database, settings):
    dump_into(database, folder / NAME, "-Fc")
    talks = folder / "talks"
    talks.write_text("#!/bin/sh\nexec yes\n")
    talks.chmod(0o755)
    settings.PG_RESTORE = str(talks)
    assert told(check(within=0.6)) == (UNKNOWN, f"pg_restore did not read {NAME} in time")


def test_a_walk_that_ran_out_of_time_goes_on_where_it_was(folder, database, monkeypatch):
    (folder / NAME).write_bytes(dump(database, "-Fc"))
    monkeypatch.setattr(archives, "_CHUNKS", 1)  # a look at the clock before each chunk
    looks = itertools.count()
    # Every third look is past the deadline.
    monkeypatch.setattr(archives.time, "monotonic", lambda: 0.0 if next(looks) % 3 else 2.0)
    interrupted = 0
    with (folder / NAME).open("rb") as file:
        while not whole(file.fileno()):
            interrupted += 1
            assert interrupted < 1000, "it begins anew each time"
    assert interrupted > 3


def whole(descriptor: int) -> bool:
    """Whether the archive was followed to its end before the deadline."""
    try:
        archives.refuse_broken(descriptor, 1.0)
    except TimeoutError:
        return False
    return True


def test_a_format_of_the_future_is_unknown(folder, database, settings):
    whole = bytearray(dump(database, "-Fc"))
    whole[6] = 99
    (folder / NAME).write_bytes(whole)
    newer = folder / "newer"
    newer.write_text("#!/bin/sh\necho '1; 0 1 TABLE DATA public users me'\n")
    newer.chmod(0o755)
    settings.PG_RESTORE = str(newer)
    assert told(check()) == (UNKNOWN, f"{NAME} has a format whose end cannot be found")
