"""Who acts, and through what: both stand in the audit log."""

from __future__ import annotations

from django.db import transaction

from migrations_app.actor import Actor
from migrations_app.audit import record
from migrations_app.choices import ActorKind, AuditKind
from migrations_app.roles import Role


def test_an_account_that_is_named_at_a_shell_is_told_from_its_own_click(people, monkeypatch):
    monkeypatch.setenv("LOGNAME", "root")
    clicked = people[Role.VIEWER]
    typed = Actor.at_shell("viewer")
    assert (typed.name, typed.kind, typed.account) == (clicked.name, clicked.kind, clicked.account)
    assert (clicked.via, typed.via) == ("", "shell root")
    assert Actor.at_shell("somebody") == Actor("somebody", ActorKind.SHELL, via="shell root")
    assert Actor.at_shell() == Actor("root", ActorKind.SHELL)
    assert Actor.signed_in(clicked.account, via="token 7").via == "token 7"


def test_a_name_that_is_longer_than_the_log_has_room_for_holds_nothing_up(db, monkeypatch):
    monkeypatch.setenv("LOGNAME", "r" * 300)
    for actor in (Actor.at_shell("a" * 400), Actor.at_shell()):
        with transaction.atomic():
            event = record(AuditKind.FLAG_ROLLED_BACK, actor=actor, subject="X")
        event.refresh_from_db()
        assert (len(event.actor), event.actor[-1]) == (150, "…")
