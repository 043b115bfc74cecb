"""A process's own database: a few connections, each query bounded in time, and one error when it does not answer."""

import asyncio
import os
import select
import socket
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

# Shorter than a health poll's deadline: a database that hangs shows as 503 and not as a service that hangs.
DEADLINE_S = 1.5
CONNECTIONS = 3

Row = dict[str, Any]
Connection = psycopg.AsyncConnection[Row]


class StoreUnavailable(Exception):
    """The database does not answer, or has no schema yet; the text is one line that says which."""


class Store:
    """Runs single statements, each committed by itself."""

    def __init__(self, server_url: str, database: str) -> None:
        self.database = database
        self._conninfo = make_conninfo(
            server_url,
            dbname=database,
            connect_timeout=2,
            application_name=f"demo {database}",
            options=f"-c timezone=UTC -c statement_timeout={int(DEADLINE_S * 1000)}",
        )
        self._idle: list[Connection] = []
        self._slots = asyncio.Semaphore(CONNECTIONS)

    async def rows(self, query: str, values: Sequence[object] = ()) -> list[Row]:
        """All rows of a statement, as dicts. Raises StoreUnavailable; other errors of psycopg pass through."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._slots.acquire()
        except TimeoutError:
            raise StoreUnavailable("every connection is busy") from None
        try:
            return await self._run(query, values)
        except psycopg.errors.UndefinedTable:
            raise StoreUnavailable("it has no schema; run `python -m demo.database`") from None
        except psycopg.OperationalError as error:
            raise StoreUnavailable(str(error).strip().splitlines()[0] if str(error).strip() else "lost") from error
        finally:
            self._slots.release()

    async def row(self, query: str, values: Sequence[object] = ()) -> Row | None:
        """The first row, or None."""
        rows = await self.rows(query, values)
        return rows[0] if rows else None

    async def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            await self._idle.pop().close()

    async def _run(self, query: str, values: Sequence[object]) -> list[Row]:
        connection = await self._take()
        work = asyncio.ensure_future(_fetch(connection, query, values))
        try:
            await asyncio.wait({work}, timeout=DEADLINE_S + 0.2)
            if not work.done():
                # psycopg answers a cancelled task by waiting for the server, which is what does not answer.
                _cut(connection)
                await asyncio.wait({work}, timeout=0.2)
                raise StoreUnavailable(f"no answer within {DEADLINE_S} s")
            return work.result()
        finally:
            if not work.done():
                work.cancel()
            elif not work.cancelled():
                work.exception()
            if work.done() and not connection.closed:
                self._idle.append(connection)

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not _stale(connection):
                return connection
            await connection.close()
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True, row_factory=dict_row)
        except TimeoutError:
            raise StoreUnavailable(f"no connection within {DEADLINE_S} s") from None


async def _fetch(connection: Connection, query: str, values: Sequence[object]) -> list[Row]:
    cursor = await connection.execute(query.encode(), values)
    return await cursor.fetchall()


def _stale(connection: Connection) -> bool:
    """An idle connection with something to read is one that the server has ended."""
    if connection.closed:
        return True
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return bool(poll.poll(0))


def _cut(connection: Connection) -> None:
    try:
        with socket.socket(fileno=os.dup(connection.pgconn.socket)) as end:
            end.shutdown(socket.SHUT_RDWR)
    except (OSError, psycopg.Error):
        return
