"""`manage.py history generate`: an invented past, for measuring pages and for demonstrations. Never in production.

Exit status: 0 done; 1 the database does not answer, or has a history already.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from migrations_app.management.base import database_told
from migrations_app.models import Service
from migrations_app.models.health import MONOLITH_TARGET
from migrations_app.observe.invented import HasHistory, invent


class Command(BaseCommand):
    help = "Write an invented history of health and traffic."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
        generate = verbs.add_parser("generate", help="write it, as if every service had been polled each second")
        generate.add_argument("--days", type=int, default=90, help="how far back (default: 90)")
        generate.add_argument(
            "--services",
            type=int,
            default=0,
            help="how many: the plan's first, then made-up ones (default: the plan's)",
        )
        generate.add_argument(
            "--minute-days", type=int, default=settings.MINUTE_DAYS, help="by the minute, the last so many days"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        if settings.PRODUCTION:
            raise CommandError("No history is invented in production.")
        if options["days"] < 1:
            raise CommandError("--days must be at least 1.", returncode=2)
        with database_told(lost="What is invented so far may stay."):
            targets = _targets(options["services"])
            try:
                invent(targets, options["days"], options["minute_days"], timezone.now(), self._tell)
            except HasHistory as refusal:
                raise CommandError("This database has a history already. Nothing was changed.") from refusal
        self.stdout.write(f"Invented {options['days']} days of {len(targets) - 1} services and the monolith.")

    def _tell(self, what: str) -> None:
        self.stderr.write(what)


def _targets(wanted: int) -> list[str]:
    """The monolith, and so many services; 0 is those of the plan."""
    keys = list(Service.objects.order_by("position", "key").values_list("key", flat=True))
    made_up = [f"invented-{number:03}" for number in range(1, wanted - len(keys) + 1)]
    return [MONOLITH_TARGET, *(keys + made_up)[: wanted or None]]
