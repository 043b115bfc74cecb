"""`python -m demo.migrate_users [--check]`: week 3's data migration, users of the monolith's database to auth's own.

It can be run again: rows that are there are brought up to date, rows that only auth has are left alone. `--check`
changes nothing and says whether every user of the monolith is in auth's database, the same in every column.
"""

import sys

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from demo.estate import MEMBERS, Settings, SettingsError

COLUMNS = ("id", "username", "email", "full_name", "role", "password_hash", "active", "created_at")
Users = dict[object, tuple[object, ...]]


def migrate(settings: Settings) -> tuple[int, int]:
    """Copy the users in one transaction. Returns how many there are and how many had to be written."""
    with _connect(settings, "monolith") as old, _connect(settings, "auth") as new:
        users, there = _users(old), _users(new)
        missing = [row for key, row in users.items() if there.get(key) != row]
        names = [sql.Identifier(column) for column in COLUMNS]
        with new.cursor() as cursor:
            cursor.executemany(
                sql.SQL("INSERT INTO users ({}) VALUES ({}) ON CONFLICT (id) DO UPDATE SET {}").format(
                    sql.SQL(", ").join(names),
                    sql.SQL(", ").join(sql.Placeholder() * len(names)),
                    sql.SQL(", ").join(sql.SQL("{0} = EXCLUDED.{0}").format(name) for name in names[1:]),
                ),
                missing,
            )
        # Ids that the copy brought along must not be given out again.
        new.execute("SELECT setval(pg_get_serial_sequence('users', 'id'), (SELECT max(id) FROM users))")
    return len(users), len(missing)


def difference(settings: Settings) -> tuple[int, int]:
    """How many users the monolith has, and how many of them auth's database lacks or has otherwise."""
    with _connect(settings, "monolith") as old, _connect(settings, "auth") as new:
        users, there = _users(old), _users(new)
    return len(users), sum(there.get(key) != row for key, row in users.items())


def main(arguments: list[str]) -> int:
    """Exit status 0 when every user is in auth's database, 1 when not, 2 for words that are not a command."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m demo.migrate_users [--check]")
        return 2
    try:
        settings = Settings.for_command()
        if not arguments:
            total, written = migrate(settings)
            print(f"migrate_users: {total} users, {written} written, {total - written} were there")
        total, missing = difference(settings)
    except SettingsError as error:
        print(f"migrate_users: {error}")
        return 1
    except psycopg.Error as error:
        print(f"migrate_users: {str(error).strip() or type(error).__name__}")
        return 1
    print(f"migrate_users: {total - missing} of {total} users are the same on both sides")
    return 1 if missing else 0


def _connect(settings: Settings, name: str) -> psycopg.Connection:
    database = settings.database_name(MEMBERS[name])
    return psycopg.connect(make_conninfo(settings.database_url, dbname=database, connect_timeout=5))


def _users(connection: psycopg.Connection) -> Users:
    query = sql.SQL("SELECT {} FROM users ORDER BY id").format(sql.SQL(", ").join(map(sql.Identifier, COLUMNS)))
    return {row[0]: row for row in connection.execute(query)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
