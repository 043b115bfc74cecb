"""What the checks are tried on: real PostgreSQL databases, and the demo's monolith and auth service."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql

from tests.demo.conftest import estate, migrated, postgres_url, running, seeded, unmigrated  # noqa: F401
from tests.servers import with_database

NewDatabase = Callable[[], str]


@pytest.fixture
def new_database() -> Iterator[NewDatabase]:
    """Makes empty databases and returns the address of each."""
    server, made = os.environ["TEST_POSTGRES_URL"], []

    def make() -> str:
        name = f"checked_{secrets.token_hex(6)}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        made.append(name)
        return with_database(server, name)

    yield make
    with psycopg.connect(server, autocommit=True) as connection:
        for name in made:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
