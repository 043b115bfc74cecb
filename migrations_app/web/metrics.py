"""`/metrics`, for Prometheus. What it tells is in observe.metrics; docs/monitoring says how to set it up.

It never goes by a session. It is open to who sends METRICS_TOKEN, and to the addresses of METRICS_NETWORKS unless the
request came by a proxy: then everybody may look as if they came from the proxy, or from wherever they say.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address
from threading import Lock

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError, connections
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import exposition
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from migrations_app.observe import queues
from migrations_app.observe.audit_counts import AuditCounts
from migrations_app.observe.metrics import gauge, read

from .shared_reading import SharedReading

logger = logging.getLogger(__name__)

WITHIN = 1.5  # seconds that a scrape waits for the database and for Redis
KEPT = 1.0  # seconds for which many scrapers cost one
REFUSED = (
    "The metrics are not open to you. Send the token of METRICS_TOKEN (Authorization: Bearer ...), or come, without a"
    " proxy, from an address within METRICS_NETWORKS.\n"
)
FORWARDED = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Forwarded", "Via")


@dataclass(frozen=True, eq=False)
class Reading(Collector):
    """Families that were read together; the next reading is another one, however much it is alike."""

    families: tuple[Metric, ...]

    def collect(self) -> Iterable[Metric]:
        return self.families


@login_not_required
@require_safe
@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    """200 with all there is, or 503 with `switchyard_database_up 0` and what Redis tells. 403 in plain text."""
    if not _may(request):
        return HttpResponse(REFUSED, "text/plain; charset=utf-8", HTTPStatus.FORBIDDEN)
    until = time.monotonic() + WITHIN
    of_queues, of_database = _queues.ask(), _database.ask()
    try:
        database, status = of_database.result(until - time.monotonic()), HTTPStatus.OK
    except (DatabaseError, TimeoutError):
        database, status = NO_DATABASE, HTTPStatus.SERVICE_UNAVAILABLE
    try:
        depths = of_queues.result(max(until - time.monotonic(), 0))
    except TimeoutError:
        depths = NO_QUEUES
    with _one_at_a_time:
        content, content_type = _encoded(database, depths, _wants_open_metrics(request))
    return HttpResponse(content, content_type, status)


@lru_cache(maxsize=4)
def _encoded(database: Reading, depths: Reading, is_open: bool) -> tuple[bytes, str]:
    """The body and its content type; for 500 services this takes some 20 ms, half as long as to read the database."""
    both = Reading((*database.families, *depths.families))
    if is_open:
        return openmetrics.generate_latest(both), openmetrics.CONTENT_TYPE_LATEST  # type: ignore[no-untyped-call]
    return exposition.generate_latest(both), exposition.CONTENT_TYPE_PLAIN_0_0_4


def _wants_open_metrics(request: HttpRequest) -> bool:
    """Whether the Accept header names version 1 of OpenMetrics, and the older text not before it.

    Django's own matching takes a further parameter, such as the `escaping` of Prometheus 3, for another type.
    """
    best: dict[str, float] = {}
    for one in request.accepted_types:
        name = f"{one.main_type}/{one.sub_type}"
        if one.params.get("version", "1.0.0") == "1.0.0" or name == "text/plain":
            best[name] = max(best.get(name, 0.0), one.quality)
    wanted = best.get("application/openmetrics-text", 0.0)
    return wanted > 0 and wanted >= best.get("text/plain", 0.0)


def _may(request: HttpRequest) -> bool:
    word, _, token = request.headers.get("Authorization", "").partition(" ")
    if settings.METRICS_TOKEN and word.lower() == "bearer":
        return hmac.compare_digest(token.strip().encode(), settings.METRICS_TOKEN.encode())
    return not any(name in request.headers for name in FORWARDED) and _is_near(request.META.get("REMOTE_ADDR", ""))


def _is_near(written: str) -> bool:
    """Whether this address lies within METRICS_NETWORKS. A server on a socket file gives none."""
    try:
        address = ip_address(written)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address in network for network in settings.METRICS_NETWORKS)


_audit = AuditCounts()
_one_at_a_time = Lock()  # those who come together wait for the first, and find its work done


def _read_database() -> Reading:
    try:
        families = read(_audit)
    except DatabaseError as error:
        logger.warning("the metrics cannot be read: %s", error)
        raise
    finally:
        connections.close_all()  # this thread's own
    return Reading((gauge("database_up", "1 when the database answers.", 1), *families))


def _read_queues() -> Reading:
    depths = queues.depths()
    if depths is None:
        return NO_QUEUES
    messages = gauge("queue_messages", "Messages that no worker has taken yet.", labels=["queue"])
    for queue, depth in depths.items():
        messages.add_metric((queue,), depth)
    return Reading((gauge("queue_up", "1 when Redis answers.", 1), messages))


NO_DATABASE = Reading((gauge("database_up", "1 when the database answers.", 0),))
NO_QUEUES = Reading((gauge("queue_up", "1 when Redis answers.", 0),))
_database = SharedReading(_read_database, keep=KEPT)
_queues = SharedReading(_read_queues, keep=KEPT)
