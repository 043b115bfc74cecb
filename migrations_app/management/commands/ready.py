"""`manage.py ready`: does everything that a person relies on answer?"""

from __future__ import annotations

import sys
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from migrations_app.choices import Health
from migrations_app.gates.rows import current_health
from migrations_app.gateways.errors import Unplaced
from migrations_app.management.base import database_told
from migrations_app.models import Gateway, Plan, Service
from migrations_app.models.gateways import SEEN_FOR
from migrations_app.models.health import MONOLITH_TARGET
from migrations_app.reconcile.adapters import adapter_for


class Command(BaseCommand):
    help = "Say what is missing until everything answers; exit status 0 when it does, 1 when time is up."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="keep looking for so long")

    def handle(self, *_args: Any, **options: Any) -> None:
        deadline = time.monotonic() + options["wait"]
        while missing := _missing():
            if time.monotonic() >= deadline:
                for sentence in missing:
                    self.stderr.write(sentence)
                sys.exit(1)
            time.sleep(0.1)
        self.stdout.write("Everything answers.")


def _missing() -> list[str]:
    with database_told(lost=""):
        return missing_parts()


def _unplaced(row: Gateway) -> str:
    """Why this process does not know where it runs; "" when it does."""
    try:
        adapter_for(row)
    except Unplaced as error:
        return str(error)
    return ""


def missing_parts() -> list[str]:
    """A sentence for each thing that does not answer: the plan, its gateways, the monolith and the services."""
    plan = Plan.objects.first()
    if plan is None:
        return ["No plan is loaded."]
    oldest = timezone.now() - SEEN_FOR
    gateways = list(Gateway.objects.all())
    unplaced = {row.key: why for row in gateways if (why := _unplaced(row))}
    missing = [
        f"Gateway {row.key} is not at generation {plan.generation}: {row.error or 'not observed yet'}"
        for row in gateways
        if row.key not in unplaced
        if row.error or row.observed_generation != plan.generation or not row.observed_at or row.observed_at < oldest
    ]
    missing += [f"Gateway {key} cannot be asked: {why}" for key, why in unplaced.items()]
    health = current_health()
    for target in [MONOLITH_TARGET, *Service.objects.values_list("key", flat=True)]:
        state, error = health.get(target, (Health.UNKNOWN, "no poll yet"))
        if state != Health.HEALTHY:
            missing.append(f"{target} is {state}: {error}")
    return missing
