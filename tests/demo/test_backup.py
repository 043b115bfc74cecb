"""Backups of the estate's databases, by the real pg_dump."""

import os
import re
import stat
import subprocess
from pathlib import Path

import psycopg
import pytest

from controlplane.embedded.postgres import installed_binaries
from demo.backup import NAMES, BackupFailed, take
from demo.estate import MEMBERS, Settings
from tests.demo.conftest import Estate

LINE = re.compile(r"backup: (\S+), \d+ kB in \d+\.\d s")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_main_is_backed_up_unless_others_are_named(seeded: Estate, tmp_path) -> None:
    done = seeded.run("demo.backup", BACKUP_DIR=str(tmp_path / "new" / "folder"))
    assert (done.returncode, done.stderr) == (0, "")
    prefix = seeded.settings.database_prefix
    path = Path(LINE.fullmatch(done.stdout.strip())[1])
    assert re.fullmatch(rf"{prefix}main-\d{{8}}T\d{{6}}Z\.dump", path.name)
    assert files(tmp_path / "new" / "folder") == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    command = [installed_binaries() / "pg_restore", "--list", path]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert " TABLE DATA public users " in listed.stdout

    done = seeded.run("demo.backup", "auth", "storage", BACKUP_DIR=str(tmp_path))
    names = [Path(line[1]).name.split("-")[0] for line in LINE.finditer(done.stdout)]
    assert (done.returncode, names) == (0, [f"{prefix}auth", f"{prefix}storage"])


def test_a_backup_brings_back_what_was_there(seeded: Estate, tmp_path) -> None:
    settings = Settings.read(seeded.environ | {"BACKUP_DIR": str(tmp_path)})
    path = take(MEMBERS["storage"], settings)
    database = settings.database_name(MEMBERS["storage"])
    rows = "SELECT * FROM storage_locations ORDER BY id"
    before = seeded.query("storage", rows)
    with psycopg.connect(settings.database_url, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {database}_restored")
        try:
            target = psycopg.conninfo.make_conninfo(settings.database_url, dbname=f"{database}_restored")
            subprocess.run([installed_binaries() / "pg_restore", "--dbname", target, path], check=True)
            with psycopg.connect(target) as restored:
                assert restored.execute(rows).fetchall() == before
        finally:
            server.execute(f"DROP DATABASE {database}_restored WITH (FORCE)")


def test_the_password_is_not_on_the_command_line_and_nothing_half_is_left(
    seeded: Estate, tmp_path, monkeypatch
) -> None:
    seen = tmp_path / "pg_dump"
    seen.write_text(f"#!/bin/sh\necho \"$@ $PGPASSWORD\" > {tmp_path}/seen\necho 'pg_dump: error: no' >&2\nexit 1\n")
    seen.chmod(0o755)
    monkeypatch.setattr("controlplane.embedded.postgres.installed_binaries", lambda: tmp_path)
    backups = tmp_path / "backups"
    url = "postgres://me:hunter2@127.0.0.1:1/x"
    settings = Settings.read(seeded.environ | {"BACKUP_DIR": str(backups), "DEMO_DATABASE_URL": url})
    with pytest.raises(BackupFailed, match=r"_main: no$"):
        take(MEMBERS["monolith"], settings)
    words, _, password = (tmp_path / "seen").read_text().strip().rpartition(" ")
    assert password == "hunter2"
    assert "hunter2" not in words
    assert "dbname=" in words
    assert files(backups) == []


def test_a_server_that_does_not_answer_is_one_line(seeded: Estate, tmp_path) -> None:
    url = "postgresql://postgres@127.0.0.1:1/postgres"
    done = seeded.run("demo.backup", DEMO_DATABASE_URL=url, BACKUP_DIR=str(tmp_path))
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (1, "", 1)
    assert "refused" in done.stdout
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_one_line(seeded: Estate, tmp_path) -> None:
    (tmp_path / "file").touch()
    done = seeded.run("demo.backup", BACKUP_DIR=str(tmp_path / "file"))
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == f"backup: {tmp_path}/file cannot be written: File exists\n"


@pytest.mark.parametrize("words", [["nothing"], ["main", "monolith"], ["--help"]])
def test_a_name_that_is_none_is_refused(seeded: Estate, tmp_path, words: list[str]) -> None:
    done = seeded.run("demo.backup", *words, BACKUP_DIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (2, "")
    assert "usage:" in done.stdout
    assert os.listdir(tmp_path) == []


def test_every_database_has_a_name() -> None:
    assert set(NAMES) == {"main", *(name for name in MEMBERS if name != "monolith")}
