"""`manage.py pin list|lift FLAG ...`: what the gateways hold on the old side, whatever the database desires."""

from __future__ import annotations

import sys

from migrations_app.actions.pins import lift_pins
from migrations_app.errors import Invalid
from migrations_app.gateways.errors import GatewayError
from migrations_app.management.base import ActionCommand, Exit, Options
from migrations_app.reconcile.adapters import known_gateways


class Command(ActionCommand):
    help = "List and lift pins. A pin is set by `manage.py panic --pin`, or by a rollback script beside the gateway."

    def add_verbs(self) -> None:
        self.verb(
            "list",
            self.list,
            "what is pinned, by whom, since when and why; asks the gateways' folders alone",
            asks_database=False,
        )
        parser = self.verb("lift", self.lift, "let flags go; they stay on the old side until somebody enables them")
        parser.add_argument("flags", nargs="*", metavar="FLAG", help="as USE_AUTH_SERVICE")
        parser.add_argument("--all", action="store_true", help="every flag that is pinned")

    def list(self, options: Options) -> None:
        rows, failed = [], []
        for gateway in known_gateways():
            name = gateway.name()
            try:
                rows += [
                    {"flag": pin.flag, "gateway": name, "by": pin.by, "since": pin.at, "why": pin.why}
                    for pin in gateway.adapter.pins()
                ]
            except GatewayError as error:
                failed.append(f"{name}: {error}")
        empty = "Nothing is pinned at the others." if failed else "Nothing is pinned."
        self.table(options, rows, ["flag", "gateway", "by", "since", "why"], empty)
        if failed:
            self.stderr.write("\n".join(f"NOT KNOWN at {told}" for told in failed))
            sys.exit(Exit.UNCONFIRMED)

    def lift(self, options: Options) -> None:
        if bool(options["flags"]) == options["all"]:
            raise Invalid("Name the flags to lift, or give --all. List them with: manage.py pin list")
        flags = None if options["all"] else options["flags"]
        change = lift_pins(flags=flags, actor=self.actor(options), reason=options["reason"])
        self.finish(options, change, f"Lifted: {change.title or 'nothing'}", moves_traffic=False)
