"""Runs the downtime clocks of the weeks, once for each reading of the gateway (docs/history.md has the rule)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from migrations_app.choices import WeekStatus
from migrations_app.gateways.base import MONOLITH_WEIGHT, Side
from migrations_app.live import Topic, tell
from migrations_app.models import (
    DowntimeClock,
    DowntimeSpan,
    Flag,
    Gateway,
    MaintenanceWindow,
    Week,
)
from migrations_app.models.downtime import longest_reading
from migrations_app.models.health import MONOLITH_TARGET

CLOCK_LOCK = 0x5357_444F  # two that count at once would count the same seconds twice
# What the way back itself breaks is the week's too; what fails on the old side later is not.
AFTER_ROLLBACK = timedelta(minutes=5)
SPANS_KEPT = 200  # of a week
NOTHING = timedelta(0)


@dataclass(frozen=True, slots=True)
class Served:
    """Requests to one side of a service in one reading, and how many of them clients saw fail."""

    requests: int
    failed: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What one reading covers: later than `begin`, up to `end`. `begin` is None where nobody knows.

    `served` has the sides that were sent something, by the service's primary key. `away`: by some of the gateways; the
    others did not answer.
    """

    begin: datetime | None
    end: datetime
    served: Mapping[tuple[int, Side], Served] = field(default_factory=dict)
    away: bool = False


@dataclass(frozen=True, slots=True)
class Outage:
    """One service (its primary key) that was down, and its requests meanwhile."""

    service: int
    begin: datetime
    end: datetime
    requests: int
    failed: int
    planned: bool


@dataclass(frozen=True, slots=True)
class Counted:
    """What readings add to a clock."""

    down: timedelta = NOTHING
    planned: timedelta = NOTHING
    not_known: timedelta = NOTHING
    requests: int = 0
    failed: int = 0
    outages: tuple[Outage, ...] = ()


Planned = Callable[[int, Side, datetime], bool]


def count(
    readings: Iterable[Reading],
    services: Collection[int],
    since: datetime,
    *,
    share: int,
    longest: timedelta,
    is_planned: Planned,
) -> Counted:
    """What happened to these services from `since` on. Readings come in order, each ends later than `since`.

    A reading counts with all that it covers, as long as that is no longer than `longest`: a service is down in it when
    something failed, and at least `share` per cent of what it was sent. `is_planned` tells whether a side of a service
    was in maintenance at a moment; an outage is planned when each side that failed was. Where a gateway was away nobody
    knows, unless one that was not tells of an outage.
    """
    found, outages, until = Counted(), list[Outage](), since
    for reading in readings:
        sides = {key: one for key, one in reading.served.items() if key[0] in services}
        found = replace(
            found,
            requests=found.requests + sum(one.requests for one in sides.values()),
            failed=found.failed + sum(one.failed for one in sides.values()),
        )
        if reading.begin is None or reading.end - reading.begin > longest:
            found = replace(found, not_known=found.not_known + (reading.end - until))
            until = reading.end
            continue
        begin = max(reading.begin, until)
        span = Reading(begin, reading.end, sides)
        now = [one for service in services if (one := _outage(service, span, share, is_planned))]
        length = reading.end - begin
        unplanned = any(not one.planned for one in now)
        found = replace(
            found,
            not_known=found.not_known + (begin - until) + (length if reading.away and not now else NOTHING),
            down=found.down + (length if unplanned else NOTHING),
            planned=found.planned + (length if now and not unplanned else NOTHING),
        )
        outages += now
        until = reading.end
    return replace(found, outages=tuple(joined(outages)))


def _outage(service: int, span: Reading, share: int, is_planned: Planned) -> Outage | None:
    own = {side: one for side in Side if (one := span.served.get((service, side)))}
    requests, failed = sum(one.requests for one in own.values()), sum(one.failed for one in own.values())
    if span.begin is None or span.begin >= span.end or not failed or 100 * failed < share * requests:
        return None
    planned = all(is_planned(service, side, span.end) for side, one in own.items() if one.failed)
    return Outage(service, span.begin, span.end, requests, failed, planned)


def joined(outages: Iterable[Outage]) -> list[Outage]:
    """Those of one service that follow each other without a break as one, in the order of their beginnings."""
    found: list[Outage] = []
    last: dict[int, int] = {}
    for one in outages:
        place = last.get(one.service)
        before = found[place] if place is not None else None
        if place is not None and before and before.end == one.begin and before.planned == one.planned:
            requests, failed = before.requests + one.requests, before.failed + one.failed
            found[place] = replace(before, end=one.end, requests=requests, failed=failed)
        else:
            last[one.service] = len(found)
            found.append(one)
    return found


def count_downtime(now: datetime | None = None, *, away: bool = False) -> list[int]:
    """Count what readings have come since each clock was written; the numbers of the weeks that it was written for.

    Safe to call late, twice and in two places: what is counted follows from the readings that are stored. `away`: a
    gateway did not answer just now, so what came since the last reading is not known. Costs one question while no week
    has begun, or all that have are done.
    """
    now = now or timezone.now()
    if not _weeks(now).exists():
        return []
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [CLOCK_LOCK])
        return _count(now, away)


def _weeks(now: datetime) -> QuerySet[Week]:
    """Those that a clock may run for. One that runs and should not is stopped by its next look."""
    lately = Flag.objects.filter(week=OuterRef("pk"), changed_at__gt=now - AFTER_ROLLBACK)
    runs = Q(status__in=[WeekStatus.IN_PROGRESS, WeekStatus.SOAKING], moves_traffic=True)
    back = Q(Exists(lately), status=WeekStatus.ROLLED_BACK)
    return Week.objects.filter(runs | back | Q(downtime_clock__running=True), started_at__isnull=False)


def _count(now: datetime, away: bool) -> list[int]:
    # One that is ahead is of a machine whose time was set back: it goes on from now, and no moment counts twice.
    DowntimeClock.objects.filter(counted_until__gt=now + longest_reading()).update(counted_until=now)
    weeks = list(_weeks(now).select_related("downtime_clock").order_by("number"))
    flags: dict[int, list[Flag]] = defaultdict(list)
    for flag in Flag.objects.filter(week__in=weeks).select_related("service"):
        flags[flag.week_id].append(flag)
    since = {week.pk: _since(week, flags[week.pk], now) for week in weeks}
    if not since:
        return []  # the last one was called done meanwhile
    readings = _readings(min(since.values()), [flag.service_id for own in flags.values() for flag in own])
    if away and (not readings or readings[-1].end < now):
        readings.append(Reading(None, now))
    if not readings:
        return []
    newest, maintenance = readings[-1].end, _Maintenance(min(since.values()))
    written, outages = [], False
    for week in weeks:
        own, begin = flags[week.pk], since[week.pk]
        clock = getattr(week, "downtime_clock", None) or DowntimeClock(week=week, since=begin, counted_until=begin)
        ran, clock.running = clock.running, _runs(week, own, newest)
        if not ran and not clock.running:
            continue
        # The time until a rollback ends it is counted to the reading that finds it so, however late that comes.
        if clock.running or week.status == WeekStatus.ROLLED_BACK:
            services = {flag.service_id: flag.service.key for flag in own}
            counted = count(
                [reading for reading in readings if reading.end > begin],
                services,
                begin,
                share=week.downtime_share,
                longest=longest_reading(),
                is_planned=maintenance.of(services),
            )
            _add(clock, counted, services)
            _keep_spans(week, counted.outages, services)
            outages = outages or bool(counted.outages or counted.not_known)
        clock.counted_until = max(newest, begin)
        written.append(clock)
    columns = [field.name for field in DowntimeClock._meta.concrete_fields if field.name not in {"week", "since"}]
    DowntimeClock.objects.bulk_create(written, update_conflicts=True, unique_fields=["week"], update_fields=columns)
    if outages:
        tell(Topic.TRAFFIC)
    return [clock.week.number for clock in written]


def _since(week: Week, flags: Sequence[Flag], now: datetime) -> datetime:
    """From when on the week is to be counted: where its clock is, or the first move after the clock was stopped."""
    clock: DowntimeClock | None = getattr(week, "downtime_clock", None)
    if clock is None:
        return week.started_at or now
    if clock.running:
        return clock.counted_until
    moves = [flag.changed_at for flag in flags if flag.changed_at and flag.changed_at > clock.counted_until]
    return min(moves, default=clock.counted_until)


def _runs(week: Week, flags: Sequence[Flag], at: datetime) -> bool:
    """Whether what fails is the week's: some of it is on, or all of it was rolled back no longer ago than that."""
    if week.status in {WeekStatus.IN_PROGRESS, WeekStatus.SOAKING}:
        return week.moves_traffic
    if week.status != WeekStatus.ROLLED_BACK:
        return False
    moved = max((flag.changed_at for flag in flags if flag.changed_at), default=None)
    if moved is not None and at <= moved + AFTER_ROLLBACK:
        return True
    # A rollback that the gateway has not taken moves nothing.
    sent = [gateway.observed_weights for gateway in Gateway.objects.all()]
    return any(weights.get(flag.key, MONOLITH_WEIGHT) > MONOLITH_WEIGHT for weights in sent for flag in flags)


def _readings(since: datetime, services: Collection[int]) -> list[Reading]:
    """Those later than `since`, in order, with the samples that were stored with each.

    While a reading is kept, so are its samples, each on its own (observe.traffic).
    """
    found: dict[datetime, Reading] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT reading.read_at, reading.before, reading.away, sample.service_id, sample.side,
                min(sample.begins_at), sum(sample.requests)::bigint,
                sum(greatest(sample.errors - sample.failovers, 0) + sample.failed_failovers)::bigint
            FROM (
                SELECT read_at, away, lag(read_at) OVER (ORDER BY read_at) AS before
                FROM migrations_app_trafficreading
            ) AS reading
            LEFT JOIN migrations_app_trafficsample AS sample
                ON sample.read_at = reading.read_at AND sample.service_id = ANY(%s)
            WHERE reading.read_at > %s
            GROUP BY reading.read_at, reading.before, reading.away, sample.service_id, sample.side
            ORDER BY reading.read_at
            """,
            [list(services), since],
        )
        for read_at, before, away, service, side, begins_at, requests, failed in cursor.fetchall():
            reading = found.setdefault(read_at, Reading(before, read_at, {}, away))
            if service is not None:
                served = {**reading.served, (service, Side(side)): Served(requests, failed)}
                # A gateway that was away tells now what it served meanwhile.
                begin = min(reading.begin, begins_at) if reading.begin and begins_at else reading.begin
                found[read_at] = replace(reading, begin=begin, served=served)
    return list(found.values())


def _add(clock: DowntimeClock, counted: Counted, services: Mapping[int, str]) -> None:
    clock.down += counted.down
    clock.planned += counted.planned
    clock.not_known += counted.not_known
    clock.requests += counted.requests
    clock.failed += counted.failed
    for one in counted.outages:
        if not one.planned:
            key = services[one.service]
            seconds = clock.of_services.get(key, 0.0) + (one.end - one.begin).total_seconds()
            clock.of_services[key] = round(seconds, 3)


def _keep_spans(week: Week, outages: Sequence[Outage], services: Mapping[int, str]) -> None:
    """The last span of a service goes on where an outage begins as it ended. The oldest go once there are too many."""
    if not outages:
        return
    rows = DowntimeSpan.objects.filter(week=week)
    last = {
        (row.service, row.planned, row.ends_at): row
        for row in rows.filter(ends_at__gte=min(one.begin for one in outages))
    }
    new = []
    for one in outages:
        key = services[one.service]
        if row := last.get((key, one.planned, one.begin)):
            row.ends_at, row.requests, row.failed = one.end, row.requests + one.requests, row.failed + one.failed
            row.save(update_fields=["ends_at", "requests", "failed"])
        else:
            new.append(
                DowntimeSpan(
                    week=week,
                    service=key,
                    begins_at=one.begin,
                    ends_at=one.end,
                    requests=one.requests,
                    failed=one.failed,
                    planned=one.planned,
                )
            )
    if new:
        DowntimeSpan.objects.bulk_create(new)
        kept = rows.order_by("-ends_at", "-pk").values("pk")[:SPANS_KEPT]
        rows.exclude(pk__in=list(kept.values_list("pk", flat=True))).delete()


class _Maintenance:
    """The windows that may cover what is counted, read when something has failed."""

    def __init__(self, since: datetime) -> None:
        self._since = since

    @cached_property
    def _windows(self) -> list[MaintenanceWindow]:
        return list(MaintenanceWindow.objects.filter(ends_at__gt=self._since))

    def of(self, services: Mapping[int, str]) -> Planned:
        def is_planned(service: int, side: Side, at: datetime) -> bool:
            target = services[service] if side is Side.SERVICE else MONOLITH_TARGET
            return any(target in window.targets and window.covers(at) for window in self._windows)

        return is_planned
