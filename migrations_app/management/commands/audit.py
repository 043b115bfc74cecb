"""`manage.py audit list|verify|reason EVENT TEXT`."""

from __future__ import annotations

import sys

from migrations_app.actions.reasons import give_reason
from migrations_app.management.base import ActionCommand, Options, one_line, text
from migrations_app.models import AuditEvent
from migrations_app.models.audit import check_chain
from migrations_app.models.gateways import verified_at


class Command(ActionCommand):
    help = "Read the audit log, check that nobody has altered it, say afterwards why something was rolled back."

    def add_verbs(self) -> None:
        parser = self.verb("list", self.list, "the newest events first")
        parser.add_argument("--limit", type=int, default=50, help="how many at most (default: 50)")
        parser.add_argument("--week", type=int, help="of this week only")
        parser.add_argument("--kind", default="", help="of this kind only, as week.enabled")
        parser = self.verb(
            "verify", self.verify, "walk the chain; exit status 1 when an event was altered or is missing"
        )
        parser.add_argument(
            "--head", default="", metavar="DIGEST", help="one that was printed before must be in it still"
        )
        parser = self.verb("reason", self.reason, "say why, of a rollback that was made without a reason")
        parser.add_argument("event", type=int, metavar="EVENT", help="number of the rollback's event")
        parser.add_argument("text", metavar="TEXT", type=text, help="why; kept in the audit log")

    def list(self, options: Options) -> None:
        events = AuditEvent.objects.order_by("-id")
        if options["week"] is not None:
            events = events.filter(week_number=options["week"])
        if options["kind"]:
            events = events.filter(kind=options["kind"])
        if options["actor"]:
            events = events.filter(actor=options["actor"])
        chosen = list(events[: max(options["limit"], 0)])
        verified = verified_at([event.generation for event in chosen if event.generation is not None])
        rows = [
            {
                "id": event.pk,
                "at": event.at,
                "kind": event.kind,
                "actor": event.actor,
                "actor_kind": event.actor_kind,
                "via": event.via,
                "subject": event.subject,
                "week": event.week_number,
                "before": event.before,
                "after": event.after,
                "reason": event.reason,
                "generation": event.generation,
                "verified_at": verified.get(event.generation) if event.generation is not None else None,
                "verdict": event.verdict,
            }
            for event in chosen
        ]
        columns = ["id", "at", "kind", "actor", "actor_kind", "via", "subject", "reason"]
        self.table(options, rows, columns, "The audit log is empty.")

    def reason(self, options: Options) -> None:
        change = give_reason(event=options["event"], reason=options["text"], actor=self.actor(options))
        self.finish(options, change, f"The reason is kept with event {options['event']}", moves_traffic=False)

    def verify(self, options: Options) -> None:
        check, kept = check_chain(), options["head"].strip().lower()
        missing = list(check.missing)
        if kept and check.broken_at is None and not AuditEvent.objects.filter(digest=kept).exists():
            missing.append(f"the event of the digest {kept}")
        intact = check.broken_at is None and not missing
        if options["json"]:
            found = {"broken_at": check.broken_at, "missing": missing, "head": check.head}
            self.emit({"events": check.rows, "intact": intact} | found)
        elif intact:
            self.say(f"{check.rows} events, the chain is intact. Its head: {check.head}")
        elif check.broken_at is None:
            self.stderr.write(one_line(f"{check.rows} events follow from one another, but not all are there. Missing:"))
            for one in missing:
                self.stderr.write(one_line(f"  - {one}"))
        else:
            self.stderr.write(f"The chain is broken at event {check.broken_at}: it, or the one before it, was altered.")
        if not intact:
            sys.exit(1)
