"""The web process's connections to PostgreSQL: kept from request to request, and never waited for without end."""

from __future__ import annotations

import os
import signal
import time

import psutil
import psycopg
import pytest
from psycopg_pool import ConnectionPool, PoolTimeout

from controlplane.database import CHECK_WITHIN, PooledConnection
from tests.servers import postgres_server


@pytest.fixture
def pool():
    """A pool as the settings make it, on a server of its own, and that server's processes."""
    with postgres_server() as server:
        options = {"min_size": 1, "max_size": 2, "timeout": 1.5, "reconnect_timeout": 1.0}
        url = server.url("postgres")
        with ConnectionPool(
            url,
            connection_class=PooledConnection,
            kwargs={"autocommit": True, "connect_timeout": 2},
            check=ConnectionPool.check_connection,
            open=True,
            **options,
        ) as made:
            made.wait(5)
            yield made


def processes(pool: ConnectionPool) -> list[psutil.Process]:
    with pool.connection() as connection:
        main = psutil.Process(connection.info.backend_pid).parent()
    return [main, *main.children()]


def test_a_connection_is_kept(pool):
    with pool.connection() as connection:
        first = connection.info.backend_pid
    with pool.connection() as connection, connection.cursor() as cursor:
        assert connection.info.backend_pid == first
        assert cursor.execute("SELECT 1").fetchone() == (1,)


def test_a_server_that_hangs_is_told_in_time_and_used_again_when_it_answers(pool):
    stopped = processes(pool)
    for one in stopped:
        os.kill(one.pid, signal.SIGSTOP)
    begun = time.monotonic()
    try:
        with pytest.raises((PoolTimeout, psycopg.OperationalError)), pool.connection():
            pass
        assert time.monotonic() - begun < CHECK_WITHIN + 2.0
    finally:
        for one in stopped:
            os.kill(one.pid, signal.SIGCONT)
    deadline = time.monotonic() + 5
    while True:
        try:
            with pool.connection() as connection, connection.cursor() as cursor:
                assert cursor.execute("SELECT 1").fetchone() == (1,)
            return
        except PoolTimeout:
            assert time.monotonic() < deadline


def test_a_server_that_hangs_with_a_statement_in_its_hands_is_told_in_time(pool, monkeypatch):
    monkeypatch.setattr("controlplane.database.ANSWER_WITHIN", 0.5)
    stopped = processes(pool)
    with pool.connection() as connection, connection.cursor() as cursor:
        for one in stopped:
            os.kill(one.pid, signal.SIGSTOP)
        try:
            with pytest.raises(psycopg.OperationalError, match="has not answered in time"):
                cursor.execute("SELECT 1")
            assert connection.closed
        finally:
            for one in stopped:
                os.kill(one.pid, signal.SIGCONT)


def test_a_slow_query_is_not_cut_short(pool):
    with pool.connection() as connection, connection.cursor() as cursor:
        assert cursor.execute("SELECT 1 FROM pg_sleep(%s)", [CHECK_WITHIN + 0.3]).fetchone() == (1,)


def test_a_connection_that_was_cut_is_replaced(pool):
    with pool.connection() as connection:
        killed = connection.info.backend_pid
    os.kill(killed, signal.SIGTERM)
    with pool.connection() as connection:
        assert connection.info.backend_pid != killed
