"""Accounts and roles."""

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

import manage
from migrations_app.actions.accounts import add_account, deactivate, roles_of, set_password, set_role
from migrations_app.choices import AuditKind
from migrations_app.errors import Invalid, NotFound, NotPermitted
from migrations_app.models import AuditEvent
from migrations_app.roles import MATRIX, Permission, Role
from tests.factories import PASSWORD


def test_an_added_account_has_the_permissions_of_its_role(db, shell):
    user = add_account(name="rita", password=PASSWORD, role=Role.RELEASE_MANAGER, actor=shell, reason="joins")
    assert user.check_password(PASSWORD)
    assert {p for p in Permission if user.has_perm(p)} == MATRIX[Role.RELEASE_MANAGER]
    event = AuditEvent.objects.get()
    assert (event.kind, event.subject, event.after) == (
        AuditKind.ACCOUNT_ADDED,
        "account rita",
        {"role": "release manager"},
    )
    assert PASSWORD not in str(event.__dict__)


@pytest.mark.parametrize(
    ("name", "password", "said"),
    [
        ("rita", "short", "12 characters"),
        ("rita", "password1234", "too common"),
        ("no spaces", PASSWORD, "Enter a valid"),
    ],
)
def test_a_weak_password_or_a_strange_name_is_refused(db, shell, name, password, said):
    with pytest.raises(Invalid, match=said):
        add_account(name=name, password=password, role=Role.SUPPORT, actor=shell)
    assert not User.objects.exists()
    assert not AuditEvent.objects.exists()


def test_a_taken_name_is_refused(people, shell):
    with pytest.raises(Invalid, match="already an account support"):
        add_account(name="support", password=PASSWORD, role=Role.SUPPORT, actor=shell)


def test_a_role_replaces_the_one_before_and_twice_is_a_no_op(people, shell):
    assert set_role(name="support", role=Role.APPROVER, actor=shell)
    user = User.objects.get(username="support")
    assert roles_of(user) == ["approver"]
    events = AuditEvent.objects.count()
    assert not set_role(name="support", role=Role.APPROVER, actor=shell)
    assert AuditEvent.objects.count() == events


def test_a_password_is_set_with_an_event_that_does_not_tell_it(people, shell):
    other = "another password, long enough"
    set_password(name="support", password=other, actor=people[Role.ADMINISTRATOR], reason="forgotten")
    assert User.objects.get(username="support").check_password(other)
    event = AuditEvent.objects.get(kind=AuditKind.ACCOUNT_PASSWORD_SET)
    assert (event.actor, event.subject, event.reason) == ("administrator", "account support", "forgotten")
    assert other not in str(event.__dict__)
    with pytest.raises(Invalid, match="12 characters"):
        set_password(name="support", password="short", actor=shell)
    with pytest.raises(NotPermitted):
        set_password(name="support", password=PASSWORD, actor=people[Role.SUPPORT])
    assert User.objects.get(username="support").check_password(other)


def test_no_account_is_a_superuser_whoever_makes_it(people):
    with pytest.raises(IntegrityError, match="nobody_is_superuser"), transaction.atomic():
        User.objects.create_superuser("root")
    with pytest.raises(IntegrityError, match="nobody_is_superuser"), transaction.atomic():
        User.objects.filter(username="support").update(is_superuser=True)


@pytest.mark.parametrize("name", ["createsuperuser", "changepassword"])
def test_what_django_has_for_accounts_leaves_no_event_and_names_what_does(name, monkeypatch):
    monkeypatch.setattr("sys.argv", ["manage.py", name, "anna"])
    with pytest.raises(SystemExit, match=r"Use: manage\.py account (add|password) NAME"):
        manage.main()


def test_a_deactivated_account_may_nothing(people, shell):
    assert deactivate(name="release-manager", actor=shell)
    assert not deactivate(name="release-manager", actor=shell)
    assert not User.objects.get(username="release-manager").has_perm(Permission.ENABLE)


def test_only_administrators_manage_accounts(people):
    for role, actor in people.items():
        if role == Role.ADMINISTRATOR:
            assert set_role(name="support", role=Role.APPROVER, actor=actor)
        else:
            with pytest.raises(NotPermitted):
                set_role(name="support", role=Role.RELEASE_MANAGER, actor=actor)


def test_an_unknown_account_is_named(db, shell):
    with pytest.raises(NotFound, match="no account nobody"):
        deactivate(name="nobody", actor=shell)
