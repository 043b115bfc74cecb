"""`manage.py reconcile`: one pass of the loop by hand, for when the workers are away."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from migrations_app.actions.pins import settle_passes
from migrations_app.management.base import Exit, database_told
from migrations_app.models import Gateway
from migrations_app.reconcile.loop import Pass, reconcile_all


class Command(BaseCommand):
    help = "Bring every gateway, or one, to the desired routing table now, without Celery and Redis."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--gateway", default="", metavar="KEY", help="only this one")

    def handle(self, *_args: Any, **options: Any) -> None:
        with database_told():
            passes = _passes(options["gateway"])
            if settle_passes(passes):
                passes = _passes(options["gateway"])
        if not passes:
            self.stdout.write("No plan is loaded, so there is no gateway.")
        for done in passes:
            if done.error:
                self.stderr.write(f"Gateway {done.gateway}: generation {done.generation} is not in force. {done.error}")
            else:
                self.stdout.write(f"Gateway {done.gateway} runs generation {done.generation}.")
        if any(done.error for done in passes):
            sys.exit(Exit.UNCONFIRMED)


def _passes(only: str) -> list[Pass]:
    known = list(Gateway.objects.values_list("key", flat=True)) if only else []
    if only and known and only not in known:
        raise CommandError(f"There is no gateway {only}; the plan has {', '.join(known)}.", returncode=Exit.USAGE)
    return reconcile_all(only=only)
