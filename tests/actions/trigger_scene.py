"""What the tests of triggers have in common: a service of week 1 that is watched, its traffic and its polls."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone

from migrations_app.gateways.base import LATENCY_BOUNDS, NO_LATENCY, Side
from migrations_app.models import (
    AuditEvent,
    Flag,
    HealthSample,
    Service,
    TrafficSample,
)

KEY = "USE_STORAGE_SERVICE"
LOGIN = {"key": "login", "when": "answers", "route": "/api/storage/login", "method": "POST", "above": 20.0}
ERRORS = {"key": "errors", "when": "errors", "above": 5.0, "window": "30s"}


def watched_by(*rows: dict[str, object], key: str = "storage") -> None:
    Service.objects.filter(key=key).update(triggers=list(rows))


def serve(
    requests: int,
    *,
    errors: int = 0,
    side: Side = Side.SERVICE,
    milliseconds: int = 10,
    at: datetime | None = None,
    service: str = "storage",
) -> None:
    latency = list(NO_LATENCY)
    latency[LATENCY_BOUNDS.index(milliseconds)] = requests
    TrafficSample.objects.create(
        service=Service.objects.get(key=service),
        side=side.value,
        read_at=at or timezone.now(),
        requests=requests,
        errors=errors,
        latency=latency,
    )


def poll(*healthy: bool | None, target: str = "storage") -> None:
    for one in healthy:
        HealthSample.objects.create(
            target=target, polled_at=timezone.now(), healthy=one, error="" if one else "answered 503"
        )


def weight() -> int:
    return Flag.objects.get(key=KEY).weight


def last_event() -> AuditEvent:
    return AuditEvent.objects.order_by("-id").first()


def asks(port: int, **more: object) -> dict[str, object]:
    url = f"http://127.0.0.1:{port}/"
    return {"key": "n", "when": "query", "url": url, "path": "failed", "above": 5.0, "for": "10s"} | more
