"""The estate's data, and the migration of week 3."""

import pytest

from demo.estate import MEMBERS
from demo.schema import DATABASES, STARTS_EMPTY
from demo.seed import ROWS, usernames
from tests.demo.conftest import Estate, drop_databases, new_environ


def dump(estate: Estate) -> dict[tuple[str, str], list[tuple]]:
    """Every row of every table."""
    tables = [(name, table) for name, tables in DATABASES.items() for table in tables]
    return {(name, table): estate.query(name, f"SELECT * FROM {table} ORDER BY id") for name, table in tables}


def test_a_second_run_changes_nothing(seeded: Estate) -> None:
    seeded.query("sample", "DELETE FROM samples WHERE id = 5")
    seeded.query("template", "UPDATE templates SET version = 99 WHERE id = 2")
    before = dump(seeded)
    done = seeded.run("demo.database")
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 databases made with 0 rows, 11 were there" in done.stdout
    assert dump(seeded) == before
    seeded.query("template", "UPDATE templates SET version = 2 WHERE id = 2")
    row = "SELECT barcode, name, kind, status, concentration_ng_ul, storage_location_id, submitted_by, created_at"
    values = seeded.query("monolith", f"{row} FROM samples WHERE id = 5")[0]
    literals = ", ".join("NULL" if value is None else f"'{value}'" for value in values)
    seeded.query("sample", f"INSERT INTO samples OVERRIDING SYSTEM VALUE VALUES (5, {literals})")


def test_two_first_runs_at_the_same_time_make_the_same_as_one(postgres_url: str, seeded: Estate, tmp_path) -> None:
    environ = new_environ(postgres_url, tmp_path)
    twin = Estate(environ, seeded.client)
    try:
        runs = [twin.start("demo.database") for _ in range(2)]
        made = sorted(run.communicate(timeout=20)[0].splitlines()[0].split()[2] for run in runs)
        assert ([run.returncode for run in runs], made) == ([0, 0], ["0", "11"])
        counts = {key: len(rows) for key, rows in dump(twin).items()}
    finally:
        drop_databases(environ)
    expected = {key: len(list(ROWS[key[1]]())) for key in counts if key not in STARTS_EMPTY}
    assert counts == expected | dict.fromkeys(STARTS_EMPTY, 0)


def test_the_rows_are_the_same_on_every_machine() -> None:
    for rows in ROWS.values():
        assert list(rows()) == list(rows())
    assert len(set(usernames())) == 40


def test_a_server_that_does_not_answer_is_one_line(seeded: Estate) -> None:
    done = seeded.run("demo.database", DEMO_DATABASE_URL="postgresql://postgres@127.0.0.1:1/postgres")
    assert done.returncode == 1
    assert "refused" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_auth_knows_nobody_until_users_are_migrated(estate: Estate, unmigrated) -> None:
    assert estate.get("auth", "/auth").json()["users"] == 0
    assert estate.get("auth", "/health").status_code == 200
    assert estate.login("auth", "/auth/login").status_code == 401
    token = estate.login("monolith", "/api/auth/login").json()["token"]
    headers = {"authorization": f"Bearer {token}"}
    assert estate.get("auth", "/auth/verify", headers=headers).status_code == 200
    assert "has no user ana.silva" in estate.get("auth", "/auth/me", headers=headers).json()["detail"]

    check = estate.run("demo.migrate_users", "--check")
    assert (check.returncode, check.stdout) == (1, "migrate_users: 0 of 40 users are the same on both sides\n")
    done = estate.run("demo.migrate_users")
    assert (done.returncode, done.stderr) == (0, "")
    assert "40 users, 40 written, 0 were there" in done.stdout

    old, new = estate.login("monolith", "/api/auth/login"), estate.login("auth", "/auth/login")
    assert new.status_code == 200
    assert new.json()["user"] == old.json()["user"]
    everyone = "SELECT * FROM users ORDER BY id"
    assert estate.query("auth", everyone) == estate.query("monolith", everyone)


def test_migrating_again_brings_up_to_date_and_keeps_the_rest(estate: Estate, migrated) -> None:
    estate.query("auth", "UPDATE users SET role = 'none' WHERE id = 3")
    estate.query("auth", "DELETE FROM users WHERE id = 4")
    # The id that auth gives must not be one of those that came along.
    estate.query(
        "auth",
        "INSERT INTO users (username, email, full_name, role, password_hash)"
        " VALUES ('new', 'n@x', 'New', 'viewer', '')",
    )
    assert estate.run("demo.migrate_users", "--check").returncode == 1
    assert "40 users, 2 written, 38 were there" in estate.run("demo.migrate_users").stdout
    assert estate.run("demo.migrate_users", "--check").returncode == 0
    assert estate.query("auth", "SELECT id FROM users WHERE username = 'new'") == [(41,)]


@pytest.mark.parametrize("name", MEMBERS)
def test_each_process_has_a_database_of_its_own(seeded: Estate, name: str) -> None:
    database = seeded.settings.database_name(MEMBERS[name])
    assert seeded.query(name, "SELECT current_database()") == [(database,)]
    assert database.endswith("_main" if name == "monolith" else f"_{name}")
