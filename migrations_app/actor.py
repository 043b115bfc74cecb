"""Who acts: an account, somebody at a shell, or the product itself."""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass
from typing import Self

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User

from migrations_app.choices import ActorKind
from migrations_app.errors import NotPermitted
from migrations_app.roles import Permission, still_has

LONGEST_NAME = 150  # characters, of AuditEvent.actor and of an account's name


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of an action. `name` and `via` are what the audit log keeps.

    `via` is what acted in its name, where that was no browser: `token 7`, `shell root`.
    """

    name: str
    kind: ActorKind
    account: User | None = None
    via: str = ""

    @classmethod
    def signed_in(cls, user: AbstractBaseUser | AnonymousUser, *, via: str = "") -> Self:
        """The account of a request. Raises NotPermitted for nobody."""
        if not isinstance(user, User) or not user.is_active:
            raise NotPermitted("Sign in first.")
        return cls(user.get_username(), ActorKind.ACCOUNT, user, via)

    @classmethod
    def at_shell(cls, name: str = "") -> Self:
        """Somebody with a shell on this machine.

        A `name` that is an account acts as that account, with its permissions and no more. Any other name, or none, is
        kept as typed, as far as the log has room (a rollback is not held up for it), and marked as the shell's: whoever
        has the shell has the database too. Beside a name that was typed stands whose shell it was.
        """
        if not name:
            return cls(_kept(_login_name()), ActorKind.SHELL)
        via = _kept(f"shell {_login_name()}")
        if user := User.objects.filter(username=name).first():
            if not user.is_active:
                raise NotPermitted(f"The account {name} is not active.")
            return cls(name, ActorKind.ACCOUNT, user, via)
        return cls(_kept(name), ActorKind.SHELL, via=via)

    def can(self, permission: Permission) -> bool:
        return self.account.has_perm(permission) if self.account else True

    def require_still(self, permission: Permission, to: str) -> None:
        """As `require`, asked anew of the database: within a change, after the plan is locked.

        Giving and taking roles locks the plan too, so a role that was taken before the change was made counts no more.
        Raises NotPermitted.
        """
        if self.account is not None and not still_has(self.account.pk, permission):
            raise NotPermitted(f"{self.name} may no longer {to}.")

    def require(self, permission: Permission, to: str) -> None:
        """Raises NotPermitted, saying what (`to` "enable weeks") and whom to ask."""
        if not self.can(permission):
            raise NotPermitted(f"{self.name} may not {to}. Ask a release manager, or an administrator for the role.")


def _kept(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return f"user {os.getuid()}"


SYSTEM = Actor("switchyard", ActorKind.SYSTEM)
