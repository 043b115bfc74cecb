"""`manage.py panic [FLAG ...] [--week N]`: back to the old side, with the database or without it."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable
from enum import Enum
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connection

from migrations_app.actions.change import Change
from migrations_app.actions.confirm import Outcome, confirm
from migrations_app.actions.everything import roll_back_everything
from migrations_app.actions.flags import roll_back_flags
from migrations_app.actions.weeks import roll_back_week
from migrations_app.actor import Actor
from migrations_app.errors import ActionError, Busy, NotPermitted, first_line
from migrations_app.management.base import Exit, one_line, text
from migrations_app.reconcile.adapters import Known, known_gateways
from migrations_app.reconcile.desired import name_of
from migrations_app.reconcile.panic import Panicked, flags_known, flags_of_week, panic

# Seconds. The database has so long to answer at all, then to take the change; then the gateways to confirm it.
ANSWERS_WITHIN = 2.0
CHANGES_WITHIN = 3.0
CONFIRMS_WITHIN = 4.0


class Command(BaseCommand):
    help = (
        "Move traffic back to the old side at once: everything, a week, or the flags that are named. Where the "
        "database does not do it within seconds, the flags are pinned in the folder of each gateway instead."
    )
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("flags", nargs="*", metavar="FLAG", help="as USE_AUTH_SERVICE; none: everything")
        parser.add_argument("--week", type=int, metavar="N", help="the flags of this week")
        parser.add_argument("--actor", default="", type=text, help="account, or name, that acts (default: your login)")
        parser.add_argument("--reason", default="", type=text, help="why; nobody has to say it now")
        parser.add_argument("--pin", action="store_true", help="do not ask the database; pin")

    def handle(self, *_args: Any, **options: Any) -> None:
        flags, week = list(dict.fromkeys(options["flags"])), options["week"]
        if flags and week is not None:
            raise CommandError("Name flags or a week, not both.", returncode=Exit.USAGE)
        if not options["pin"]:
            why = self._by_the_database(flags, week, options)
            if why is None:
                return
            self.stderr.write(f"{why} The flags are pinned at the gateways instead.")
        self._pin(flags, week, options)

    def _by_the_database(self, flags: list[str], week: int | None, options: dict[str, Any]) -> str | None:
        """Why it was not done so, as a sentence; None when it was. Leaves with a status when it was refused."""
        asked = _Asked(lambda: _roll_back(flags, week, options))
        asked.start()
        for stage, seconds in _STAGES:
            try:
                reached = asked.reached.get(timeout=seconds)
            except queue.Empty:
                return stage.value
            if reached is _Stage.OVER:
                break
        if isinstance(asked.error, ActionError) and not isinstance(asked.error, Busy):
            status = Exit.REFUSED if isinstance(asked.error, NotPermitted) else Exit.USAGE
            told = one_line(f"{asked.error} Nothing was rolled back. With --pin nobody is asked.")
            raise CommandError(told, returncode=status)
        if asked.error is not None:
            return f"The database does not do it: {first_line(asked.error)}".rstrip(".") + "."
        if asked.change is None or asked.outcome is None:
            return "The database gave no answer."
        nothing = "" if asked.change.changed else " Nothing had to change."
        self.stdout.write(one_line(f"{_what(flags, week)} rolled back.{nothing} {asked.outcome.sentence()}"))
        if not asked.outcome.confirmed:
            sys.exit(Exit.UNCONFIRMED)
        return None

    def _pin(self, flags: list[str], week: int | None, options: dict[str, Any]) -> None:
        gateways = known_gateways()
        if week is not None:
            flags = list(flags_of_week(gateways, week))
            if not flags:
                raise CommandError(f"No gateway knows the flags of week {week}. Name them.", returncode=Exit.USAGE)
        elif flags and (known := flags_known(gateways)) is not None and (unknown := sorted(set(flags) - known)):
            listed = f"No gateway has {', '.join(unknown)}. There are: {', '.join(sorted(known))}."
            raise CommandError(f"{listed} Nothing was done.", returncode=Exit.USAGE)
        by = options["actor"] or Actor.at_shell().name
        failed = False
        for one in panic(gateways, flags or None, by=by, why=options["reason"]):
            self._tell(one, _what(flags, week), name_of(week) if week is not None else "everything.sh")
            failed = failed or bool(one.error)
        self.stdout.write("Pins stay until somebody lifts them: manage.py pin lift --all --reason WHY")
        if failed:
            sys.exit(Exit.UNCONFIRMED)

    def _tell(self, done: Panicked, what: str, script: str) -> None:
        where: Known = done.gateway
        if not done.error:
            said = f"{what} on the old side, and pinned there. Confirmed in {done.milliseconds:.0f} ms"
            self.stdout.write(f"Gateway {done.name}: {said}, generation {done.generation}.")
            self.stdout.flush()  # the next one may take its time
            return
        self.stderr.write(f"Gateway {done.name}: NOT CONFIRMED after {done.milliseconds:.0f} ms: {done.error}")
        self.stderr.write(f"  By hand, in a shell on the host of the gateway: sh {where.folder / 'rollback' / script}")
        self.stderr.write(f"  See what it runs: curl {where.url}/routing-status")


class _Stage(Enum):
    """How far the database has come, each with what is said when it comes no farther."""

    ANSWERED = "The database does not answer in time."
    CHANGED = "The database has answered, but does not take the change in time."
    OVER = "The change is stored, but the database does not answer any more."


_STAGES = ((_Stage.ANSWERED, ANSWERS_WITHIN), (_Stage.CHANGED, CHANGES_WITHIN), (_Stage.OVER, CONFIRMS_WITHIN))


class _Asked(threading.Thread):
    """Asks the database in a thread of its own: no limit of PostgreSQL's holds when its host hangs."""

    def __init__(self, act: Callable[[], Change]) -> None:
        super().__init__(name="database", daemon=True)
        self._act = act
        self.reached: queue.Queue[_Stage] = queue.Queue()
        self.change: Change | None = None
        self.outcome: Outcome | None = None
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            _ask()
            self.reached.put(_Stage.ANSWERED)
            self.change = self._act()
            self.reached.put(_Stage.CHANGED)
            self.outcome = confirm(self.change.generation, event=self.change.event, head_start=0.0)
            if not self.outcome.confirmed:
                _ask()  # one that went away meanwhile is an error, and not what the gateway said
        except (DatabaseError, ActionError) as error:
            self.error = error
        except Exception as error:  # noqa: BLE001  # whatever it is, the flags are pinned
            self.error = error
        finally:
            self.reached.put(_Stage.OVER)
            connection.close()


def _ask() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _roll_back(flags: list[str], week: int | None, options: dict[str, Any]) -> Change:
    actor, reason = Actor.at_shell(options["actor"]), options["reason"]
    if week is not None:
        return roll_back_week(number=week, actor=actor, reason=reason)
    if not flags:
        return roll_back_everything(actor=actor, reason=reason)
    return roll_back_flags(keys=flags, actor=actor, reason=reason)


def _what(flags: list[str], week: int | None) -> str:
    if week is not None:
        return f"Week {week} is"
    return f"{', '.join(flags)} {'is' if len(flags) == 1 else 'are'}" if flags else "Everything is"
