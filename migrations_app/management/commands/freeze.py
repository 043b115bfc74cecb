"""`manage.py freeze add TITLE|list|lift ID`."""

from __future__ import annotations

from datetime import datetime, time
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.utils import timezone

from migrations_app.actions.freezes import add_freeze, lift_freeze
from migrations_app.errors import Invalid
from migrations_app.gates.freezes import span_at
from migrations_app.management.base import ActionCommand, Options
from migrations_app.models import Freeze, Plan

DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class Command(ActionCommand):
    help = "Add, list and lift freezes: times in which nothing is enabled. Rolling back is never frozen."

    def add_verbs(self) -> None:
        parser = self.verb("add", self.add, "freeze once, from a date to a date, or every week on --weekdays")
        parser.add_argument("title", metavar="TITLE", help="what it is for, as everybody will read it")
        parser.add_argument("--from", dest="begin", required=True, help="2026-12-20T18:00, or 18:00 with --weekdays")
        parser.add_argument("--until", dest="end", required=True, help="as --from; an earlier time is the next day's")
        parser.add_argument("--weekdays", default="", help="mon-fri, or sat,sun: the days on which it begins")
        parser.add_argument("--zone", default="", help="of these times, such as Europe/Berlin (default: the plan's)")
        parser = self.verb("list", self.list, "the freezes that are on or to come")
        parser.add_argument("--all", action="store_true", help="with those that are over or lifted")
        parser = self.verb("lift", self.lift, "end a freeze for good")
        parser.add_argument("id", type=int, metavar="ID")

    def add(self, options: Options) -> None:
        times: dict[str, Any]
        if options["weekdays"]:
            times = {
                "weekdays": _weekdays(options["weekdays"]),
                "from_time": _time("--from", options["begin"]),
                "until_time": _time("--until", options["end"]),
            }
        else:
            zone = _zone(options["zone"])
            times = {
                "starts_at": _moment("--from", options["begin"], zone),
                "ends_at": _moment("--until", options["end"], zone),
            }
        change = add_freeze(
            title=options["title"],
            actor=self.actor(options),
            timezone=options["zone"],
            reason=options["reason"],
            **times,
        )
        self.finish(options, change, f"The freeze “{change.title}” is set", moves_traffic=False)

    def list(self, options: Options) -> None:
        now = timezone.now()
        rows = [_row(freeze, now) for freeze in Freeze.objects.all()]
        if not options["all"]:
            rows = [row for row in rows if row["state"] not in ("over", "lifted")]
        columns = ["id", "title", "state", "when", "timezone", "until", "added_by"]
        self.table(options, rows, columns, "Nothing is frozen, now or later.")

    def lift(self, options: Options) -> None:
        change = lift_freeze(freeze_id=options["id"], actor=self.actor(options), reason=options["reason"])
        self.finish(options, change, f"The freeze “{change.title}” is lifted", moves_traffic=False)


def _row(freeze: Freeze, now: datetime) -> dict[str, Any]:
    span = span_at(freeze, now)
    if freeze.lifted_at is not None:
        state = "lifted"
    elif span is not None:
        state = "on"
    else:
        state = "over" if freeze.ends_at is not None and freeze.ends_at <= now else "to come"
    return {
        "id": freeze.pk,
        "title": freeze.title,
        "state": state,
        "when": _when(freeze),
        "timezone": freeze.timezone,
        "since": span[0] if span else None,
        "until": span[1] if span else None,
        "added_by": freeze.added_by,
        "added_at": freeze.added_at,
        "lifted_by": freeze.lifted_by,
        "lifted_at": freeze.lifted_at,
    }


def _when(freeze: Freeze) -> str:
    if freeze.starts_at is not None and freeze.ends_at is not None:
        zone = ZoneInfo(freeze.timezone)
        begin, end = (f"{moment.astimezone(zone):%Y-%m-%d %H:%M}" for moment in (freeze.starts_at, freeze.ends_at))
        return f"{begin} to {end}"
    days = ",".join(DAYS[int(digit) - 1] for digit in freeze.weekdays)
    return f"{days} {freeze.from_time:%H:%M} to {freeze.until_time:%H:%M}"


def _weekdays(typed: str) -> str:
    """`mon-fri,sun` -> `123457`; `sat-mon` goes round the end of the week. Digits are taken as they are."""
    if typed.isdecimal():
        return typed
    found: set[int] = set()
    for part in typed.lower().replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if first not in DAYS or last not in DAYS:
            raise Invalid(f"--weekdays: {typed} are no days; write mon-fri, or sat,sun.")
        begin = DAYS.index(first)
        length = (DAYS.index(last) - begin) % 7
        found |= {(begin + step) % 7 + 1 for step in range(length + 1)}
    return "".join(str(day) for day in sorted(found))


def _time(option: str, typed: str) -> time:
    try:
        return time.fromisoformat(typed)
    except ValueError:
        raise Invalid(f"{option}: {typed} is no time of day; with --weekdays write one such as 18:00.") from None


def _moment(option: str, typed: str, zone: ZoneInfo) -> datetime:
    """A date and time of that zone, unless it names an offset of its own."""
    try:
        moment = datetime.fromisoformat(typed)
    except ValueError:
        raise Invalid(f"{option}: {typed} is no date and time; write one such as 2026-12-20T18:00.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=zone)


def _zone(typed: str) -> ZoneInfo:
    """The one that is named, or the plan's; what is wrong with it is for the action to say."""
    plan = Plan.objects.first()
    try:
        return ZoneInfo(typed or (plan.timezone if plan else "UTC"))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")
