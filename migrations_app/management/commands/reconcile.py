"""`manage.py reconcile`: one pass of the loop by hand, for when the workers are away."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand

from migrations_app.actions.pins import settle_passes
from migrations_app.management.base import Exit, database_told
from migrations_app.reconcile.loop import reconcile_all


class Command(BaseCommand):
    help = "Bring every gateway to the desired routing table now, without Celery and Redis."

    def handle(self, *_args: Any, **_options: Any) -> None:
        with database_told():
            passes = reconcile_all()
            if settle_passes(passes):
                passes = reconcile_all()
        if not passes:
            self.stdout.write("No plan is loaded, so there is no gateway.")
        for done in passes:
            if done.error:
                self.stderr.write(f"Gateway {done.gateway}: generation {done.generation} is not in force. {done.error}")
            else:
                self.stdout.write(f"Gateway {done.gateway} runs generation {done.generation}.")
        if any(done.error for done in passes):
            sys.exit(Exit.UNCONFIRMED)
