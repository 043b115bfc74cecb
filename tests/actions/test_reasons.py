"""Why something was rolled back, said afterwards."""

from uuid import uuid4

import pytest

from migrations_app.actions.everything import roll_back_everything
from migrations_app.actions.flags import roll_back_flag, set_weight
from migrations_app.actions.reasons import give_reason
from migrations_app.actions.weeks import roll_back_week
from migrations_app.actor import SYSTEM, Actor
from migrations_app.choices import AuditKind
from migrations_app.errors import Invalid, NotFound, NotPermitted, Stale
from migrations_app.models import AuditEvent, ReasonAsked
from migrations_app.models.audit import check_chain
from migrations_app.roles import Role
from tests.factories import put_behind

RAG = "USE_RAG_SERVICE"
WAYS = {
    "flag": lambda **who: roll_back_flag(key=RAG, **who),
    "weight": lambda **who: set_weight(key=RAG, weight=0, **who),
    "week": lambda **who: roll_back_week(number=1, **who),
    "everything": roll_back_everything,
}


@pytest.fixture
def manager(people) -> Actor:
    return people[Role.RELEASE_MANAGER]


@pytest.fixture
def on(plan) -> None:
    put_behind(1)


@pytest.mark.parametrize("way", WAYS)
def test_a_rollback_of_a_person_without_a_reason_is_asked_for_one(on, manager, way):
    event = WAYS[way](actor=manager).event
    assert ReasonAsked.objects.values_list("event", "account", "answer").get() == (event.pk, manager.account.pk, None)
    change = give_reason(event=event.pk, actor=manager, reason=" sign-in answered 500 ")
    assert (change.changed, change.event.kind) == (True, AuditKind.REASON_GIVEN)
    assert (change.event.subject, change.event.reason) == (event.subject, "sign-in answered 500")
    assert change.event.after == {"event": event.pk}
    assert ReasonAsked.objects.get().answer == change.event
    event.refresh_from_db()
    assert event.reason == ""
    assert check_chain().broken_at is None


@pytest.mark.parametrize("way", WAYS)
def test_nobody_is_asked_who_said_why_at_once_or_is_no_account(on, manager, shell, way):
    WAYS[way](actor=manager, reason="it burns")
    put_behind(1)
    WAYS[way](actor=shell)
    put_behind(1)
    WAYS[way](actor=SYSTEM)
    assert not ReasonAsked.objects.exists()


def test_the_shell_of_a_named_account_is_asked_too(on, manager):
    roll_back_week(number=1, actor=Actor.at_shell(manager.name))
    assert ReasonAsked.objects.get().account == manager.account


def test_nothing_that_did_not_move_is_asked_about(plan, manager):
    roll_back_everything(actor=manager)
    assert not ReasonAsked.objects.exists()


def test_only_the_author_and_an_administrator_may_say_why(on, people, manager):
    event = roll_back_week(number=1, actor=manager).event
    for role in set(Role) - {Role.RELEASE_MANAGER, Role.ADMINISTRATOR}:
        with pytest.raises(NotPermitted, match="somebody else rolled back"):
            give_reason(event=event.pk, actor=people[role], reason="I know")
    assert ReasonAsked.objects.get().answer is None
    assert give_reason(event=event.pk, actor=people[Role.ADMINISTRATOR], reason="they told me").changed


def test_an_empty_reason_is_refused(on, manager):
    event = roll_back_week(number=1, actor=manager).event
    with pytest.raises(Invalid, match="Say why"):
        give_reason(event=event.pk, actor=manager, reason="  ")
    assert not AuditEvent.objects.filter(kind=AuditKind.REASON_GIVEN).exists()


def test_the_same_click_again_changes_nothing_and_another_one_is_too_late(on, manager):
    event, key = roll_back_week(number=1, actor=manager).event, uuid4()
    first = give_reason(event=event.pk, actor=manager, reason="errors", request_key=key)
    again = give_reason(event=event.pk, actor=manager, reason="errors", request_key=key)
    assert (again.changed, again.event) == (False, first.event)
    with pytest.raises(Stale, match="said already"):
        give_reason(event=event.pk, actor=manager, reason="something else", request_key=uuid4())


def test_what_is_no_rollback_without_a_reason_needs_none(plan, manager):
    with pytest.raises(Invalid, match="needs no reason"):
        give_reason(event=AuditEvent.objects.first().pk, actor=manager, reason="why not")
    with pytest.raises(NotFound, match="no event 999999"):
        give_reason(event=999_999, actor=manager, reason="why not")
