"""What Prometheus is told. Everything is read from the database at the scrape, so every process tells the same.

Times are seconds, moments are Unix times, weights are ratios from 0 to 1. A week's label is its number. What is not
known is left out: a gateway that does not answer has no generation.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

from django.db import connection
from django.utils import timezone
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from migrations_app.choices import AuditKind, Breach, Health, Phase, WeekStatus
from migrations_app.gates.checks import INSTANT
from migrations_app.gates.load import snapshots
from migrations_app.gates.seen import SeenService, SeenWeek, Snapshot
from migrations_app.gates.verdict import judge
from migrations_app.models import (
    ApprovalRequest,
    Flag,
    HealthSample,
    HealthState,
    Plan,
    PollLateness,
    TrafficCounter,
    TriggerState,
    Week,
)
from migrations_app.models.health import LATE_BOUNDS, MONOLITH_TARGET, NO_LATENESS
from migrations_app.models.triggers import not_looked_at

from .audit_counts import AuditCounts, AuditReading

Rows = Sequence[Mapping[str, Any]]

ROLLBACKS = {
    AuditKind.EVERYTHING_ROLLED_BACK: "everything",
    AuditKind.WEEK_ROLLED_BACK: "week",
    AuditKind.FLAG_ROLLED_BACK: "service",
}
ENABLES = {AuditKind.WEEK_ENABLED: "week", AuditKind.FLAG_ENABLED: "service", AuditKind.FLAG_WEIGHT_SET: "weight"}
REFUSALS = {
    AuditKind.ENABLE_REFUSED: "gate",
    AuditKind.DONE_REFUSED: "done",
    AuditKind.ACTION_REFUSED: "permission",
}


def read(audit: AuditCounts, now: datetime | None = None) -> list[Metric]:
    """Every family that the database tells. Raises DatabaseError.

    As many queries for 500 services as for 10, and none whose cost grows with the history.
    """
    now, begun = now or timezone.now(), time.perf_counter()
    columns = ("key", "weight", "generation", "changed_at", "service__key", "week__number")
    flags = list(Flag.objects.order_by("key").values(*columns, "service__triggers", "week__triggers"))
    weeks = snapshots(Phase.START, now=now)
    families = [
        *_gateways(_plans(), flags),
        *_targets({flag["service__key"] for flag in flags} | {MONOLITH_TARGET}, _health(weeks)),
        *_lateness(),
        *_weeks(weeks, now),
        *_triggers(flags, now),
        *_downtime(now),
        *_traffic(),
        *_audit(audit.read()),
    ]
    seconds = time.perf_counter() - begun
    return [*families, gauge("scrape_duration_seconds", "How long reading the database for this took.", seconds)]


def gauge(name: str, told: str, value: float | None = None, labels: Sequence[str] = ()) -> GaugeMetricFamily:
    """A family with one value, or one that takes values by `labels`."""
    if value is not None:
        return GaugeMetricFamily(f"switchyard_{name}", told, value=value)
    return GaugeMetricFamily(f"switchyard_{name}", told, labels=labels)


def counter(name: str, told: str, labels: Sequence[str] = ()) -> CounterMetricFamily:
    """A family of numbers that only grow; `_total` is put behind its name."""
    return CounterMetricFamily(f"switchyard_{name}", told, labels=labels)


def _plans() -> Rows:
    """A row for each gateway of the plan, at least one for the plan; its gateway columns are null then."""
    columns = ("key", "observed_generation", "observed_weights", "observed_at", "error", "failing_over")
    applied = ("last_applied_at", "last_apply_ms")
    rows = Plan.objects.order_by("gateways__key")
    return list(rows.values("generation", "revision", *(f"gateways__{name}" for name in (*columns, *applied))))


def _gateways(plans: Rows, flags: Rows) -> Iterator[Metric]:
    generation = gauge("plan_generation", "Generation of the routing table that is wanted.")
    revision = gauge("plan_revision", "Revision of the plan; it grows with each load that changed something.")
    for plan in plans[:1]:
        generation.add_metric((), plan["generation"])
        revision.add_metric((), plan["revision"])
    away = gauge("failing_over", "1 while the monolith answers in the service's place.", labels=["service", "gateway"])
    up = gauge("gateway_up", "1 when the gateway answered the last look at it.", labels=["gateway"])
    failing = gauge("gateway_error", "1 when the last pass over the gateway ended with an error.", labels=["gateway"])
    looked = gauge("gateway_observed_timestamp_seconds", "When the gateway was last looked at.", labels=["gateway"])
    observed = gauge("gateway_observed_generation", "Generation that the gateway runs.", labels=["gateway"])
    lag = gauge("gateway_generation_lag", "Generations that the gateway is behind the plan.", labels=["gateway"])
    applied = gauge("gateway_last_apply_timestamp_seconds", "When a change was last applied.", labels=["gateway"])
    took = gauge("gateway_last_apply_duration_seconds", "How long the last apply took.", labels=["gateway"])
    runs = gauge("flag_observed_weight_ratio", "Weight that the gateway runs.", labels=["flag", "service", "gateway"])
    for row in plans:
        if row["gateways__key"] is None:
            continue
        label = (row["gateways__key"],)
        answers = row["gateways__observed_generation"] is not None
        up.add_metric(label, answers)
        for service in sorted({flag["service__key"] for flag in flags} if answers else ()):
            away.add_metric((service, *label), service in row["gateways__failing_over"])
        failing.add_metric(label, bool(row["gateways__error"]))
        if row["gateways__observed_at"]:
            looked.add_metric(label, row["gateways__observed_at"].timestamp())
        if row["gateways__last_applied_at"]:
            applied.add_metric(label, row["gateways__last_applied_at"].timestamp())
            took.add_metric(label, row["gateways__last_apply_ms"] / 1000)
        if answers:
            observed.add_metric(label, row["gateways__observed_generation"])
            lag.add_metric(label, row["generation"] - row["gateways__observed_generation"])
            for flag in flags:
                if (weight := row["gateways__observed_weights"].get(flag["key"])) is not None:
                    runs.add_metric((flag["key"], flag["service__key"], *label), weight / 100)
    wanted = gauge("flag_desired_weight_ratio", "Weight that is wanted.", labels=["flag", "service", "week"])
    for flag in flags:
        wanted.add_metric((flag["key"], flag["service__key"], str(flag["week__number"])), flag["weight"] / 100)
    yield from (generation, revision, away, up, failing, looked, observed, lag, applied, took, wanted, runs)


def _health(weeks: Mapping[int, Snapshot]) -> Mapping[str, SeenService]:
    """The health that the gates go by: a state that no poll has confirmed for a while is unknown."""
    return next(iter(weeks.values())).health if weeks else {}


def _triggers(flags: Rows, now: datetime) -> Iterator[Metric]:
    """Of what is on. One that was not looked at lately, or not since its weight was changed, is unknown."""
    subject = ["subject", "trigger"]
    breached = gauge("trigger_breached", "1 while what the trigger watches is past its limit.", labels=subject)
    unknown = gauge("trigger_unknown", "1 while nobody can tell.", labels=subject)
    told = "When the trigger was last looked at; if not since its weight was changed, when that was."
    looked = gauge("trigger_judged_timestamp_seconds", told, labels=subject)
    states = {
        (f"week {state.week.number}" if state.week else state.flag.key if state.flag else "", state.key): state
        for state in TriggerState.objects.select_related("flag", "week")
    }
    on: dict[str, list[Mapping[str, Any]]] = {}
    for flag in flags:
        for name in (flag["key"], f"week {flag['week__number']}") if flag["weight"] else ():
            on.setdefault(name, []).append(flag)
    for name, rows in on.items():
        newest = max(rows, key=lambda row: row["generation"])
        for trigger in newest["service__triggers" if name == newest["key"] else "week__triggers"]:
            label = name, str(trigger.get("key", ""))
            state = states.get(label)
            current = state if state and state.generation == newest["generation"] else None
            found = current.state if current and not not_looked_at(current.judged_at, now) else Breach.NO_DATA
            breached.add_metric(label, found == Breach.BREACHED)
            unknown.add_metric(label, found == Breach.NO_DATA)
            if at := current.judged_at if current else newest["changed_at"]:
                looked.add_metric(label, at.timestamp())
    yield from (breached, unknown, looked)


def _targets(of_plan: set[str], health: Mapping[str, SeenService]) -> Iterator[Metric]:
    state = gauge(
        "target_state", "1 for the state that the target is in, 0 for the others.", labels=["target", "state"]
    )
    healthy = gauge("targets", "Targets in this state: the monolith and the services.", labels=["state"])
    polled = gauge("target_last_poll_timestamp_seconds", "When the target was last polled.", labels=["target"])
    took = gauge("target_last_poll_duration_seconds", "How long the last answered poll took.", labels=["target"])
    of_target = counter("target_polls", "Polls of the target that were stored.", labels=["target"])
    failed = counter("target_polls_failed", "Of those, the ones that it failed.", labels=["target"])
    totals: Counter[str] = Counter()
    for target in sorted(of_plan & health.keys()):
        totals[health[target].state] += 1
        for one in Health:
            state.add_metric((target, one.value), health[target].state == one)
    for one in Health:
        healthy.add_metric((one.value,), totals[one])
    for row in HealthState.objects.filter(target__in=of_plan).order_by("target"):
        polled.add_metric((row.target,), row.polled_at.timestamp())
        of_target.add_metric((row.target,), row.polls)
        failed.add_metric((row.target,), row.failed)
        if row.milliseconds is not None:
            took.add_metric((row.target,), row.milliseconds / 1000)
    polls = counter("polls", "Polls stored, by their own numbering: those of a write that failed are in it too.")
    if (number := _polls()) is not None:
        polls.add_metric((), number)
    yield from (state, healthy, polled, took, of_target, failed, polls)


def _lateness() -> Iterator[Metric]:
    row = PollLateness.objects.first() or PollLateness(late=NO_LATENESS, seconds=0, skipped=0)
    so_far = list(accumulate(row.late))
    bounds = [*(str(bound) for bound in LATE_BOUNDS), "+Inf"]
    told = "How long after they were due polls began."
    late = HistogramMetricFamily("switchyard_poll_lateness_seconds", told)
    late.add_metric((), buckets=list(zip(bounds, so_far, strict=True)), sum_value=row.seconds)
    skipped = counter("polls_skipped", "Polls not begun, because the last one of their target was still out.")
    skipped.add_metric((), row.skipped)
    yield from (late, skipped)


def _polls() -> int | None:
    """The last number that a poll was given. Old polls are dropped, and their numbers are never given again."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT coalesce(pg_sequence_last_value(numbering.objid), 0)
            FROM pg_depend AS numbering
            JOIN pg_attribute AS of ON of.attrelid = numbering.refobjid AND of.attnum = numbering.refobjsubid
            JOIN pg_class AS sequence ON sequence.oid = numbering.objid AND sequence.relkind = 'S'
            WHERE numbering.classid = 'pg_class'::regclass AND numbering.refobjid = %s::regclass AND of.attname = 'id'
            """,
            [HealthSample._meta.db_table],
        )
        found = cursor.fetchone()
    return int(found[0]) if found else None


def _weeks(weeks: Mapping[int, Snapshot], now: datetime) -> Iterator[Metric]:
    opened = gauge("gate_open", "1 when the gate of the week is open: it could be enabled now.", labels=["week"])
    needed = gauge("gate_lines", "Lines of the gate, by what they rest on.", labels=["week", "kind"])
    held = gauge("gate_lines_held", "Lines of the gate that hold.", labels=["week", "kind"])
    glass = gauge("gate_overridden", "1 while somebody has overridden the gate.", labels=["week"])
    status = gauge("week_status", "1 for the status that the week has, 0 for the others.", labels=["week", "status"])
    soak = gauge("week_soak_remaining_seconds", "Left of the soak of a week that soaks.", labels=["week"])
    for number, snapshot in sorted(weeks.items()):
        week, verdict = str(number), judge(snapshot, INSTANT)
        opened.add_metric((week,), verdict.open)
        glass.add_metric((week,), bool(verdict.override))
        of_kind = Counter(line.kind for line in verdict.lines)
        holding = Counter(line.kind for line in verdict.lines if line.held)
        for kind in sorted(of_kind):
            needed.add_metric((week, kind.value), of_kind[kind])
            held.add_metric((week, kind.value), holding[kind])
        if snapshot.own is None:
            continue
        for one in WeekStatus:
            status.add_metric((week, one.value), snapshot.own.status == one)
        if snapshot.own.status == WeekStatus.SOAKING:
            soak.add_metric((week,), _left(snapshot.own, now).total_seconds())
    frozen = len(next(iter(weeks.values())).freezes) if weeks else 0
    waiting = ApprovalRequest.objects.filter(closed_at__isnull=True, spent_at__isnull=True, expires_at__gt=now).count()
    yield from (opened, needed, held, glass, status, soak)
    yield gauge("freezes_active", "Freezes that are on now.", frozen)
    yield gauge("approval_requests_open", "Requests for approval not yet used, closed or expired.", waiting)


def _left(week: SeenWeek, now: datetime) -> timedelta:
    """All of it while the clock stands still."""
    until = week.soaks_until()
    return week.soak if until is None else max(until - now, timedelta(0))


def _downtime(now: datetime) -> Iterator[Metric]:
    """Of weeks that have begun; what is allowed of all that have a target."""
    down = gauge(
        "week_downtime_seconds", "How long services of the week were down, since its first move.", labels=["week"]
    )
    limit = gauge("week_downtime_limit_seconds", "How long they may be; 0: never.", labels=["week"])
    unknown = gauge("week_downtime_unknown_seconds", "Of that time, what nobody can tell of.", labels=["week"])
    rows = Week.objects.exclude(downtime_clock__isnull=True, downtime_under__isnull=True)
    for row in rows.select_related("downtime_clock"):
        label, clock = (str(row.number),), getattr(row, "downtime_clock", None)
        if row.downtime_under is not None:
            limit.add_metric(label, row.downtime_under.total_seconds())
        if clock is not None:
            down.add_metric(label, clock.down.total_seconds())
            unknown.add_metric(label, clock.not_known_at(now).total_seconds())
    yield from (down, limit, unknown)


def _traffic() -> Iterator[Metric]:
    """What no route matches has no service."""
    families = {
        column: counter(name, told, labels=["service", "side", "gateway"])
        for column, name, told in (
            (
                "requests",
                "requests",
                "Requests that the gateway sent to a side of a service, by its own counters: its restart resets them.",
            ),
            ("errors", "request_errors", "Of those, answered by 5xx or not at all."),
            ("client_errors", "request_client_errors", "Of those, answered by 4xx."),
            ("retries", "request_retries", "Of those, sent a second time."),
            ("failovers", "request_failovers", "Of those meant for the new side, answered by the monolith instead."),
            ("failed_failovers", "request_failed_failovers", "Of those, answered by 5xx or not at all there too."),
        )
    }
    rows = TrafficCounter.objects.order_by("service__key", "side", "gateway__key")
    for service, side, gateway, *counts in rows.values_list("service__key", "side", "gateway__key", *families):
        for family, count in zip(families.values(), counts, strict=True):
            if count is not None:
                family.add_metric((service or "", side, gateway), count)
    yield from families.values()


def _audit(reading: AuditReading) -> Iterator[Metric]:
    told = "1 when the newest audit events follow from one another, unaltered."
    yield gauge("audit_tail_intact", told, reading.intact)
    if (counts := reading.counts) is None:
        return
    events = counter("audit_events", "Events of the audit log, by kind.", labels=["kind"])
    for kind in sorted({*(one.value for one in AuditKind), *counts}):
        events.add_metric((kind,), counts.get(kind, 0))
    yield events
    for name, told, label, kinds in (
        ("rollbacks", "Rollbacks: of everything, of a week, of one service.", "scope", ROLLBACKS),
        ("enables", "Changes through a gate: of a week, of one service, to a weight.", "scope", ENABLES),
        ("refusals", "Refusals: by a gate, to call a week done, for want of a permission.", "by", REFUSALS),
    ):
        family = counter(name, told, labels=[label])
        for one, word in kinds.items():
            family.add_metric((word,), counts.get(one.value, 0))
        yield family
