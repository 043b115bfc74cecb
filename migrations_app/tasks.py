"""Thin Celery shells around reconcile and observe. All are idempotent, and asked for again by beat."""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import shared_task
from celery.signals import worker_shutting_down
from django.contrib.sessions.models import Session
from django.db import DatabaseError, OperationalError, connection
from django.utils import timezone

from migrations_app.actions import advance, pins, soaks, triggers
from migrations_app.gateways.errors import GatewayError, Unreachable
from migrations_app.models import Gateway, Rollout
from migrations_app.observe import checks, downtime, partitions, parts, poller, queries, rollups, route_traffic, traffic
from migrations_app.reconcile import loop
from migrations_app.reconcile.adapters import adapter_for

POLL_LOCK = 0x5357_504F
TRAFFIC_LOCK = 0x5357_5452
STEP_LOCK = 0x5357_5354
CHECK_LOCK = 0x5357_434B
QUERY_LOCK = 0x5357_5155
logger = logging.getLogger(__name__)
POLL_FOR = 600.0  # seconds; then another process of the pool may have its turn
# One byte that a worker shares with the processes of its pool, which are forked when this module has been imported.
_shutting_down = mmap.mmap(-1, 1)


@shared_task(ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def reconcile_all() -> None:
    """Bring every gateway to the desired routing table."""
    pins.settle_passes(loop.reconcile_all(leave_late=True))


# Its own limits: it stays, while all other tasks are soon done.
@shared_task(ignore_result=True, soft_time_limit=POLL_FOR + 20, time_limit=POLL_FOR + 30)  # type: ignore[untyped-decorator]  # Celery has no types
def poll_health() -> None:
    """Poll every target at its interval, for minutes. Ends at once while another worker does."""
    with _alone(POLL_LOCK) as alone:
        if alone:
            parent = os.getppid()
            poller.run(
                lambda: _shutting_down[0] != 0 or os.getppid() != parent,
                seconds=POLL_FOR,
                after_write=soaks.watch_soaks,
            )


@worker_shutting_down.connect  # type: ignore[untyped-decorator]  # Celery has no types
def _tell_children(**_: Any) -> None:
    """A worker that is asked to end waits for its tasks, and one of them stays."""
    _shutting_down[0] = 1


@shared_task(ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def run_checks() -> None:
    """Run every automatic check that asks elsewhere. Skipped while the last round is still out."""
    with _alone(CHECK_LOCK) as alone:
        if alone:
            checks.run_checks()


@shared_task(ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def read_traffic() -> None:
    """Read the gateways' counters once, and act on them. That one is away is the reconcile loop's to tell."""
    acted: list[str] = []
    ready: list[Rollout] = []
    with _alone(TRAFFIC_LOCK) as alone:
        if alone:
            try:
                traffic.read_once()
                downtime.count_downtime()
            except Unreachable:
                downtime.count_downtime(away=True)
            route_traffic.read_once()
            fired = triggers.watch_triggers()
            failed, ready = advance.look_at_rollouts()
            acted = [*fired, *failed]
    _bring_to_gateways(acted)
    if ready:
        # A gate may wait for its checks: meanwhile others read the counters, and move back what does not do well.
        with _alone(STEP_LOCK) as alone:
            acted = advance.go_on(ready) if alone else []
        _bring_to_gateways(acted)


def _bring_to_gateways(acted: list[str]) -> None:
    """Nobody sends a hint from here: without this a rollback waits for beat, up to a second, and for another worker."""
    if acted:
        loop.reconcile_all(leave_late=True)


@shared_task(ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def ask_queries() -> None:
    """Ask what triggers ask elsewhere. A task of its own: one that hangs holds up no trigger, its own neither."""
    with _alone(QUERY_LOCK) as alone:
        if alone:
            queries.ask_queries()


@shared_task(ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def housekeep() -> None:
    """Let every gateway keep its folder small. One that did not take part is asked again by the next call."""
    for gateway in Gateway.objects.all():
        try:
            adapter_for(gateway).housekeep()
        except GatewayError as error:
            logger.warning("gateway %s is not cleared up: %s", gateway.key, error)


@shared_task(ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def forget_old_samples() -> None:
    """Drop the partitions that are older than they are kept, and delete the sessions that have expired."""
    now = timezone.now()
    partitions.drop_old(now)
    route_traffic.forget_old(now)
    parts.delete_in_parts(Session.objects.filter(expire_date__lt=now))


@shared_task(ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def keep_history() -> None:
    """Make the partitions of the days ahead, and sum up what has come. Goes on where the last call ended."""
    now = timezone.now()
    try:
        partitions.make_ahead(now)
    except OperationalError as error:
        # Somebody holds a lock for long. What has no partition waits in the default one, and is summed up all the same.
        logger.warning("no partitions were made: %s", error)
    rollups.keep_history(now)


def warm_up() -> None:
    """What a worker process does before its first task: the first of everything takes long, and clicks wait for it."""
    try:
        loop.reconcile_all()
    except DatabaseError as error:
        # It may still be starting. The tasks find out for themselves.
        logger.warning("the database does not answer yet: %s", error)


@contextmanager
def _alone(lock: int) -> Iterator[bool]:
    """Whether nobody else holds this advisory lock; held until the block ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [lock])
        (got,) = cursor.fetchone()
        try:
            yield got
        finally:
            if got:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [lock])
