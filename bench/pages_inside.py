"""What `bench.pages` runs inside Django, on the database of DATABASE_URL: `make` fills it, `measure` reads it."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta

import django

from bench.figures import finish, percentile, rounded, say

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
django.setup()

from django.conf import settings  # noqa: E402
from django.contrib.auth.models import Group, User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import CaptureQueriesContext  # noqa: E402
from django.utils import timezone  # noqa: E402

from bench.processes import PLAN  # noqa: E402
from controlplane.garbage import settle  # noqa: E402
from migrations_app.actor import SYSTEM  # noqa: E402
from migrations_app.gateways.base import NO_LATENCY, Side, SideTraffic  # noqa: E402
from migrations_app.models import HealthState, Service  # noqa: E402
from migrations_app.observe import history, invented, uptime  # noqa: E402
from migrations_app.observe.lately import lately  # noqa: E402
from migrations_app.observe.rollups import HEALTH, TRAFFIC, roll_up  # noqa: E402
from migrations_app.observe.traffic import store  # noqa: E402
from migrations_app.planfile.load import load_plan  # noqa: E402
from migrations_app.planfile.reader import read_path  # noqa: E402
from migrations_app.planfile.schema import Plan  # noqa: E402
from migrations_app.reconcile.loop import reconcile_all  # noqa: E402

# No page reads the chain of digests, so these are not computed over what the events say.
EVENTS = """
INSERT INTO migrations_app_auditevent (at, kind, actor, actor_kind, subject, week_number, reason, before, after,
    generation, previous_digest, digest)
SELECT %(until)s::timestamptz - (%(count)s - n) * (%(days)s * interval '1 day' / %(count)s),
    (ARRAY['prerequisite.ticked', 'gate.refused', 'prerequisite.unticked', 'approval.requested'])[1 + n %% 4],
    'release-manager', 'account', 'week ' || 1 + n %% 6, 1 + n %% 6, 'invented', '{}', '{}', NULL,
    CASE n WHEN 1 THEN (SELECT digest FROM migrations_app_auditevent ORDER BY id DESC LIMIT 1)
        ELSE encode(sha256((n - 1)::text::bytea), 'hex') END,
    encode(sha256(n::text::bytea), 'hex')
FROM generate_series(1, %(count)s) AS n
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.pages_inside")
    verbs = parser.add_subparsers(dest="verb", required=True)
    make = verbs.add_parser("make")
    for name in ("services", "days", "minute-days", "events"):
        make.add_argument(f"--{name}", type=int, required=True)
    verbs.add_parser("measure").add_argument("--loads", type=int, required=True)
    chosen = parser.parse_args(arguments)
    if chosen.verb == "make":
        finish(fill(chosen.services, chosen.days, chosen.minute_days, chosen.events))
    else:
        finish({"pages": pages(chosen.loads), "reads_ms": reads(chosen.loads)} | writes())
    return 0


def plan_of(services: int) -> Plan:
    """The shipped plan on the in-memory gateway, with services added to it, spread over its weeks."""
    plan = read_path(PLAN)
    first = plan.services[0]
    more = [
        first.model_copy(
            update={
                "key": f"part-{number:03}",
                "title": f"Part {number}",
                "flag": f"USE_PART_{number:03}",
                "routes": (f"/api/part-{number:03}",),
            }
        )
        for number in range(1, services - len(plan.services) + 1)
    ]
    weeks = [
        week.model_copy(update={"flags": (*week.flags, *(one.flag for one in more[place :: len(plan.weeks)]))})
        for place, week in enumerate(plan.weeks)
    ]
    gateway = plan.gateway.model_copy(update={"adapter": "memory"})
    return plan.model_copy(update={"services": (*plan.services, *more), "weeks": tuple(weeks), "gateway": gateway})


def fill(services: int, days: int, minute_days: int, events: int) -> dict[str, object]:
    """Everything but the measuring. What a service and a day of it take on disk, in bytes, indexes included."""
    call_command("migrate", verbosity=0)
    load_plan(plan_of(services), actor=SYSTEM, reason="for a benchmark")
    reconcile_all()
    User.objects.create_user("bench").groups.set(Group.objects.all())
    begun = time.monotonic()
    targets = ["monolith", *Service.objects.values_list("key", flat=True)]
    invented.invent(targets, days, minute_days, timezone.now())
    say(f"history: {time.monotonic() - begun:.0f} s")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        cursor.execute(EVENTS, {"count": events, "days": days, "until": timezone.now()})
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        cursor.execute("VACUUM ANALYZE")
    return {"bytes_per_service_and_day": sizes(len(targets))}


def sizes(targets: int) -> dict[str, float | None]:
    """Of each table, from the whole of it: what one target, and both sides of its traffic, take in a day."""
    found = {}
    with connection.cursor() as cursor:
        for table, days in (
            ("healthsample", "count(DISTINCT date_trunc('minute', polled_at)) / 1440.0"),
            ("healthminute", "count(DISTINCT bucket) / 1440.0"),
            ("healthhour", "count(DISTINCT bucket) / 24.0"),
            ("healthday", "count(DISTINCT bucket)"),
            ("trafficminute", "count(DISTINCT bucket) / 1440.0"),
            ("traffichour", "count(DISTINCT bucket) / 24.0"),
            ("trafficday", "count(DISTINCT bucket)"),
        ):
            cursor.execute(f"SELECT {days} FROM migrations_app_{table}")
            (whole_days,) = cursor.fetchone()
            cursor.execute(
                "SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree(%s)", [f"migrations_app_{table}"]
            )
            (size,) = cursor.fetchone()
            if size is None:
                cursor.execute("SELECT pg_total_relation_size(%s)", [f"migrations_app_{table}"])
                (size,) = cursor.fetchone()
            found[table] = rounded(float(size) / float(whole_days) / targets)
    return found


def pages(loads: int) -> dict[str, dict[str, object]]:
    """Milliseconds of the server, those of its own processor (`cpu`), and queries, of each page."""
    now = timezone.now()
    services = list(Service.objects.values_list("key", flat=True))
    for second in range(60, 0, -1):
        observe(services, now - timedelta(seconds=second))
    client = Client()
    client.force_login(User.objects.get(username="bench"))
    key = Service.objects.order_by("-position").values_list("key", flat=True)[0]
    paths = {
        "timeline": "/",
        "overview": "/services/",
        "service": f"/services/{key}/",
        "week": "/weeks/1/",
        "gateway": "/gateway/",
        "status": "/status/",
    }
    observe(services, timezone.now())
    found: dict[str, dict[str, object]] = {}
    times: dict[str, list[float]] = {name: [] for name in paths}
    busy: dict[str, list[float]] = {name: [] for name in paths}
    for name, path in paths.items():
        with CaptureQueriesContext(connection) as captured:
            answer = client.get(path)
        if answer.status_code != 200:
            raise SystemExit(f"{path} answers {answer.status_code}")
        found[name] = {"queries": len(captured), "bytes": len(answer.content)}
    settle()  # as the server does when it has started
    for _ in range(loads):
        observe(services, timezone.now())
        for name, path in paths.items():
            begun = time.process_time()
            times[name].append(milliseconds(lambda path=path: client.get(path)))
            busy[name].append((time.process_time() - begun) * 1000)
    for name, each in times.items():
        found[name] |= {
            "p50_ms": rounded(percentile(each, 0.5)),
            "p95_ms": rounded(percentile(each, 0.95)),
            "cpu_p50_ms": rounded(percentile(busy[name], 0.5)),
        }
    return found


def observe(services: list[str], now: datetime) -> None:
    """What the workers do each second: every target was polled, and both sides of every service had requests."""
    HealthState.objects.update(polled_at=now)
    sides = [("", Side.MONOLITH), *((key, side) for key in services for side in Side)]
    counted = round(now.timestamp() * 20)  # of each side, since the gateway started
    spread = (counted, *NO_LATENCY[1:])
    store({side: SideTraffic(counted, counted // 1000, spread) for side in sides}, now)


def reads(loads: int) -> dict[str, float | None]:
    """Median milliseconds of what pages read of the past, each one query."""
    now = timezone.now()
    key = Service.objects.order_by("-position").values_list("key", flat=True)[0]
    day, quarter = now - timedelta(days=1), now - timedelta(days=90)
    wanted: dict[str, Callable[[], object]] = {
        "chart_24h": lambda: history.latency_series(key, None, day, now, points=288),
        "chart_24h_of_a_side": lambda: history.latency_series(key, Side.SERVICE, day, now, points=288),
        "chart_90d": lambda: history.latency_series(key, None, quarter, now),
        "bars_90d": lambda: history.bars(key),
        "changes": lambda: history.changes(key),
        "lately": lambda: lately(key, now),
        "overview": history.summaries,
    }
    return {
        name: rounded(percentile([milliseconds(read) for _ in range(max(5, loads // 4))], 0.5))
        for name, read in wanted.items()
    }


def writes() -> dict[str, object]:
    """What keeping it up to date costs: the writing of the overview, and the rollup of a minute of polls."""
    connection.ensure_connection()
    now = timezone.now().replace(second=0, microsecond=0) + timedelta(minutes=1)
    invented_minutes = timedelta(minutes=3)
    targets = ["monolith", *Service.objects.values_list("key", flat=True)]
    roll_up(HEALTH, now, within=60)
    roll_up(TRAFFIC, now, within=60)
    invented.add_samples(targets, now, now + invented_minutes)
    sums = [
        milliseconds(lambda at=now + timedelta(minutes=number): roll_up(HEALTH, at, within=60)) for number in (1, 2, 3)
    ]
    summary = [milliseconds(lambda: uptime.refresh_summaries(now)) for _ in range(3)]
    return {
        "rollup_of_a_minute_ms": rounded(percentile(sums, 0.5)),
        "summaries_ms": rounded(percentile(summary, 0.5)),
        "kept": {"minute_days": settings.MINUTE_DAYS, "hour_days": settings.HOUR_DAYS},
    }


def milliseconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


if __name__ == "__main__":
    sys.exit(main())
