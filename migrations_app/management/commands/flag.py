"""`manage.py flag list|set KEY WEIGHT|rollback KEY`."""

from __future__ import annotations

from migrations_app.actions.flags import roll_back_flag, set_weight
from migrations_app.management.base import ActionCommand, Options, past_no_return
from migrations_app.models import Flag, Gateway


class Command(ActionCommand):
    help = "List flags, set the weight of one, roll one back."

    def add_verbs(self) -> None:
        self.verb("list", self.list, "all flags: the weight that is wanted, and the one that the gateway runs")
        parser = self.verb("set", self.set, "send WEIGHT per cent of the flag's traffic to its service")
        parser.add_argument("key", metavar="KEY", help="the flag, as USE_AUTH_SERVICE")
        parser.add_argument("weight", type=int, metavar="WEIGHT", help="0 to 100")
        past_no_return(parser)
        parser = self.verb("rollback", self.rollback, "move the flag's traffic back to the monolith")
        parser.add_argument("key", metavar="KEY", help="the flag, as USE_AUTH_SERVICE")

    def list(self, options: Options) -> None:
        gateways = list(Gateway.objects.all())
        rows = [
            {
                "key": flag.key,
                "service": flag.service.key,
                "week": flag.week.number,
                "weight": flag.weight,
                "running": [gateway.observed_weights.get(flag.key) for gateway in gateways],
                "applied": all(gateway.runs(flag) for gateway in gateways),
                "generation": flag.generation,
                "prefixes": [route.prefix for route in flag.service.routes.all()],
                "upstream": str(flag.service.upstream),
            }
            for flag in Flag.objects.select_related("service", "week").prefetch_related("service__routes")
        ]
        columns = ["key", "week", "weight", "running", "applied", "prefixes", "upstream"]
        self.table(options, rows, columns, "No plan is loaded, so there are no flags.")

    def set(self, options: Options) -> None:
        change = set_weight(
            key=options["key"],
            weight=options["weight"],
            actor=self.actor(options),
            reason=options["reason"],
            past_no_return=options["past_no_return"],
        )
        self.finish(options, change, f"{options['key']} is at {options['weight']} %")

    def rollback(self, options: Options) -> None:
        change = roll_back_flag(key=options["key"], actor=self.actor(options), reason=options["reason"])
        self.finish(options, change, f"{options['key']} is rolled back")
