"""The connection that the web process's pool keeps: a PostgreSQL that hangs is found out in bounded time."""

from __future__ import annotations

from typing import Any, TypeVar

import psycopg
from psycopg import OperationalError
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout

CHECK_WITHIN = 1.0  # seconds
ANSWER_WITHIN = 6.0  # seconds; above the statement_timeout of the settings, by which a server that is well has answered

_T = TypeVar("_T")


class PooledConnection(psycopg.Connection[Any]):
    """The pool asks each connection whether it still works, by `execute`, which nothing else here uses.

    A server that died is told at once; one that hangs (a stuck disk, a stopped process) would hold up every page. One
    that begins to hang while it has a statement, a commit above all, would leave the click without any answer.
    """

    _checking = False

    def execute(self, *args: Any, **options: Any) -> psycopg.Cursor[Any]:
        """As psycopg's, but raises when there is no answer within CHECK_WITHIN seconds."""
        self._checking = True
        try:
            return super().execute(*args, **options)
        finally:
            self._checking = False

    def wait(self, gen: PQGen[_T], interval: float = 0.1, timeout: float | None = None) -> _T:
        """psycopg's loop around every exchange with the server. Seconds. Raises OperationalError when they are over."""
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, CHECK_WITHIN if self._checking else ANSWER_WITHIN)
        except _WaitTimeout as late:
            self.pgconn.finish()  # to roll back would be to wait for the same server again
            raise OperationalError("the server has not answered in time") from late
