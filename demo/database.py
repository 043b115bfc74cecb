"""`python -m demo.database`: create the estate's databases, tables and rows. A second run changes nothing."""

import sys
import time

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from demo.estate import MEMBERS, Settings, SettingsError
from demo.schema import DATABASES, STARTS_EMPTY, TABLES
from demo.seed import ROWS

# Two runs at the same time take turns; the number is any that nothing else locks.
LOCK = 20_260_105


def create(settings: Settings) -> dict[str, int]:
    """Create what is missing. Returns the rows written for each database that was new. Raises psycopg.Error."""
    wanted = {settings.database_name(MEMBERS[name]): name for name in DATABASES}
    with psycopg.connect(settings.database_url, autocommit=True, connect_timeout=5) as server:
        server.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        present = {row[0] for row in server.execute("SELECT datname FROM pg_database")}
        for database in wanted:
            if database not in present:
                server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        written = {}
        for database, name in wanted.items():
            url = make_conninfo(settings.database_url, dbname=database, connect_timeout=5)
            with psycopg.connect(url) as connection:
                rows = _fill(connection, name)
            if rows is not None:
                written[database] = rows
    return written


def _fill(connection: psycopg.Connection, name: str) -> int | None:
    """Tables, rows and the mark that they are there, in one transaction. None when the mark is there already."""
    known = connection.execute("SELECT to_regclass('public.demo_seed')").fetchone()
    if known and known[0]:
        return None
    connection.execute("CREATE TABLE demo_seed (seeded_at timestamptz NOT NULL DEFAULT now())")
    written = 0
    for table in DATABASES[name]:
        # The text is a constant of demo.schema.
        connection.execute(f"CREATE TABLE {table} ({TABLES[table]})".encode())
        if (name, table) in STARTS_EMPTY:
            continue
        rows = list(ROWS[table]())
        fields = list(rows[0])
        insert = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, fields)),
            sql.SQL(", ").join(sql.Placeholder() * len(fields)),
        )
        with connection.cursor() as cursor:
            cursor.executemany(insert, [tuple(row.values()) for row in rows])
        written += len(rows)
    connection.execute("INSERT INTO demo_seed DEFAULT VALUES")
    return written


def main() -> int:
    """Exit status 0 when all is there, 1 when the server does not answer or refuses."""
    started = time.perf_counter()
    try:
        written = create(Settings.for_command())
    except SettingsError as error:
        print(f"demo database: {error}")
        return 1
    except psycopg.Error as error:
        print(f"demo database: {str(error).strip() or type(error).__name__}")
        return 1
    elapsed = time.perf_counter() - started
    rows = sum(written.values())
    print(f"demo database: {len(written)} databases made with {rows} rows, {len(DATABASES) - len(written)} were there")
    print(f"demo database: done in {elapsed:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
