"""Fixtures that every part of the suite shares: the TracSeq plan on the in-memory gateway, healthy, with its people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import settings

from tests.rows import bring_back_first_rows, keep_first_rows

# The same examples in each run: what a run finds, the next one finds too.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")

LONGEST = ("bench", "browser", "controlplane", "demo", "faults", "machine")  # folders with few tests that take long
TRACSEQ = Path(__file__).parent.parent / "plans" / "tracseq-phase2.yaml"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest first, file by file: at the end no worker is left alone with it."""
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path.parent.name not in LONGEST, -tests[item.path], item.path))


@pytest.fixture(autouse=True)
def _own_adapters() -> Iterator[None]:
    """No test sees the gateway of another."""
    from migrations_app.reconcile.adapters import forget_adapters

    forget_adapters()
    yield
    forget_adapters()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker):
    """Tests with real commits end with the rows that the migrations made. Quicker than Django does it.

    TRUNCATE, which the audit log refuses everywhere else, is for the tests that begin many worlds in one.
    """
    from django.db import connection
    from django.test import TransactionTestCase

    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute("ALTER TABLE migrations_app_auditevent DISABLE TRIGGER audit_table_stays")
        keep_first_rows()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(TransactionTestCase, "_fixture_teardown", lambda _self: bring_back_first_rows())
        yield


@pytest.fixture
def plan(db):
    """TracSeq, phase 2, loaded on the in-memory gateway; every target is healthy and the gateway runs the plan.

    People sign off what the shipped plan has checked automatically; `shipped_plan` is that one.
    """
    return _running(by_hand=True)


@pytest.fixture
def shipped_plan(db):
    """As `plan`, with the automatic checks of the shipped plan."""
    return _running(by_hand=False)


def _running(*, by_hand: bool):
    from migrations_app.reconcile.loop import reconcile_all
    from tests.factories import load_tracseq, make_healthy

    row = load_tracseq(adapter="memory", by_hand=by_hand)
    make_healthy()
    reconcile_all()
    return row


@pytest.fixture
def people(db):
    """Role -> Actor, an account for each role."""
    from tests.factories import make_people

    return make_people()


@pytest.fixture
def shell():
    """Somebody at a shell who named no account."""
    from migrations_app.actor import Actor

    return Actor.at_shell("tester")


@pytest.fixture
def noon() -> datetime:
    return datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
