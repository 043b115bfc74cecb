"""`manage.py maintenance plan TITLE|list|end ID`."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.utils import timezone

from migrations_app.actions.maintenance import end_window, plan_window
from migrations_app.errors import Invalid
from migrations_app.management.base import ActionCommand, Options
from migrations_app.models import MaintenanceWindow, Plan, Service
from migrations_app.models.health import MONOLITH_TARGET


class Command(ActionCommand):
    help = "Plan, list and end maintenance windows: times in which polls count neither for nor against uptime."

    def add_verbs(self) -> None:
        parser = self.verb("plan", self.plan, "announce maintenance from a date to a date; it stops no traffic")
        parser.add_argument("title", metavar="TITLE", help="what is being done, as everybody will read it")
        parser.add_argument("--from", dest="begin", default="", help="2026-12-20T18:00 (default: now)")
        parser.add_argument("--until", dest="end", required=True, help="2026-12-20T20:00")
        parser.add_argument("--zone", default="", help="of these times, such as Europe/Berlin (default: the plan's)")
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument(
            "--target",
            dest="targets",
            action="append",
            metavar="KEY",
            help="a service, or “monolith”; as often as needed",
        )
        which.add_argument("--everything", action="store_true", help="the monolith and every service of the plan")
        parser = self.verb("list", self.list, "the windows that are on or to come")
        parser.add_argument("--all", action="store_true", help="with those that are over or cancelled")
        parser = self.verb("end", self.end, "end a window now, or cancel it before it begins")
        parser.add_argument("id", type=int, metavar="ID")

    def plan(self, options: Options) -> None:
        zone = _zone(options["zone"])
        change = plan_window(
            title=options["title"],
            targets=_every_target() if options["everything"] else options["targets"],
            starts_at=_moment("--from", options["begin"], zone) if options["begin"] else None,
            ends_at=_moment("--until", options["end"], zone),
            actor=self.actor(options),
            reason=options["reason"],
        )
        self.finish(options, change, f"The maintenance “{change.title}” is planned", moves_traffic=False)

    def list(self, options: Options) -> None:
        now = timezone.now()
        rows = [_row(window, now) for window in MaintenanceWindow.objects.all()]
        if not options["all"]:
            rows = [row for row in rows if row["state"] in ("on", "to come")]
        columns = ["id", "title", "state", "starts_at", "until", "targets", "planned_by"]
        self.table(options, rows, columns, "No maintenance is planned, now or later.")

    def end(self, options: Options) -> None:
        change = end_window(window_id=options["id"], actor=self.actor(options), reason=options["reason"])
        cancelled = MaintenanceWindow.objects.get(pk=options["id"]).cancelled
        what = "cancelled" if cancelled else "ended"
        self.finish(options, change, f"The maintenance “{change.title}” is {what}", moves_traffic=False)


def _row(window: MaintenanceWindow, now: datetime) -> dict[str, Any]:
    if window.cancelled:
        state = "cancelled"
    elif window.covers(now):
        state = "on"
    else:
        state = "to come" if now < window.starts_at else "over"
    return {
        "id": window.pk,
        "title": window.title,
        "state": state,
        "starts_at": window.starts_at,
        "ends_at": window.ends_at,
        "until": window.until,
        "targets": window.targets,
        "planned_by": window.planned_by,
        "planned_at": window.planned_at,
        "ended_by": window.ended_by,
        "ended_at": window.ended_at,
    }


def _every_target() -> list[str]:
    return [MONOLITH_TARGET, *Service.objects.values_list("key", flat=True)]


def _moment(option: str, typed: str, zone: ZoneInfo) -> datetime:
    """A date and time of that zone, unless it names an offset of its own."""
    try:
        moment = datetime.fromisoformat(typed)
    except ValueError:
        raise Invalid(f"{option}: {typed} is no date and time; write one such as 2026-12-20T18:00.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=zone)


def _zone(typed: str) -> ZoneInfo:
    plan = Plan.objects.first()
    try:
        return ZoneInfo(typed or (plan.timezone if plan else "UTC"))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Invalid(f"--zone: {typed} is no time zone; one such as Europe/Berlin.") from None
