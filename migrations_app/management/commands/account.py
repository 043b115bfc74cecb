"""`manage.py account list|add NAME ROLE|role NAME ROLE|password NAME|deactivate NAME`."""

from __future__ import annotations

import getpass
import sys

from django.contrib.auth.models import User

from migrations_app.actions.accounts import add_account, deactivate, roles_of, set_password, set_role
from migrations_app.management.base import ActionCommand, Options
from migrations_app.roles import Role

ROLES = [role.value.replace(" ", "-") for role in Role]


class Command(ActionCommand):
    help = "List accounts, add one with a role, change its role or its password, deactivate it."

    def add_verbs(self) -> None:
        self.verb("list", self.list, "all accounts with their roles")
        parser = self.verb("add", self.add, "add an account; the password is asked for, or read from standard input")
        parser.add_argument("name", metavar="NAME")
        parser.add_argument("role", metavar="ROLE", choices=ROLES, help=", ".join(ROLES))
        parser = self.verb("role", self.role, "give an account another role")
        parser.add_argument("name", metavar="NAME")
        parser.add_argument("role", metavar="ROLE", choices=ROLES, help=", ".join(ROLES))
        parser = self.verb("password", self.password, "give an account another password; asked for as by add")
        parser.add_argument("name", metavar="NAME")
        parser = self.verb("deactivate", self.deactivate, "let an account sign in no more")
        parser.add_argument("name", metavar="NAME")

    def list(self, options: Options) -> None:
        rows = [
            {
                "name": user.username,
                "roles": roles_of(user),
                "active": user.is_active,
                "last_sign_in": user.last_login,
            }
            for user in User.objects.prefetch_related("groups").order_by("username")
        ]
        empty = "There are no accounts. Add one with: manage.py account add NAME administrator"
        self.table(options, rows, ["name", "roles", "active", "last_sign_in"], empty)

    def add(self, options: Options) -> None:
        password, role = _asked_for(), Role(options["role"].replace("-", " "))
        add_account(
            name=options["name"], password=password, role=role, actor=self.actor(options), reason=options["reason"]
        )
        self.said(options, True, f"{options['name']} is added as {role.value}")

    def role(self, options: Options) -> None:
        role = Role(options["role"].replace("-", " "))
        changed = set_role(name=options["name"], role=role, actor=self.actor(options), reason=options["reason"])
        self.said(options, changed, f"{options['name']} is {role.value}")

    def password(self, options: Options) -> None:
        set_password(name=options["name"], password=_asked_for(), actor=self.actor(options), reason=options["reason"])
        self.said(options, True, f"{options['name']} has another password")

    def deactivate(self, options: Options) -> None:
        changed = deactivate(name=options["name"], actor=self.actor(options), reason=options["reason"])
        self.said(options, changed, f"{options['name']} can sign in no more")

    def said(self, options: Options, changed: bool, what: str) -> None:
        if options["json"]:
            self.emit({"changed": changed})
        else:
            self.stdout.write(f"{what}.{'' if changed else ' Nothing had to change.'}")


def _asked_for() -> str:
    return getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
