"""What moved and what changed: which rows count, and by which index."""

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from migrations_app.actor import SYSTEM
from migrations_app.audit import record
from migrations_app.choices import AuditKind, Health
from migrations_app.models import HealthChange
from migrations_app.observe.moves import changes_since, moves_since
from tests.explained import Explained

NOW = timezone.now()
DAY = timedelta(days=1)


def moved(kind, before, after, *, ago):
    record(kind, actor=SYSTEM, subject="x", before=before, after=after, at=NOW - ago)


def changed(target, state, *, ago, reason=""):
    HealthChange.objects.create(target=target, at=NOW - ago, was=Health.UNKNOWN, state=state, reason=reason)


def weights(found):
    return {flag: [(one.before, one.after) for one in moves] for flag, moves in found.items()}


@pytest.fixture
def log(db):
    moved(AuditKind.WEEK_ENABLED, {"A": 0, "B": 0}, {"A": 100, "B": 100}, ago=4 * DAY)
    moved(AuditKind.FLAG_ROLLED_BACK, {"A": 100}, {"A": 0}, ago=3 * DAY)
    moved(AuditKind.FLAG_WEIGHT_SET, {}, {"A": 10}, ago=2 * DAY)
    moved(AuditKind.DRIFT_CORRECTED, {"found": ["x"]}, {"A": 10, "B": 100}, ago=DAY)


def test_moves_are_in_order_of_time_for_each_flag_and_nothing_else_is_a_move(log):
    assert weights(moves_since(NOW - 9 * DAY)) == {"A": [(0, 100), (100, 0), (0, 10)], "B": [(0, 100)]}


def test_moves_from_a_moment_on_of_some_flags_and_the_newest_alone(log):
    assert weights(moves_since(NOW - 3 * DAY)) == {"A": [(100, 0), (0, 10)]}
    assert weights(moves_since(NOW - 9 * DAY, ["B", "C"])) == {"B": [(0, 100)]}
    assert weights(moves_since(NOW - 9 * DAY, most=2)) == {"A": [(100, 0), (0, 10)]}
    assert moves_since(NOW - 9 * DAY, []) == {}


def test_moves_are_found_by_their_own_index_in_a_long_log(log):
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO migrations_app_auditevent (at, kind, actor, actor_kind, subject, reason, before, after,
                previous_digest, digest)
            SELECT now() - n * interval '1 minute', 'prerequisite.ticked', 'x', 'system', 'x', '', '{}', '{}',
                md5('before' || n) || md5('x'), md5('after' || n) || md5('x') FROM generate_series(1, 20000) AS n
            """
        )
        cursor.execute("ANALYZE migrations_app_auditevent")
        with connection.execute_wrapper(explained := Explained()):
            moves_since(NOW - 2.5 * DAY)
        assert "audit_moves_by_time" in explained.plan
        assert "Seq Scan" not in explained.plan


def test_changes_are_the_newest_first_and_bounded_for_each_target(db):
    for hours in range(6):
        changed("a", Health.HEALTHY, ago=timedelta(hours=hours))
    changed("b", Health.UNKNOWN, ago=timedelta(hours=1))
    changed("c", Health.HEALTHY, ago=timedelta(hours=1))
    found = changes_since(["a", "b", "nobody"], NOW - DAY, 3)
    assert {target: [one.at for one in changes] for target, changes in found.items()} == {
        "a": [NOW - timedelta(hours=hours) for hours in range(3)],
        "b": [NOW - timedelta(hours=1)],
    }


def test_the_last_one_to_unhealthy_comes_with_them_however_old_it_is(db):
    changed("a", Health.UNHEALTHY, ago=40 * DAY, reason="the first")
    changed("a", Health.UNHEALTHY, ago=30 * DAY, reason="the last")
    changed("a", Health.HEALTHY, ago=29 * DAY)
    changed("a", Health.HEALTHY, ago=timedelta(hours=1))
    found = changes_since(["a"], NOW - DAY, 3)["a"]
    assert [(one.state, one.reason) for one in found] == [(Health.HEALTHY, ""), (Health.UNHEALTHY, "the last")]
    changed("a", Health.UNHEALTHY, ago=timedelta(minutes=1), reason="just now")
    assert [one.reason for one in changes_since(["a"], NOW - DAY, 3)["a"]] == ["just now", ""]
