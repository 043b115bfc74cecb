"""`data_migrated` on real databases: the demo's own, and tables of every kind."""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import psycopg
import pytest
from django.utils import timezone

from demo.break_hash import spoil
from demo.estate import MEMBERS
from demo.migrate_users import COLUMNS, migrate
from migrations_app.choices import CheckState
from migrations_app.gates.checks.data_migrated import data_migrated
from migrations_app.gates.checks.probe import Scene
from migrations_app.gates.seen import Finding
from migrations_app.models import Plan
from tests.demo.conftest import wait_until
from tests.gates.checks.conftest import NewDatabase
from tests.servers import with_database

HELD, NOT_HELD, UNKNOWN = CheckState.HELD, CheckState.NOT_HELD, CheckState.UNKNOWN
USERS = {"name": "users", "columns": ["name", "data", "at", "note"]}
TABLE = """CREATE TABLE users (
    id bigint PRIMARY KEY, name text NOT NULL, data bytea, at timestamptz, note text
)"""
ROWS = """INSERT INTO users SELECT n, 'user ' || n, decode(md5(n::text), 'hex'),
    '2026-01-01 00:00+00'::timestamptz + n * interval '1 minute', CASE WHEN n % 3 > 0 THEN 'note' END
    FROM generate_series(1, 24) n"""


def check(*tables: dict[str, object], within: float = 30, **changed: object) -> Finding:
    parameters = {"from": "main", "to": "auth", "tables": list(tables) or [USERS]} | changed
    found = data_migrated(parameters, Scene(Plan(), 3, "", timezone.now(), within))
    assert bool(found.act) == (found.state != HELD)
    return found


def told(found: Finding) -> tuple[CheckState, str, str]:
    return found.state, found.value, found.limit


@pytest.fixture
def both(new_database: NewDatabase, settings) -> Iterator[SimpleNamespace]:
    """Two databases with the same 24 users: `old` and `new` run a statement there."""
    urls = {"main": new_database(), "auth": new_database()}
    settings.CHECK_DATABASES = urls
    with contextlib.ExitStack() as stack:
        old, new = (stack.enter_context(psycopg.connect(url, autocommit=True)) for url in urls.values())
        for connection in (old, new):
            connection.execute(TABLE)
            connection.execute(ROWS)
        yield SimpleNamespace(old=old.execute, new=new.execute, urls=urls)


# -- On the demo's databases ------------------------------------------------------------------------------------------


@pytest.fixture
def demo(seeded, unmigrated, settings):
    url = seeded.settings.database_url
    names = {"main": "monolith", "auth": "auth"}
    settings.CHECK_DATABASES = {
        name: with_database(url, seeded.settings.database_name(MEMBERS[member])) for name, member in names.items()
    }
    return seeded


def test_the_demos_users_before_and_after_their_migration(demo):
    users = {"name": "users", "columns": [column for column in COLUMNS if column != "id"]}
    found = check(users)
    assert told(found) == (NOT_HELD, "0 of 40 users are the same", "40 of 40")
    assert found.act == "Bring over from main to auth what is missing or different: 40 of users."
    migrate(demo.settings)
    assert told(check(users)) == (HELD, "40 of 40 users are the same", "40 of 40")
    assert spoil("bo.lind", demo.settings)
    assert told(check(users)) == (NOT_HELD, "39 of 40 users are the same", "40 of 40")
    assert check({"name": "users", "columns": ["email"]}).state == HELD
    migrate(demo.settings)
    assert check(users).state == HELD


# -- What is the same, and what is not --------------------------------------------------------------------------------


def test_equal_tables_hold(both):
    assert told(check()) == (HELD, "24 of 24 users are the same", "24 of 24")


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ("DELETE FROM users WHERE id = 5", 23),
        ("DELETE FROM users", 0),
        ("UPDATE users SET id = id + 100 WHERE id = 5", 23),
        ("UPDATE users SET name = name || ' '  WHERE id < 4", 21),
        ("UPDATE users SET name = upper(name)", 0),
        ("UPDATE users SET note = '' WHERE note IS NULL", 16),
        ("UPDATE users SET note = NULL WHERE id = 1", 23),
        ("UPDATE users SET data = data || '\\x00' WHERE id = 1", 23),
        ("UPDATE users SET at = at + interval '1 microsecond' WHERE id = 24", 23),
        ("UPDATE users a SET name = b.name FROM users b WHERE a.id IN (1, 2) AND b.id = 3 - a.id", 22),
        ("UPDATE users SET name = name || note, note = '' WHERE id = 1", 23),
    ],
)
def test_each_row_that_is_missing_or_different_is_counted(both, change, same):
    both.new(change)
    assert told(check()) == (NOT_HELD, f"{same} of 24 users are the same", "24 of 24")


def test_rows_that_only_the_new_side_has_are_fine(both):
    both.new("INSERT INTO users SELECT n, 'new', NULL, NULL, NULL FROM generate_series(25, 5000) n")
    assert told(check()) == (HELD, "24 of 24 users are the same", "24 of 24")
    both.new("UPDATE users SET note = 'other' WHERE id = 9")
    assert told(check()) == (NOT_HELD, "23 of 24 users are the same", "24 of 24")


def test_columns_that_are_not_named_do_not_matter(both):
    both.new("ALTER TABLE users ADD COLUMN more text DEFAULT 'x'")
    both.new("UPDATE users SET note = 'other'")
    assert check({"name": "users", "columns": ["name"]}).state == HELD
    assert check({"name": "users", "columns": ["note"]}).state == NOT_HELD


def test_neither_the_order_of_rows_and_columns_nor_settings_of_a_database_matter(both):
    both.new("DROP TABLE users")
    both.new("CREATE TABLE users (note text, at timestamptz, data bytea, name text NOT NULL, id bigint PRIMARY KEY)")
    both.new(ROWS.replace("INSERT INTO users", "INSERT INTO users (id, name, data, at, note)") + " ORDER BY n DESC")
    name = psycopg.conninfo.conninfo_to_dict(both.urls["auth"])["dbname"]
    for setting in ("TimeZone = 'Asia/Tokyo'", "DateStyle = 'German'", "bytea_output = 'escape'"):
        both.new(f"ALTER DATABASE {name} SET {setting}")
    assert check().state == HELD
    both.new(
        "ALTER TABLE users ALTER COLUMN at TYPE text USING to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS+00')"
    )
    assert check().state == HELD
    both.new("UPDATE users SET at = at || '0' WHERE id = 3")
    assert told(check())[1] == "23 of 24 users are the same"


def test_columns_of_other_and_of_own_types_are_compared_as_text(both):
    both.new("CREATE TYPE filler AS ENUM ('x')")  # so that the two have different numbers in the catalogues
    for one in (both.old, both.new):
        one("CREATE TYPE kind AS ENUM ('a', 'b')")
        one("ALTER TABLE users ADD COLUMN kind kind DEFAULT 'a', ADD COLUMN kinds kind[] DEFAULT '{a,b}'")
        one("ALTER TABLE users ADD COLUMN size integer DEFAULT 3, ADD COLUMN amount numeric(10,2) DEFAULT 1.50")
    both.new("ALTER TABLE users ALTER COLUMN size TYPE bigint, ALTER COLUMN name TYPE varchar(100)")
    users = {"name": "users", "columns": ["kind", "kinds", "size", "amount", "name"]}
    assert check(users).state == HELD
    both.new("UPDATE users SET kind = 'b' WHERE id = 1")
    both.new("UPDATE users SET size = 4 WHERE id = 2")
    both.new("UPDATE users SET kinds = '{b,a}' WHERE id = 3")
    assert told(check(users))[1] == "21 of 24 users are the same"


def test_a_table_may_have_another_name_and_key_there(both):
    both.new('ALTER TABLE users RENAME TO "Accounts"')
    users = USERS | {"renamed": "Accounts"}
    assert check(users).state == HELD
    assert check(users | {"key": "name", "columns": ["id"]}).state == HELD


def test_several_tables_are_told_apart(both):
    for one in (both.old, both.new):
        one("CREATE TABLE roles AS SELECT n AS id, 'role ' || n AS title FROM generate_series(1, 3) n")
        one("CREATE TABLE empty (id bigint PRIMARY KEY)")
    roles, empty = {"name": "roles", "columns": ["title"]}, {"name": "empty", "columns": ["id"]}
    value = "24 of 24 users, 3 of 3 roles, 0 of 0 empty are the same"
    assert told(check(USERS, roles, empty)) == (HELD, value, "24 of 24, 3 of 3, 0 of 0")
    both.new("DELETE FROM roles WHERE id = 1")
    found = check(USERS, roles)
    assert told(found) == (NOT_HELD, "24 of 24 users, 2 of 3 roles are the same", "24 of 24, 3 of 3")
    assert found.act.endswith("different: 1 of roles.")


def test_an_empty_old_table_proves_nothing(both):
    both.old("TRUNCATE users")
    assert told(check()) == (UNKNOWN, "main has no rows to compare", "0 of 0")


def test_doubled_rows_are_counted_as_often_as_they_are_there(both):
    for one in (both.old, both.new):
        one("ALTER TABLE users DROP CONSTRAINT users_pkey")
    both.old("INSERT INTO users SELECT * FROM users WHERE id = 1")
    assert told(check())[:2] == (NOT_HELD, "24 of 25 users are the same")


def test_a_key_that_names_two_rows_of_the_new_side_does_not_hold(both):
    both.new("ALTER TABLE users DROP CONSTRAINT users_pkey")
    assert check().state == HELD
    both.new("INSERT INTO users SELECT id, 'impostor' FROM users WHERE id = 1")
    value = "24 of 24 users are the same; users.id of auth names some rows more than once"
    assert told(check())[:2] == (NOT_HELD, value)


def test_many_rows_with_some_differences_are_counted_exactly(both):
    more = "INSERT INTO users SELECT n, 'user ' || n FROM generate_series(25, 100000) n"
    both.old(more)
    both.new(more)
    assert told(check())[:2] == (HELD, "100000 of 100000 users are the same")
    both.new("UPDATE users SET note = 'x' WHERE id % 1000 = 0")
    both.new("DELETE FROM users WHERE id BETWEEN 50001 AND 50010")
    assert told(check())[:2] == (NOT_HELD, "99890 of 100000 users are the same")
    both.new("UPDATE users SET name = 'x' WHERE id > 40000")
    assert told(check())[1] == "39960 of 100000 users are the same"


def test_tables_that_are_not_there_are_unknown(both):
    both.new("ALTER TABLE users DROP COLUMN note, DROP COLUMN at")
    assert told(check())[:2] == (UNKNOWN, "users of auth has no column at, note")
    both.new("DROP TABLE users")
    assert told(check())[:2] == (UNKNOWN, "auth has no table users")


def test_nothing_can_be_changed(both):
    both.new("CREATE TABLE looks (at timestamptz)")
    both.new("CREATE FUNCTION look() RETURNS text LANGUAGE sql AS $$ INSERT INTO looks VALUES (now()) RETURNING 'x' $$")
    both.new("CREATE VIEW watched AS SELECT id, look() AS name FROM users")
    found = check({"name": "users", "renamed": "watched", "columns": ["name"]})
    value = "the database auth cannot be read: cannot execute INSERT in a read-only transaction"
    assert told(found)[:2] == (UNKNOWN, value)


@pytest.mark.parametrize("change", ["SELECT 1", "DELETE FROM users WHERE id = 1", "DROP TABLE users"])
def test_no_connection_is_left_open(both, change):
    both.new(change)
    check()
    left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'switchyard check'"
    names = [psycopg.conninfo.conninfo_to_dict(url)["dbname"] for url in both.urls.values()]
    wait_until(lambda: both.new(f"{left} AND datname = ANY (%s)", [names]).fetchone() == (0,))


# -- What stands in the way -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        {"name": 'users"; DROP TABLE users; --'},
        {"name": "users; select 1"},
        {"name": "public.users"},
        {"columns": ["name) FROM users; DROP TABLE users; --"]},
        {"columns": ["*"]},
        {"columns": []},
        {"key": "id)--"},
        {"renamed": "a b"},
        {"name": "u" * 64},
    ],
)
def test_what_is_no_identifier_is_refused(both, bad):
    with pytest.raises(ValueError, match="tables"):
        check(USERS | bad)
    assert check().state == HELD


def test_words_of_sql_are_names_like_others(both):
    for one in (both.old, both.new):
        one('ALTER TABLE users RENAME COLUMN note TO "select"')
        one('ALTER TABLE users RENAME TO "order"')
    assert check({"name": "order", "columns": ["select"]}).state == HELD


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("", "CHECK_DATABASE_AUTH is not set"),
        ("nonsense with hunter2", "CHECK_DATABASE_AUTH is no address of a database"),
        ("postgres://me:hunter2%zz@127.0.0.1/x", "CHECK_DATABASE_AUTH is no address of a database"),
        ("postgres://me:hunter2@127.0.0.1:1/x", "the database auth lets nobody in: no connection"),
        ("postgres://me:hunter2@127.0.0.1:none/x", "the database auth lets nobody in: no connection"),
    ],
)
def test_an_address_that_leads_nowhere_is_unknown_and_not_shown(both, settings, caplog, address, reason):
    caplog.set_level(logging.DEBUG)
    settings.CHECK_DATABASES = both.urls | {"auth": address}
    found = check()
    assert told(found)[:2] == (UNKNOWN, reason)
    assert "hunter2" not in f"{found}{caplog.text}"


def test_a_wrong_password_and_a_missing_right_are_told_in_the_servers_words(both, settings, caplog):
    caplog.set_level(logging.DEBUG)
    role = f"checked_{secrets.token_hex(4)}"
    both.new(f"CREATE ROLE {role} LOGIN PASSWORD 'hunter2'")
    try:
        url = both.urls["auth"].replace("postgres://postgres@", f"postgres://{role}:hunter2@")
        settings.CHECK_DATABASES = both.urls | {"auth": url}
        found = check()
        assert told(found)[:2] == (UNKNOWN, "the database auth cannot be read: permission denied for table users")
        both.new(f"GRANT SELECT ON users TO {role}")
        assert check().state == HELD
        both.new("ALTER TABLE users ENABLE ROW LEVEL SECURITY")
        both.new(f"CREATE POLICY few ON users TO {role} USING (id < 3)")
        found = check()
        assert found.state == UNKNOWN
        assert "row-level security" in found.value
        settings.CHECK_DATABASES = both.urls | {"auth": url.replace(role, "nobody_of_this_name")}
        found = check()
        assert told(found)[:2] == (
            UNKNOWN,
            'the database auth lets nobody in: role "nobody_of_this_name" does not exist',
        )
        assert "hunter2" not in f"{found}{caplog.text}"
    finally:
        both.new(f"DROP OWNED BY {role}")
        both.new(f"DROP ROLE {role}")


def test_a_lock_is_waited_for_only_so_long(both):
    with psycopg.connect(both.urls["auth"]) as other:
        other.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        found = check(within=1)
    assert found.state == UNKNOWN
    assert check().state == HELD


def test_a_server_that_takes_connections_and_says_nothing_is_given_up(both, settings):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"postgres://me:hunter2@127.0.0.1:{silent.getsockname()[1]}/x"
        for name in ("main", "auth"):
            settings.CHECK_DATABASES = both.urls | {name: address}
            assert told(check(within=1))[:2] == (UNKNOWN, f"the database {name} does not answer within 0.9 s")


def test_a_server_that_hangs_in_the_middle_is_given_up(both, settings):
    with psycopg.connect(both.urls["auth"]) as locker, Relay(both.urls["auth"]) as relay:
        locker.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        settings.CHECK_DATABASES = both.urls | {"auth": relay.url}
        relay.mute_at(b"hashbyteaextended")
        found = check(within=1)
        assert told(found)[:2] == (UNKNOWN, "the tables could not be compared within 0.9 s")
        assert relay.muted.is_set()


class Relay:
    """Between a client and PostgreSQL. From a word that the client sends on, it lets nothing through any more."""

    def __init__(self, url: str) -> None:
        self._target = psycopg.conninfo.conninfo_to_dict(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self._word = b""
        self.muted = threading.Event()
        host = f"{self._target['host']}:{self._target['port']}"
        self.url = url.replace(host, f"127.0.0.1:{self._listener.getsockname()[1]}")

    def mute_at(self, word: bytes) -> None:
        self._word = word

    def __enter__(self) -> Relay:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection((str(self._target["host"]), int(str(self._target["port"]))))
                self._sockets += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while received := source.recv(65536):
                if self._word and self._word in received:
                    self.muted.set()
                if not self.muted.is_set():
                    sink.sendall(received)
