"""`data_migrated`: every row of the old database is in the new one, equal in the named columns.

The rows stay where they are. Each database computes a 64-bit checksum of every row: of the key and the named columns in
PostgreSQL's binary form, so that null, '' and a comma are told apart and no setting of a session matters. By it, it
spreads the rows over 4,096 buckets, and tells the count and the sum of each. Where both sides agree, the bucket's rows
are the same. Of the buckets that disagree, and only of those, the checksums are fetched and compared, 8 bytes a row.
Rows that only the new database has are fine, and cost no more than their bucket.

Cost: one read of each table, both databases at once; a second read when there is a difference. A million rows of eight
columns take each database about 1 s of processor time for a read (measured with PostgreSQL 18). What takes longer than
`within` is unknown: a large table needs a higher CHECK_WITHIN, or a check for each part of it, as a view. The chance
that a changed row goes unnoticed is one in 10^13 with a million rows.

A column that has another type on the other side, or one that is not built in, is compared in its text form.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from django.conf import settings
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from migrations_app.choices import CheckState
from migrations_app.gates.parameters import DataMigrated, MigratedTable
from migrations_app.gates.seen import Finding

from .printable import printable
from .probe import Scene

_FIRST_OWN_OID = 16384  # types below are built in, and the same in every database
_Sums = dict[int, tuple[int, int]]  # bucket -> number of rows, sum of their checksums
_Cursor = psycopg.AsyncCursor[tuple[Any, ...]]


class _Unknown(Exception):
    """Why nothing can be told, as the finding's value and act. Holds no address and no password."""

    def __init__(self, value: str, act: str) -> None:
        super().__init__(value)
        self.value, self.act = value, act


@dataclass(frozen=True, slots=True)
class _Count:
    """Of a table: rows of the old side, and how many of them the new side has. `surplus` rows there share a key."""

    table: MigratedTable
    rows: int
    same: int
    surplus: int


@dataclass(slots=True)
class _Database:
    """One of the two, by the name that the plan calls it."""

    name: str
    connection: psycopg.AsyncConnection[tuple[Any, ...]] | None = None

    async def open(self, seconds: float) -> None:
        """Begin a transaction that reads one state and changes nothing. Raises _Unknown."""
        setting = f"CHECK_DATABASE_{self.name.upper()}"
        address = settings.CHECK_DATABASES.get(self.name)
        if not address:
            act = f"Set {setting} in the environment of web and workers, and start them again."
            raise _Unknown(f"{setting} is not set", act)
        try:
            conninfo_to_dict(address)
        except psycopg.Error:
            raise _Unknown(f"{setting} is no address of a database", f"Correct {setting}.") from None
        try:
            self.connection = await psycopg.AsyncConnection.connect(
                address, autocommit=True, connect_timeout=math.ceil(seconds), client_encoding="utf8",
                application_name="switchyard check",
            )  # fmt: skip
        except psycopg.Error as problem:
            told = f"the database {self.name} lets nobody in: {_in_words(problem)}"
            raise _Unknown(told, f"Look at the database, and at {setting}.") from None
        await self.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        # For this transaction alone. Those of dates and the like are for columns in text form. With row_security off, a
        # policy that hides rows from us is an error; else rows that were not seen would seem to be migrated.
        limits = f"{max(1, round(seconds * 1000))}ms"
        await self.run(
            "SELECT set_config(name, value, true) FROM (VALUES ('statement_timeout', %s), ('lock_timeout', %s),"
            " ('idle_in_transaction_session_timeout', %s), ('TimeZone', 'UTC'), ('DateStyle', 'ISO'),"
            " ('IntervalStyle', 'postgres'), ('bytea_output', 'hex'), ('extra_float_digits', '1'),"
            " ('row_security', 'off')) s (name, value)",
            [limits, limits, limits],
        )

    async def run(self, query: str | sql.Composed, values: list[Any] | None = None) -> list[tuple[Any, ...]]:
        """Raises _Unknown."""
        assert self.connection is not None  # noqa: S101
        statement = query.encode() if isinstance(query, str) else query
        try:
            cursor: _Cursor = self.connection.cursor(binary=True)
            await cursor.execute(statement, values)
            return await cursor.fetchall() if cursor.description else []
        except psycopg.Error as problem:
            told = f"the database {self.name} cannot be read: {_in_words(problem)}"
            raise _Unknown(told, "Look at its log, and at what its role may read.") from None

    def cut(self) -> None:
        """End the connection under whoever waits on it: a server that hangs answers no cancelling either."""
        if self.connection is None or self.connection.closed:
            return
        try:
            with socket.socket(fileno=os.dup(self.connection.pgconn.socket)) as end:
                end.shutdown(socket.SHUT_RDWR)
        except (OSError, psycopg.Error):
            return


def data_migrated(parameters: Mapping[str, Any], scene: Scene) -> Finding:
    """`from` and `to` name databases, `tables` what is compared: `{name, renamed, key, columns}`."""
    asked = DataMigrated.of(parameters)
    try:
        counts = asyncio.run(_bounded(asked, scene.within * 0.9))
    except _Unknown as unknown:
        return Finding(CheckState.UNKNOWN, unknown.value, "every row the same", unknown.act)
    return _judge(asked, counts)


def _judge(asked: DataMigrated, counts: list[_Count]) -> Finding:
    told = ", ".join(f"{count.same} of {count.rows} {count.table.name}" for count in counts)
    limit = ", ".join(f"{count.rows} of {count.rows}" for count in counts)
    value = f"{told} are the same"
    if not any(count.rows for count in counts):
        act = f"Look whether CHECK_DATABASE_{asked.old.upper()} is the old database."
        return Finding(CheckState.UNKNOWN, f"{asked.old} has no rows to compare", limit, act)
    if unclear := [count for count in counts if count.surplus]:
        names = ", ".join(f"{count.table.renamed or count.table.name}.{count.table.key}" for count in unclear)
        value += f"; {names} of {asked.new} names some rows more than once"
        return Finding(CheckState.NOT_HELD, value, limit, f"Remove the doubled rows from {asked.new}.")
    if lacking := [f"{count.rows - count.same} of {count.table.name}" for count in counts if count.same < count.rows]:
        act = f"Bring over from {asked.old} to {asked.new} what is missing or different: {', '.join(lacking)}."
        return Finding(CheckState.NOT_HELD, value, limit, act)
    return Finding(CheckState.HELD, value, limit)


async def _bounded(asked: DataMigrated, seconds: float) -> list[_Count]:
    """Raises _Unknown, also when the time is over."""
    databases = _Database(asked.old), _Database(asked.new)
    work = asyncio.ensure_future(_compare(asked, *databases, seconds))
    try:
        await asyncio.wait({work}, timeout=seconds)
        if not work.done():
            waits = [database.name for database in databases if database.connection is None]
            told = f"the database {waits[0]} does not answer" if waits else "the tables could not be compared"
            raise _Unknown(f"{told} within {seconds:.1f} s", "Look at the databases, or set CHECK_WITHIN higher.")
        return work.result()
    finally:
        await _end(databases)


async def _end(databases: tuple[_Database, ...]) -> None:
    """Close both, whatever still waits on them."""
    for database in databases:
        database.cut()
    if left := asyncio.all_tasks() - {asyncio.current_task()}:
        done, _ = await asyncio.wait(left, timeout=0.2)
        for task in done:
            if not task.cancelled():
                task.exception()  # that they were cut off is no news
    for database in databases:
        if database.connection is not None:
            await database.connection.close()


async def _compare(asked: DataMigrated, old: _Database, new: _Database, seconds: float) -> list[_Count]:
    await asyncio.gather(old.open(seconds), new.open(seconds))
    return [await _count(table, old, new) for table in asked.tables]


async def _count(table: MigratedTable, old: _Database, new: _Database) -> _Count:
    there = table.renamed or table.name
    columns = list(dict.fromkeys([table.key, *table.columns]))
    old_types, new_types = await asyncio.gather(_types(old, table.name, columns), _types(new, there, columns))
    as_text = {name for name in columns if old_types[name] != new_types[name] or old_types[name] >= _FIRST_OWN_OID}
    old_row, new_row = _checksums(table.name, columns, as_text), _checksums(there, columns, as_text)
    old_sums, new_sums = await asyncio.gather(_sums(old, old_row), _sums(new, new_row))
    surplus = await _surplus(new, there, table.key)
    rows = sum(number for number, _ in old_sums.values())
    same = sum(number for bucket, (number, total) in old_sums.items() if new_sums.get(bucket) == (number, total))
    unequal = [bucket for bucket, sums in old_sums.items() if bucket in new_sums and new_sums[bucket] != sums]
    if unequal:
        old_all, new_all = await asyncio.gather(_all_of(old, old_row, unequal), _all_of(new, new_row, unequal))
        same += sum((old_all[bucket] & new_all[bucket]).total() for bucket in unequal)
    return _Count(table, rows, same, surplus)


async def _types(database: _Database, table: str, columns: list[str]) -> dict[str, int]:
    """Oid of each column's type. Raises _Unknown when the table or a column is not there."""
    found = dict(
        await database.run(
            "SELECT attname::text, atttypid::int8 FROM pg_catalog.pg_attribute"
            " WHERE attrelid = to_regclass(quote_ident(%s)) AND attnum > 0 AND NOT attisdropped",
            [table],
        )
    )
    act = f"Make it, or correct the plan's `tables`; the role of CHECK_DATABASE_{database.name.upper()} must see it."
    if not found:
        raise _Unknown(f"{database.name} has no table {table}", act)
    if missing := [name for name in columns if name not in found]:
        raise _Unknown(f"{table} of {database.name} has no column {', '.join(missing)}", act)
    return found


def _checksums(table: str, columns: list[str], as_text: set[str]) -> sql.Composed:
    """A query for the checksum `h` of each row."""
    values = [sql.SQL("{}::text" if name in as_text else "{}").format(sql.Identifier(name)) for name in columns]
    # OFFSET 0 keeps the planner from computing it once for each use. record_send writes a value's length before it, so
    # no two different rows have one form.
    query = "SELECT hashbyteaextended(record_send(ROW({})), 0) AS h FROM {} OFFSET 0"
    return sql.SQL(query).format(sql.SQL(", ").join(values), sql.Identifier(table))


async def _sums(database: _Database, rows: sql.Composed) -> _Sums:
    query = sql.SQL("SELECT (h & 4095)::int4, count(*), sum(h)::text FROM ({}) r GROUP BY 1").format(rows)
    return {bucket: (number, int(total)) for bucket, number, total in await database.run(query)}


async def _all_of(database: _Database, rows: sql.Composed, buckets: list[int]) -> dict[int, Counter[int]]:
    """Every checksum in these buckets, with how often it is there."""
    query = sql.SQL(
        "SELECT (h & 4095)::int4, string_agg(int8send(h), ''::bytea) FROM ({}) r"
        " WHERE (h & 4095)::int4 = ANY (%s::int4[]) GROUP BY 1"
    ).format(rows)
    packed = await database.run(query, [buckets])
    return {bucket: Counter(struct.unpack(f">{len(sums) // 8}q", sums)) for bucket, sums in packed}


async def _surplus(database: _Database, table: str, key: str) -> int:
    """Rows more than there are keys. A unique index, which tells it at no cost, is what is usually there."""
    unique = await database.run(
        "SELECT 1 FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a"
        " ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] WHERE i.indrelid = to_regclass(quote_ident(%s))"
        " AND a.attname = %s AND i.indisunique AND i.indisvalid AND i.indnkeyatts = 1 AND i.indpred IS NULL",
        [table, key],
    )
    if unique:
        return 0
    query = sql.SQL("SELECT count({0}) - count(DISTINCT {0}) FROM {1}").format(
        sql.Identifier(key), sql.Identifier(table)
    )
    return int((await database.run(query))[0][0])


def _in_words(problem: psycopg.Error) -> str:
    """What the server says, in one line; without its word no more than that it did not answer.

    A client library's own message is not shown: it can hold parts of the address.
    """
    if problem.diag.message_primary:
        return printable(problem.diag.message_primary, 150)
    _, fatal, said = str(problem).partition("FATAL:")
    if fatal:
        return printable(said.strip().partition("\n")[0], 150)
    return "no connection"
