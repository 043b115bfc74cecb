"""Accounts and their roles."""

from __future__ import annotations

from django.contrib.auth.models import Group, User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction

from migrations_app.actor import Actor
from migrations_app.audit import record
from migrations_app.choices import AuditKind
from migrations_app.errors import Invalid, NotFound
from migrations_app.models import Plan
from migrations_app.roles import Permission, Role


def add_account(*, name: str, password: str, role: Role, actor: Actor, reason: str = "") -> User:
    """Create an account with one role. Raises NotPermitted, or Invalid for a taken name or a weak password."""
    actor.require(Permission.MANAGE_ACCOUNTS, "add accounts")
    user = User(username=name)
    try:
        user.clean_fields(exclude=["password"])
        validate_password(password, user)
    except ValidationError as problem:
        raise Invalid(" ".join(problem.messages)) from None
    with transaction.atomic():
        if User.objects.filter(username=name).exists():
            raise Invalid(f"There is already an account {name}.")
        user.set_password(password)
        user.save()
        user.groups.set([_group(role)])
        record(
            AuditKind.ACCOUNT_ADDED,
            actor=actor,
            subject=f"account {name}",
            reason=reason,
            after={"role": role.value},
        )
        return user


def set_password(*, name: str, password: str, actor: Actor, reason: str = "") -> None:
    """Give an account another password; its open sessions end. Raises NotPermitted, NotFound, Invalid (a weak one)."""
    actor.require(Permission.MANAGE_ACCOUNTS, "set passwords")
    with transaction.atomic():
        user = _locked(name)
        try:
            validate_password(password, user)
        except ValidationError as problem:
            raise Invalid(" ".join(problem.messages)) from None
        user.set_password(password)
        user.save(update_fields=["password"])
        record(AuditKind.ACCOUNT_PASSWORD_SET, actor=actor, subject=f"account {name}", reason=reason)


def set_role(*, name: str, role: Role, actor: Actor, reason: str = "") -> bool:
    """Give an account this role alone; False when it is so already. Raises NotPermitted, NotFound."""
    actor.require(Permission.MANAGE_ACCOUNTS, "give roles")
    with transaction.atomic():
        Plan.objects.select_for_update().first()  # a change that is under way has asked for the role (Actor)
        user = _locked(name)
        before = roles_of(user)
        if before == [role.value]:
            return False
        user.groups.set([_group(role)])
        record(
            AuditKind.ACCOUNT_ROLE_SET,
            actor=actor,
            subject=f"account {name}",
            reason=reason,
            before={"role": ", ".join(before)},
            after={"role": role.value},
        )
        return True


def deactivate(*, name: str, actor: Actor, reason: str = "") -> bool:
    """Let an account sign in no more; open sessions end with the next click. Raises NotPermitted, NotFound."""
    actor.require(Permission.MANAGE_ACCOUNTS, "deactivate accounts")
    with transaction.atomic():
        Plan.objects.select_for_update().first()
        user = _locked(name)
        if not user.is_active:
            return False
        user.is_active = False
        user.save(update_fields=["is_active"])
        record(
            AuditKind.ACCOUNT_DEACTIVATED,
            actor=actor,
            subject=f"account {name}",
            reason=reason,
            before={"active": True},
            after={"active": False},
        )
        return True


def roles_of(user: User) -> list[str]:
    """Names of the roles of an account, in order."""
    return sorted(group.name for group in user.groups.all())


def _group(role: Role) -> Group:
    return Group.objects.get(name=role.value)


def _locked(name: str) -> User:
    user = User.objects.select_for_update().filter(username=name).first()
    if user is None:
        raise NotFound(f"There is no account {name}. List them with: manage.py account list")
    return user
