"""`manage.py token list|add ACCOUNT LABEL|revoke ID`."""

from __future__ import annotations

import argparse
from datetime import timedelta

from django.utils import timezone

from migrations_app.actions.tokens import add_token, revoke_token
from migrations_app.durations import parse_duration
from migrations_app.management.base import ActionCommand, Options
from migrations_app.models import ApiToken


class Command(ActionCommand):
    help = "List the tokens of the API, add one, revoke one."

    def add_verbs(self) -> None:
        self.verb("list", self.list, "all tokens: whose, what for, last used when")
        parser = self.verb("add", self.add, "make a token that acts as ACCOUNT, and print it once")
        parser.add_argument("account", metavar="ACCOUNT")
        parser.add_argument("label", metavar="LABEL", help="what it is for, as 'chat-ops'")
        parser.add_argument("--expires", type=_length, metavar="LENGTH", help="as 90d or 12h (default: never)")
        parser = self.verb("revoke", self.revoke, "let a token open nothing any more")
        parser.add_argument("token", type=int, metavar="ID")

    def list(self, options: Options) -> None:
        now = timezone.now()
        rows = [
            {
                "id": token.pk,
                "account": token.account.get_username(),
                "label": token.label,
                "state": token.state(now) if token.account.is_active else "account not active",
                "created_at": token.created_at,
                "expires_at": token.expires_at,
                "last_used_at": token.last_used_at,
            }
            for token in ApiToken.objects.select_related("account")
        ]
        empty = "There are no tokens. Make one with: manage.py token add ACCOUNT LABEL --expires 90d"
        self.table(options, rows, ["id", "account", "label", "state", "expires_at", "last_used_at"], empty)

    def add(self, options: Options) -> None:
        token, secret = add_token(
            account=options["account"],
            label=options["label"],
            expires_in=options["expires"],
            actor=self.actor(options),
            reason=options["reason"],
        )
        if options["json"]:
            self.emit({"id": token.pk, "token": secret, "expires_at": token.expires_at})
        else:
            self.stdout.write(secret)
            self.stderr.write("Keep it now: it is shown this once, and stored nowhere.")

    def revoke(self, options: Options) -> None:
        changed = revoke_token(token=options["token"], actor=self.actor(options), reason=options["reason"])
        if options["json"]:
            self.emit({"changed": changed})
        else:
            self.stdout.write(f"Token {options['token']} is revoked.{'' if changed else ' Nothing had to change.'}")


def _length(typed: str) -> timedelta:
    try:
        return parse_duration(typed)
    except ValueError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None
