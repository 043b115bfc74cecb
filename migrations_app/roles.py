"""Roles: Django groups, and what each may do. Kept in step with this table after every migrate."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.db import connection


class Permission(StrEnum):
    """Permissions of `models.Plan.Meta`, as `has_perm` wants them."""

    VIEW_PLAN = "migrations_app.view_plan"
    TICK = "migrations_app.tick_prerequisite"
    CHECK = "migrations_app.run_check"
    ENABLE = "migrations_app.enable_week"
    ROLL_BACK = "migrations_app.roll_back"
    FINISH = "migrations_app.finish_week"
    APPROVE = "migrations_app.approve"
    FREEZE = "migrations_app.freeze"
    MAINTAIN = "migrations_app.plan_maintenance"
    OVERRIDE = "migrations_app.override_gate"
    LOAD_PLAN = "migrations_app.load_plan"
    VIEW_AUDIT = "migrations_app.view_audit"
    MANAGE_ACCOUNTS = "migrations_app.manage_accounts"


class Role(StrEnum):
    VIEWER = "viewer"
    SUPPORT = "support"
    RELEASE_MANAGER = "release manager"
    APPROVER = "approver"
    ADMINISTRATOR = "administrator"


_READS = {Permission.VIEW_PLAN}
_WORKS = _READS | {Permission.VIEW_AUDIT, Permission.ROLL_BACK}
# Whoever can be on call can roll back. Turning traffic on stays with release managers; approving with approvers; and
# whoever may break the glass is neither, so that no change of traffic past a closed gate is one person's alone.
MATRIX: dict[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset(_READS),
    Role.SUPPORT: frozenset(_READS),
    Role.RELEASE_MANAGER: frozenset(
        _WORKS
        | {
            Permission.TICK,
            Permission.CHECK,
            Permission.ENABLE,
            Permission.FINISH,
            Permission.FREEZE,
            Permission.MAINTAIN,
        }
    ),
    Role.APPROVER: frozenset(_WORKS | {Permission.TICK, Permission.CHECK, Permission.APPROVE}),
    Role.ADMINISTRATOR: frozenset(
        _WORKS
        | {
            Permission.CHECK,
            Permission.FREEZE,
            Permission.MAINTAIN,
            Permission.OVERRIDE,
            Permission.LOAD_PLAN,
            Permission.MANAGE_ACCOUNTS,
        }
    ),
}


def who_may(permission: Permission) -> str:
    """The roles that have it, in words: "release managers and approvers"."""
    roles = [
        "the support team" if role == Role.SUPPORT else f"{role.value}s"
        for role, permissions in MATRIX.items()
        if permission in permissions
    ]
    return roles[0] if len(roles) == 1 else f"{', '.join(roles[:-1])} and {roles[-1]}"


class RoleBackend(ModelBackend):
    """Accounts may what their roles may, and nothing by a grant of their own: one place to look.

    Django would give a superuser everything; the database takes none (migration 0024).

    The account of a request comes with its permissions and `roles`, in one query: every page and every click asks for
    them.
    """

    def get_all_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        return self.get_group_permissions(user_obj, obj)

    def get_user(self, user_id: int) -> Any:
        """The account with its permissions, or None when there is none or it is not active."""
        from django.contrib.auth.models import User

        user: Any = next(iter(User.objects.raw(_ACCOUNT, [user_id])), None)
        if user is None or not self.user_can_authenticate(user):
            return None
        # Where ModelBackend keeps them for the life of this object.
        user._group_perm_cache = {f"migrations_app.{codename}" for codename in user.granted}
        return user


def still_has(account: int, permission: Permission) -> bool:
    """Whether the account of this primary key is active and has it, asked of the database in one cheap question."""
    with connection.cursor() as cursor:
        cursor.execute(_STILL_HAS, [permission.partition(".")[2], account])
        found = cursor.fetchone()
    return bool(found and found[0])


# To put this together anew takes the ORM longer than PostgreSQL takes to answer, and every request asks it.
_ACCOUNT = """
    SELECT account.*, ARRAY(
        SELECT permission.codename FROM auth_user_groups AS membership
        JOIN auth_group_permissions AS granted USING (group_id)
        JOIN auth_permission AS permission ON permission.id = granted.permission_id
        JOIN django_content_type AS content ON content.id = permission.content_type_id
        WHERE membership.user_id = account.id AND content.app_label = 'migrations_app'
    ) AS granted, ARRAY(
        SELECT role.name FROM auth_user_groups AS membership JOIN auth_group AS role ON role.id = membership.group_id
        WHERE membership.user_id = account.id ORDER BY role.name
    ) AS roles
    FROM auth_user AS account WHERE account.id = %s
"""
_STILL_HAS = """
    SELECT account.is_active AND EXISTS (
        SELECT FROM auth_user_groups AS membership
        JOIN auth_group_permissions AS granted USING (group_id)
        JOIN auth_permission AS permission ON permission.id = granted.permission_id
        JOIN django_content_type AS content ON content.id = permission.content_type_id
        WHERE membership.user_id = account.id AND permission.codename = %s AND content.app_label = 'migrations_app'
    )
    FROM auth_user AS account WHERE account.id = %s
"""


def create_groups(roles: Iterable[Role] = tuple(Role), **_signal: Any) -> None:
    """Create or correct the group of each role. Connected to post_migrate; safe to repeat."""
    from django.contrib.auth.models import Group
    from django.contrib.auth.models import Permission as PermissionRow

    rows = {
        f"migrations_app.{row.codename}": row
        for row in PermissionRow.objects.filter(content_type__app_label="migrations_app")
    }
    for role in roles:
        group, _ = Group.objects.get_or_create(name=role.value)
        group.permissions.set([rows[permission] for permission in MATRIX[role] if permission in rows])
