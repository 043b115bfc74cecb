"""The tasks that keep the database small."""

from datetime import timedelta

from django.contrib.sessions.models import Session
from django.utils import timezone

from migrations_app import tasks
from migrations_app.gateways.errors import Unreachable
from migrations_app.gateways.memory import MemoryGateway
from migrations_app.models import Gateway, HealthSample


def test_old_samples_and_expired_sessions_go_in_parts_and_young_ones_stay(db, settings, monkeypatch):
    monkeypatch.setattr(tasks, "DELETED_AT_ONCE", 2)
    now = timezone.now()
    ages = [timedelta(days=settings.HISTORY_DAYS, hours=hours) for hours in (1, 2, 3, 4, 5)]
    for age in [*ages, timedelta(hours=1)]:
        HealthSample.objects.create(target="auth", polled_at=now - age, healthy=True)
    for number, end in enumerate((now - timedelta(hours=1), now + timedelta(hours=1))):
        Session.objects.create(session_key=f"key-{number}", session_data="", expire_date=end)
    tasks.forget_old_samples()
    assert [row.polled_at for row in HealthSample.objects.all()] == [now - timedelta(hours=1)]
    assert [row.session_key for row in Session.objects.all()] == ["key-1"]


def test_a_gateway_that_cannot_be_cleared_up_is_told_and_does_not_stop_the_others(plan, monkeypatch, caplog):
    Gateway.objects.create(plan=plan, key="second", adapter="memory")
    asked = []

    def housekeep(gateway):
        asked.append(gateway)
        raise Unreachable("the gateway does not answer")

    monkeypatch.setattr(MemoryGateway, "housekeep", housekeep)
    tasks.housekeep()
    assert len(asked) == 2
    assert "gateway second is not cleared up: the gateway does not answer" in caplog.text
