"""Approvals: asked for, given, declined, withdrawn; for one exact change, by somebody else, and not for ever."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.auth.models import Group, User
from django.db import IntegrityError, transaction
from django.utils import timezone

from migrations_app.actions.accounts import deactivate, set_role
from migrations_app.actions.approvals import decline_approval, give_approval, request_approval, withdraw_approval
from migrations_app.actions.weeks import enable_week, roll_back_week
from migrations_app.actor import SYSTEM, Actor
from migrations_app.choices import AuditKind, Decision
from migrations_app.errors import GateClosed, Invalid, NotFound, NotPermitted, Stale
from migrations_app.gates.load import verdicts
from migrations_app.gates.target import targets
from migrations_app.models import Approval, ApprovalRequest, AuditEvent, Plan, Service, Week
from migrations_app.models.audit import check_chain
from migrations_app.planfile.load import load_plan
from migrations_app.roles import Role
from tests.factories import make_healthy, make_people, put_behind, tick_all, tracseq
from tests.faults.system import in_threads

AUTH = ["USE_AUTH_SERVICE"]
CORE = ["USE_SAMPLE_SERVICE", "USE_SEQUENCING_SERVICE"]


@pytest.fixture(autouse=True)
def _quick_passwords(settings):
    """Nobody signs in here."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def manager(people) -> Actor:
    return people[Role.RELEASE_MANAGER]


@pytest.fixture
def approver(people) -> Actor:
    return people[Role.APPROVER]


@pytest.fixture
def asked(plan, manager) -> ApprovalRequest:
    """The release manager has asked for week 3, which one approver must approve."""
    request_approval(number=3, actor=manager, reason="as planned")
    return ApprovalRequest.objects.get()


def account(name: str, *roles: Role) -> Actor:
    user = User.objects.create_user(name)
    user.groups.set(Group.objects.filter(name__in=[role.value for role in roles]))
    return Actor.signed_in(user)


def revise_plan() -> None:
    """The same plan in other words: its revision grows, and no week moves anything else."""
    document = tracseq(adapter="memory", by_hand=True)
    words = document.plan.model_copy(update={"summary": f"Revision {Plan.objects.get().revision + 1}."})
    load_plan(document.model_copy(update={"plan": words}), actor=SYSTEM)


def approval_line(week: int = 3, flags=None):
    verdict = verdicts(weeks=[week], flags=flags)[week]
    (line,) = [line for line in verdict.lines if line.key == "approval"]
    return line


def refused(number: int = 1) -> AuditEvent:
    """The event of the refusal that has just been made; there are `number` of them."""
    events = AuditEvent.objects.filter(kind=AuditKind.ACTION_REFUSED)
    assert events.count() == number
    assert AuditEvent.objects.first() == events.first()
    return events.first()


def test_a_request_is_for_the_change_as_it_is_now(plan, manager):
    version = Week.objects.get(number=4).version
    change = request_approval(number=4, actor=manager, reason="as planned")
    row = ApprovalRequest.objects.get()
    assert (row.flags, row.weight, row.actor, row.account) == (CORE, 100, manager.name, manager.account)
    assert (row.revision, row.vouches_for) == (Plan.objects.get().revision, targets([4])[4])
    assert row.expires_at - row.asked_at == timedelta(hours=24)
    assert change.changed
    assert change.event.kind == AuditKind.APPROVAL_REQUESTED
    assert (change.event.subject, change.event.week_number) == (f"week 4 / approval {row.pk}", 4)
    assert change.event.before == {}
    assert change.event.after == {
        "request": row.pk,
        "flags": CORE,
        "weight": 100,
        "revision": row.revision,
        "expires_at": row.expires_at.isoformat(),
    }
    assert Week.objects.get(number=4).version == version + 1


def test_a_request_for_some_flags_is_for_these_alone(plan, manager, approver):
    request_approval(number=4, actor=manager, flags=CORE[:1])
    give_approval(request_id=ApprovalRequest.objects.get().pk, actor=approver)
    assert approval_line(4, CORE[:1]).held
    assert not approval_line(4, CORE[1:]).held
    assert not approval_line(4).held
    assert request_approval(number=4, actor=manager).changed
    assert ApprovalRequest.objects.filter(closed_at=None).count() == 2


@pytest.mark.parametrize(
    ("asking", "error", "said"),
    [
        ((1, None), Invalid, "Week 1 needs no approval"),
        ((3, ["USE_RAG_SERVICE"]), Invalid, "Week 3 has no flag USE_RAG_SERVICE"),
        ((3, [*AUTH, "USE_NOTHING"]), Invalid, "no flag USE_NOTHING"),
        ((3, []), Invalid, "at least one flag"),
        ((99, None), NotFound, "no week 99"),
        ((10**12, None), NotFound, "no week 1000000000000"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_and_told(asking, error, said, plan, manager):
    number, flags = asking
    with pytest.raises(error, match=said) as refusal:
        request_approval(number=number, actor=manager, flags=flags, reason="go on")
    assert not ApprovalRequest.objects.exists()
    event = refused()
    assert (event.actor, event.reason, event.subject) == (manager.name, "go on", f"week {number}")
    assert event.after == {"refused": str(refusal.value), "because": error.__name__}
    assert event.before["asked"] == "ask for approval"
    assert event.week_number == (number if number < 10 else None)


@pytest.mark.parametrize("role", [Role.VIEWER, Role.SUPPORT, Role.APPROVER, Role.ADMINISTRATOR])
def test_only_release_managers_ask(plan, people, role):
    with pytest.raises(NotPermitted):
        request_approval(number=3, actor=people[role])
    assert not ApprovalRequest.objects.exists()
    assert refused().actor == people[role].name


def test_asking_again_for_what_is_asked_for_changes_nothing(asked, manager, shell):
    key, events = uuid4(), AuditEvent.objects.count()
    assert not request_approval(number=3, actor=manager).changed
    assert not request_approval(number=3, actor=shell, flags=AUTH, request_key=key).changed
    assert AuditEvent.objects.count() == events
    assert ApprovalRequest.objects.get().actor == manager.name


def test_the_same_click_asks_once(plan, manager):
    key = uuid4()
    first = request_approval(number=3, actor=manager, request_key=key)
    again = request_approval(number=3, actor=manager, request_key=key)
    assert (again.changed, again.event) == (False, first.event)


def expire(row: ApprovalRequest) -> None:
    ApprovalRequest.objects.filter(pk=row.pk).update(expires_at=timezone.now() - timedelta(minutes=3))


# How a request comes to count no more, and what is said of it.
VOID = [
    (expire, "it expired 3 min ago"),
    (lambda _row: revise_plan(), "it was asked for revision 1 of the plan, which is at 2"),
    (lambda _row: Service.objects.filter(key="auth").update(port=4010), "have changed since it was asked for"),
]
WAYS = ["expired", "plan changed", "target changed"]


@pytest.mark.parametrize(("make_void", "said"), VOID, ids=WAYS)
def test_a_request_that_counts_no_more_is_replaced_by_the_next(asked, manager, approver, make_void, said):
    give_approval(request_id=asked.pk, actor=approver)
    assert approval_line().held
    make_void(asked)
    assert not approval_line().held
    change = request_approval(number=3, actor=manager)
    asked.refresh_from_db()
    assert asked.closed_at is not None
    assert asked.closed_because.startswith("replaced: ")
    assert said in asked.closed_because
    assert (change.event.before["request"], change.event.before["closed_because"]) == (asked.pk, asked.closed_because)
    assert approval_line().value == "0 of 1, asked for by release-manager"
    new = ApprovalRequest.objects.get(closed_at=None)
    assert give_approval(request_id=new.pk, actor=approver).changed
    assert approval_line().held


@pytest.mark.parametrize(("make_void", "said"), VOID, ids=WAYS)
def test_a_request_that_counts_no_more_cannot_be_approved(asked, approver, make_void, said):
    make_void(asked)
    with pytest.raises(Stale, match=said):
        give_approval(request_id=asked.pk, actor=approver, reason="fine")
    assert not Approval.objects.exists()
    event = refused()
    assert (event.subject, event.week_number) == (f"week 3 / approval {asked.pk}", 3)
    assert event.before == {"asked": "give approval", "request": asked.pk}
    assert event.after["because"] == "Stale"
    assert said in event.after["refused"]


def test_a_request_lasts_for_its_time_and_not_a_second_longer(asked, approver, time_machine):
    give_approval(request_id=asked.pk, actor=approver)
    time_machine.move_to(asked.expires_at - timedelta(seconds=1), tick=False)
    assert approval_line().held
    assert approval_line().warning == "Expires in 1 s."
    time_machine.move_to(asked.expires_at, tick=False)
    assert approval_line().value == "expired 0 s ago"


def test_an_approval_opens_the_gate_for_one_change(asked, manager, approver):
    put_behind(1, 2)
    tick_all(3, manager)
    with pytest.raises(GateClosed) as closed:
        enable_week(number=3, actor=manager, reason="as planned")
    assert [line.key for line in closed.value.verdict.blocking] == ["approval"]
    version = Week.objects.get(number=3).version
    change = give_approval(request_id=asked.pk, actor=approver, reason="read it all")
    assert Week.objects.get(number=3).version == version + 1
    exact = {"request": asked.pk, "flags": AUTH, "weight": 100, "revision": 1, "asked_by": manager.name}
    assert change.event.kind == AuditKind.APPROVAL_GIVEN
    assert change.event.before == {**exact, "approved_by": []}
    assert change.event.after == {**exact, "approved_by": ["approver"]}
    answer = Approval.objects.get()
    assert (answer.actor, answer.account, answer.decision) == ("approver", approver.account, Decision.GIVEN)
    assert answer.reason == change.event.reason == "read it all"
    enabled = enable_week(number=3, actor=manager, reason="as planned")
    (line,) = [line for line in enabled.event.verdict["lines"] if line["key"] == "approval"]
    assert (line["held"], line["value"]) == (True, "1 of 1: approver")
    with pytest.raises(Stale, match="the change was made"):
        give_approval(request_id=asked.pk, actor=approver)
    roll_back_week(number=3, actor=manager)
    with pytest.raises(GateClosed) as closed:
        enable_week(number=3, actor=manager, reason="once more")
    assert [line.value for line in closed.value.verdict.blocking] == ["not asked for"]


def test_nobody_approves_what_they_have_asked_for(plan):
    both = account("both", Role.RELEASE_MANAGER, Role.APPROVER)
    request_approval(number=3, actor=both)
    row = ApprovalRequest.objects.get()
    with pytest.raises(NotPermitted, match="both has asked for it; somebody else must approve it"):
        give_approval(request_id=row.pk, actor=both)
    assert not Approval.objects.exists()
    assert refused().after["because"] == "NotPermitted"
    User.objects.filter(username="both").update(username="renamed")
    with pytest.raises(NotPermitted, match="renamed has asked for it"):
        give_approval(request_id=row.pk, actor=Actor.at_shell("renamed"))
    assert not approval_line().held


def test_an_account_does_not_approve_what_was_asked_for_in_its_name_at_a_shell(plan, people):
    User.objects.filter(username="approver").update(username="away")
    request_approval(number=3, actor=Actor.at_shell("approver"))
    User.objects.filter(username="away").update(username="approver")
    with pytest.raises(NotPermitted, match="approver has asked for it"):
        give_approval(request_id=ApprovalRequest.objects.get().pk, actor=Actor.at_shell("approver"))


def test_a_name_without_an_account_approves_nothing(asked, shell):
    for act in (give_approval, decline_approval):
        with pytest.raises(NotPermitted, match="tester is no account, and only accounts approve"):
            act(request_id=asked.pk, actor=shell, reason="me")
    with pytest.raises(NotPermitted, match="switchyard is no account"):
        give_approval(request_id=asked.pk, actor=SYSTEM)
    assert not Approval.objects.exists()
    refused(3)


@pytest.mark.parametrize("role", [Role.VIEWER, Role.SUPPORT, Role.RELEASE_MANAGER, Role.ADMINISTRATOR])
@pytest.mark.parametrize("act", [give_approval, decline_approval])
def test_only_approvers_answer(asked, people, role, act):
    with pytest.raises(NotPermitted):
        act(request_id=asked.pk, actor=account("other", role), reason="me")
    assert not Approval.objects.exists()
    assert refused().actor == "other"


def test_the_role_that_counts_is_the_one_that_the_week_names(asked, approver):
    Week.objects.filter(number=3).update(approver_role=Role.ADMINISTRATOR)
    with pytest.raises(NotPermitted, match="Week 3 is approved by administrators, and approver is none"):
        give_approval(request_id=asked.pk, actor=approver)


def test_a_role_that_was_taken_or_an_account_that_was_closed_approves_no_more(asked, approver, shell):
    assert approver.account.has_perm("migrations_app.approve")  # as the session of an open page still has it
    set_role(name="approver", role=Role.SUPPORT, actor=shell)
    with pytest.raises(NotPermitted, match="may no longer approve changes"):
        give_approval(request_id=asked.pk, actor=approver)
    set_role(name="approver", role=Role.APPROVER, actor=shell)
    deactivate(name="approver", actor=shell)
    with pytest.raises(NotPermitted, match="may no longer approve changes"):
        give_approval(request_id=asked.pk, actor=approver)
    assert not Approval.objects.exists()


def test_an_approval_counts_for_as_long_as_its_author_has_the_role(asked, approver, shell):
    give_approval(request_id=asked.pk, actor=approver)
    set_role(name="approver", role=Role.SUPPORT, actor=shell)
    assert not approval_line().held
    set_role(name="approver", role=Role.APPROVER, actor=shell)
    assert approval_line().held
    deactivate(name="approver", actor=shell)
    assert not approval_line().held


def test_one_person_is_one_approval(asked, approver):
    Week.objects.filter(number=3).update(approvals_needed=2)
    give_approval(request_id=asked.pk, actor=approver)
    events = AuditEvent.objects.count()
    again = give_approval(request_id=asked.pk, actor=approver, request_key=uuid4())
    assert (again.changed, again.event) == (False, None)
    assert AuditEvent.objects.count() == events
    assert approval_line().value == "1 of 2: approver"
    give_approval(request_id=asked.pk, actor=account("second", Role.APPROVER))
    assert approval_line().value == "2 of 2: approver, second"
    assert approval_line().held
    with pytest.raises(IntegrityError, match="one_live_answer_per_person"), transaction.atomic():
        Approval.objects.create(request=asked, actor="approver", decision=Decision.GIVEN, at=timezone.now())


def test_an_unknown_request_is_named(plan, approver):
    for act in (give_approval, decline_approval, withdraw_approval):
        with pytest.raises(NotFound, match="There is no request 4711"):
            act(request_id=4711, actor=approver, reason="x")
    assert refused(3).subject == "approval 4711"


def test_a_request_that_is_declined_is_over_and_says_why(asked, manager, approver):
    other = account("second", Role.APPROVER)
    give_approval(request_id=asked.pk, actor=other)
    change = decline_approval(request_id=asked.pk, actor=approver, reason="not on a Friday")
    assert change.event.kind == AuditKind.APPROVAL_DECLINED
    assert change.event.before["approved_by"] == ["second"]
    assert change.event.after["closed_because"] == "declined by approver: not on a Friday"
    asked.refresh_from_db()
    assert asked.closed_because == "declined by approver: not on a Friday"
    assert approval_line().value == "not asked for"
    with pytest.raises(Stale, match="This request is over: declined by approver: not on a Friday"):
        give_approval(request_id=asked.pk, actor=other)
    with pytest.raises(Stale, match="declined by approver"):
        withdraw_approval(request_id=asked.pk, actor=manager)
    assert not decline_approval(request_id=asked.pk, actor=approver, reason="again").changed
    assert request_approval(number=3, actor=manager).changed


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_nothing_is_declined_without_a_reason(asked, approver, reason):
    with pytest.raises(Invalid, match="Say why"):
        decline_approval(request_id=asked.pk, actor=approver, reason=reason)
    asked.refresh_from_db()
    assert asked.closed_at is None
    assert (refused().subject, refused().week_number) == (f"week 3 / approval {asked.pk}", 3)


def test_a_long_reason_is_kept_whole_with_the_answer(asked, approver):
    reason = "no " * 300
    decline_approval(request_id=asked.pk, actor=approver, reason=reason)
    asked.refresh_from_db()
    assert len(asked.closed_because) == 300
    assert Approval.objects.get().reason == reason.strip()


def test_whoever_has_approved_can_still_decline(asked, approver):
    give_approval(request_id=asked.pk, actor=approver)
    assert decline_approval(request_id=asked.pk, actor=approver, reason="the backup is old").changed
    assert [row.decision for row in Approval.objects.filter(withdrawn_at=None)] == [Decision.DECLINED]
    assert Approval.objects.count() == 2
    assert not approval_line().held


def test_whoever_asked_withdraws_and_does_not_decline(plan):
    both = account("both", Role.RELEASE_MANAGER, Role.APPROVER)
    request_approval(number=3, actor=both)
    row = ApprovalRequest.objects.get()
    with pytest.raises(NotPermitted, match="can withdraw it instead"):
        decline_approval(request_id=row.pk, actor=both, reason="changed my mind")
    assert withdraw_approval(request_id=row.pk, actor=both, reason="changed my mind").changed


def test_a_request_that_is_withdrawn_is_over(asked, manager, approver):
    give_approval(request_id=asked.pk, actor=approver)
    version = Week.objects.get(number=3).version
    change = withdraw_approval(request_id=asked.pk, actor=manager, reason="another day")
    assert change.event.kind == AuditKind.APPROVAL_WITHDRAWN
    assert change.event.after["closed_because"] == "withdrawn by release-manager"
    assert Week.objects.get(number=3).version == version + 1
    assert not approval_line().held
    events = AuditEvent.objects.count()
    assert not withdraw_approval(request_id=asked.pk, actor=manager).changed
    assert AuditEvent.objects.count() == events
    with pytest.raises(Stale, match="withdrawn by release-manager"):
        give_approval(request_id=asked.pk, actor=approver)


def test_an_approval_that_is_withdrawn_counts_no_more_and_can_be_given_again(asked, approver):
    give_approval(request_id=asked.pk, actor=approver)
    change = withdraw_approval(request_id=asked.pk, actor=approver)
    assert (change.event.before["approved_by"], change.event.after["approved_by"]) == (["approver"], [])
    assert not approval_line().held
    assert not withdraw_approval(request_id=asked.pk, actor=approver).changed
    asked.refresh_from_db()
    assert asked.closed_at is None
    assert give_approval(request_id=asked.pk, actor=approver).changed
    assert approval_line().held
    assert Approval.objects.count() == 2


@pytest.mark.parametrize("role", list(Role))
def test_nobody_withdraws_what_is_not_theirs(asked, approver, role):
    give_approval(request_id=asked.pk, actor=approver)
    with pytest.raises(NotPermitted, match="other has neither asked for it nor approved it"):
        withdraw_approval(request_id=asked.pk, actor=account("other", role))
    assert approval_line().held
    assert refused().before == {"asked": "withdraw approval", "request": asked.pk}


def test_a_name_at_a_shell_withdraws_what_it_has_asked_for_and_not_what_an_account_has(asked, shell, approver):
    with pytest.raises(NotPermitted):
        withdraw_approval(request_id=asked.pk, actor=Actor(asked.actor, shell.kind))
    request_approval(number=4, actor=shell)
    own = ApprovalRequest.objects.get(week__number=4)
    with pytest.raises(NotPermitted):
        withdraw_approval(request_id=own.pk, actor=Actor.at_shell("somebody else"))
    with pytest.raises(NotPermitted):
        withdraw_approval(request_id=own.pk, actor=account("tester", Role.RELEASE_MANAGER))
    assert withdraw_approval(request_id=own.pk, actor=shell).changed


def test_a_change_that_was_made_cannot_be_taken_out_of_its_approval(asked, manager, approver):
    put_behind(1, 2)
    tick_all(3, manager)
    give_approval(request_id=asked.pk, actor=approver)
    enable_week(number=3, actor=manager, reason="as planned")
    for actor in (manager, approver):
        with pytest.raises(Stale, match="the change was made"):
            withdraw_approval(request_id=asked.pk, actor=actor)
    with pytest.raises(Stale, match="the change was made"):
        decline_approval(request_id=asked.pk, actor=approver, reason="too late")


def test_a_click_that_is_sent_again_after_a_withdrawal_gives_nothing_back(asked, approver):
    key = uuid4()
    first = give_approval(request_id=asked.pk, actor=approver, request_key=key)
    again = give_approval(request_id=asked.pk, actor=approver, request_key=key)
    assert (again.changed, again.event) == (False, first.event)
    withdraw_approval(request_id=asked.pk, actor=approver)
    with pytest.raises(Stale, match="This click was carried out before"):
        give_approval(request_id=asked.pk, actor=approver, request_key=key)
    assert not approval_line().held
    event = refused()
    assert event.before["request_key"] == str(key)
    assert event.request_key is None


@pytest.mark.parametrize("act", [give_approval, decline_approval, withdraw_approval])
def test_a_page_older_than_the_week_decides_nothing(asked, manager, approver, act):
    seen = Week.objects.get(number=3).version
    actor = manager if act is withdraw_approval else approver
    tick_all(3, manager)
    with pytest.raises(Stale, match="has changed since this page was loaded"):
        act(request_id=asked.pk, actor=actor, reason="x", seen=seen)
    assert refused().before["seen"] == seen
    assert act(request_id=asked.pk, actor=actor, reason="x", seen=Week.objects.get(number=3).version).changed


def test_a_page_older_than_the_week_asks_for_nothing(plan, manager):
    seen = Week.objects.get(number=3).version
    tick_all(3, manager)
    with pytest.raises(Stale):
        request_approval(number=3, actor=manager, seen=seen)
    assert not ApprovalRequest.objects.exists()


def test_a_forged_field_fills_no_log(plan, manager):
    forged = ["x" * 10_000, *(f"FLAG_{number}" for number in range(500))]
    with pytest.raises(Invalid) as refusal:
        request_approval(number=3, actor=manager, flags=forged)
    assert len(str(refusal.value)) < 300
    kept = refused().before["flags"]
    assert len(kept) == 50
    assert max(map(len, kept)) <= 200


@pytest.mark.parametrize("jump", [timedelta(hours=-1), timedelta(hours=1)])
def test_a_clock_that_jumps_changes_no_order(asked, manager, approver, time_machine, jump):
    now = timezone.now()
    kinds = [AuditKind.APPROVAL_GIVEN, AuditKind.APPROVAL_WITHDRAWN, AuditKind.APPROVAL_GIVEN]
    last = AuditEvent.objects.first().pk
    acts = [give_approval, withdraw_approval, give_approval]
    for number, act in enumerate(acts):
        time_machine.move_to(now + jump * (number % 2), tick=False)
        assert act(request_id=asked.pk, actor=approver).changed
    events = list(AuditEvent.objects.filter(pk__gt=last).order_by("pk"))
    assert [event.kind for event in events] == kinds
    assert [event.at - now for event in events] == [timedelta(0), jump, timedelta(0)]
    assert check_chain().broken_at is None
    assert approval_line().held


@pytest.fixture
def committed(transactional_db, settings) -> dict[Role, Actor]:
    """The plan and its people, committed, so that threads see them."""
    settings.CELERY_BROKER_URL = ""
    load_plan(tracseq(adapter="memory", by_hand=True), actor=SYSTEM)
    make_healthy()
    people = make_people()
    request_approval(number=3, actor=people[Role.RELEASE_MANAGER])
    return people


def kinds() -> list[str]:
    return list(AuditEvent.objects.filter(kind__startswith="approval.").order_by("pk").values_list("kind", flat=True))


def test_two_people_who_approve_at_once_are_two_approvals(committed):
    Week.objects.filter(number=3).update(approvals_needed=2)
    row, second = ApprovalRequest.objects.get(), account("second", Role.APPROVER)
    raised = in_threads(
        lambda: give_approval(request_id=row.pk, actor=committed[Role.APPROVER]),
        lambda: give_approval(request_id=row.pk, actor=second),
    )
    assert raised == []
    assert approval_line().held
    first, last = AuditEvent.objects.filter(kind=AuditKind.APPROVAL_GIVEN).order_by("pk")
    assert first.after == last.before
    assert last.after["approved_by"] == ["approver", "second"]


def test_one_person_who_approves_twice_at_once_is_one_approval(committed):
    row = ApprovalRequest.objects.get()
    changes = []

    def give() -> None:
        changes.append(give_approval(request_id=row.pk, actor=committed[Role.APPROVER]))

    assert in_threads(give, give, give) == []
    assert sorted(change.changed for change in changes) == [False, False, True]
    assert Approval.objects.count() == 1
    assert kinds() == [AuditKind.APPROVAL_REQUESTED, AuditKind.APPROVAL_GIVEN]


def test_approving_against_withdrawing_has_one_order(committed):
    manager, approver = committed[Role.RELEASE_MANAGER], committed[Role.APPROVER]
    for _ in range(12):
        row = ApprovalRequest.objects.get(closed_at=None)
        before = len(kinds())
        raised = in_threads(
            lambda row=row: give_approval(request_id=row.pk, actor=approver),
            lambda row=row: withdraw_approval(request_id=row.pk, actor=manager),
        )
        told = kinds()[before:]
        row.refresh_from_db()
        assert row.closed_because == "withdrawn by release-manager"
        assert not approval_line().held
        if raised:
            assert [type(error) for error in raised] == [Stale]
            assert told == [AuditKind.APPROVAL_WITHDRAWN]
            assert not row.approvals.exists()
        else:
            assert told == [AuditKind.APPROVAL_GIVEN, AuditKind.APPROVAL_WITHDRAWN]
            assert row.approvals.count() == 1
        request_approval(number=3, actor=manager)
    assert check_chain().broken_at is None


def test_asking_against_a_changed_plan_never_leaves_an_approval_of_the_old_one(committed):
    manager, approver = committed[Role.RELEASE_MANAGER], committed[Role.APPROVER]
    for _ in range(8):
        revise_plan()  # so that there is something to ask for
        raised = in_threads(lambda: request_approval(number=3, actor=manager), revise_plan)
        assert raised == []
        row, revision = ApprovalRequest.objects.filter(closed_at=None).get(), Plan.objects.get().revision
        asked, loaded = (
            AuditEvent.objects.filter(kind=kind).first()
            for kind in (AuditKind.APPROVAL_REQUESTED, AuditKind.PLAN_LOADED)
        )
        assert row.revision == (revision if asked.pk > loaded.pk else revision - 1)
        if row.revision == revision:
            assert give_approval(request_id=row.pk, actor=approver).changed
        else:
            with pytest.raises(Stale, match="revision"):
                give_approval(request_id=row.pk, actor=approver)
        assert approval_line().held is (row.revision == revision)


def test_two_who_ask_at_once_have_asked_once(committed):
    manager = committed[Role.RELEASE_MANAGER]
    for round_ in range(5):
        withdraw_approval(request_id=ApprovalRequest.objects.get(closed_at=None).pk, actor=manager)
        assert in_threads(*[lambda: request_approval(number=3, actor=manager)] * 3) == []
        assert ApprovalRequest.objects.filter(closed_at=None).count() == 1
        assert kinds().count(AuditKind.APPROVAL_REQUESTED) == round_ + 2
