"""What the commands share: one option set, JSON or a table, and exit statuses that scripts can rely on."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from enum import IntEnum
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from django.db import OperationalError, connection

from migrations_app.actions.change import Change
from migrations_app.actions.confirm import as_json, confirm
from migrations_app.actor import Actor
from migrations_app.errors import ActionError, Busy, GateClosed, NotPermitted, Partly, Pinned, first_line
from migrations_app.gates.checks.printable import printable

Options = Mapping[str, Any]


class Exit(IntEnum):
    """Exit statuses of the commands that act."""

    DONE = 0  # applied, and confirmed by the gateway
    AWAY = 1  # the database does not answer, or is busy; it is said whether that is known to have changed nothing
    USAGE = 2  # the request makes no sense, or names what does not exist
    REFUSED = 3  # by a gate or a pin, or for want of a permission; nothing was changed, or a part, which is told then
    UNCONFIRMED = 4  # stored, but the gateway has not confirmed it


def past_no_return(parser: ArgumentParser) -> None:
    """The option that a service past its point of no return is not turned on without."""
    parser.add_argument(
        "--past-no-return", action="store_true", help="you know that the old side cannot serve it again once it is on"
    )


NOT_KNOWN = "Whether anything was changed is not known: look with `manage.py audit list`, then do it again."


@contextmanager
def database_told(lost: str = NOT_KNOWN) -> Iterator[None]:
    """Say on one line that the database does not answer. Raises CommandError, which leaves with 1.

    Only where it does not answer from the beginning is it known that nothing was changed: a connection that breaks
    later may have taken a commit along whose answer was lost. `lost` is what is said then.
    """
    try:
        connection.ensure_connection()
    except OperationalError as error:
        raise CommandError(
            f"The database does not answer: {first_line(error)}. Nothing was changed."
            " Is `make demo` or `make up` running?"
        ) from error
    try:
        yield
    except OperationalError as error:
        raise CommandError(f"The database does not answer any more: {first_line(error)}. {lost}".rstrip()) from error


class ActionCommand(BaseCommand):
    """A noun with verbs: `manage.py week enable 1`. Subclasses add verbs; each has --actor, --reason and --json."""

    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        self._common = CommandParser(add_help=False)
        self._common.add_argument(
            "--actor", default="", type=text, help="account, or name, that acts (default: your login name)"
        )
        self._common.add_argument("--reason", default="", type=text, help="why; kept in the audit log")
        self._common.add_argument("--json", action="store_true", help="print JSON")
        self._verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
        self.add_verbs()

    def add_verbs(self) -> None:
        raise TypeError(f"{type(self).__name__} has no verbs")

    def verb(
        self, name: str, run: Callable[[Options], None], about: str, *, asks_database: bool = True
    ) -> ArgumentParser:
        """Add a verb; arguments of its own go onto the parser that is returned."""
        parser: ArgumentParser = self._verbs.add_parser(name, parents=[self._common], help=about)
        parser.set_defaults(run=run, asks_database=asks_database)
        return parser

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            with database_told() if options["asks_database"] else nullcontext():
                options["run"](options)
        except ActionError as refusal:
            self._refuse(refusal, options)

    def actor(self, options: Options) -> Actor:
        return Actor.at_shell(options["actor"])

    def finish(
        self,
        options: Options,
        change: Change,
        what: str,
        *,
        moves_traffic: bool = True,
        beside: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        """Print what came of an action; leaves with UNCONFIRMED when the gateway does not run what was asked for.

        `beside` is what only the JSON has more. It is asked for once the gateways have answered: nothing stands
        between a commit and the pass that carries it out.
        """
        outcome = confirm(change.generation, event=change.event, head_start=0.0) if moves_traffic else None
        more = beside()
        if options["json"]:
            self.emit(as_json(change, outcome) | dict(more))
        else:
            nothing = "" if change.changed else " Nothing had to change."
            said = f" {outcome.sentence()}" if outcome else ""
            self.say(f"{what}.{nothing}{said}")
        if outcome and (outcome.overtaken or not outcome.confirmed):
            sys.exit(Exit.UNCONFIRMED)

    def say(self, sentence: str) -> None:
        self.stdout.write(one_line(sentence))

    def emit(self, data: Any) -> None:
        told = json.dumps(data, indent=2, cls=DjangoJSONEncoder, ensure_ascii=False)
        # JSON itself lets C1 controls and marks that turn the writing direction stand as they are.
        escaped = (one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in told)
        self.stdout.write("".join(escaped))

    def table(self, options: Options, rows: list[dict[str, Any]], columns: Sequence[str], empty: str) -> None:
        """All of the rows as JSON, or the named columns as a table; `empty` says what to do when there are none."""
        if options["json"]:
            self.emit(rows)
        elif not rows:
            self.stdout.write(empty)
        else:
            cells = [[column.replace("_", " ") for column in columns]]
            cells += [[_cell(row[column]) for column in columns] for row in rows]
            widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
            for line in cells:
                text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
                self.stdout.write(text.rstrip())

    def _refuse(self, refusal: ActionError, options: Options) -> None:
        status = Exit.REFUSED if isinstance(refusal, GateClosed | NotPermitted | Partly | Pinned) else Exit.USAGE
        if isinstance(refusal, Busy):
            status = Exit.AWAY
        if options["json"]:
            verdict = refusal.verdict.as_json() if isinstance(refusal, GateClosed) else None
            self.emit({"changed": isinstance(refusal, Partly), "error": str(refusal), "verdict": verdict})
        if isinstance(refusal, GateClosed) and not options["json"]:
            self.stderr.write(f"Refused: the gate of week {refusal.verdict.week} is closed.")
            for line in refusal.verdict.blocking:
                how = f" ({line.command})" if line.command else ""
                self.stderr.write(one_line(f"  - {line.title}: {line.value}. {line.act}{how}"))
            sys.exit(status)
        raise CommandError(one_line(str(refusal)), returncode=status)


def text(typed: str) -> str:
    """What was typed in another encoding must not hold up a rollback: bytes that are no UTF-8 become question marks."""
    return typed.encode("utf-8", "replace").decode()


def one_line(told: str) -> str:
    """With nothing in it that a terminal obeys: reasons, notes and names are whatever somebody has typed."""
    return printable(told, len(told))


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return one_line(str(value))
