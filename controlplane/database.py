"""The connection that the web process's pool keeps: a PostgreSQL that hangs is found out in bounded time."""

from __future__ import annotations

from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen

CHECK_WITHIN = 1.0  # seconds

_T = TypeVar("_T")


class PooledConnection(psycopg.Connection[Any]):
    """The pool asks each connection whether it still works, by `execute`, which nothing else here uses.

    A server that died is told at once; one that hangs (a stuck disk, a stopped process) would hold up every page.
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
        """psycopg's loop around every exchange with the server. Seconds."""
        return super().wait(gen, interval, CHECK_WITHIN if self._checking else timeout)
