"""Asking for approval, answering and taking back, from the page of a week."""

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from migrations_app.choices import AuditKind
from migrations_app.models import Approval, ApprovalRequest, AuditEvent, Flag, Plan
from migrations_app.roles import Role
from tests.factories import approve, put_behind, tick_all
from tests.web.conftest import HTMX, fields, text_of

ASK = "/weeks/3/approvals/ask/"


@pytest.fixture
def asked(manager):
    """Week 3's request, asked for by the release manager."""
    data = fields(manager.get("/weeks/3/"), ASK) | {"reason": "the backup is done"}
    assert manager.post(ASK, data, headers=HTMX).status_code == 200
    return ApprovalRequest.objects.get()


@pytest.fixture
def approver(clients):
    return clients[Role.APPROVER]


def address(row, verb):
    return f"/approvals/{row.pk}/{verb}/"


def test_the_panel_says_exactly_what_is_approved_who_asked_and_why(manager, approver, asked):
    said = text_of(approver.get("/weeks/3/"))
    for words in (
        "Waiting, 0 of 1: all of week 3",
        "USE_AUTH_SERVICE 0 → 100 %",
        f"plan revision {Plan.objects.get().revision}",
        "Asked by release-manager",
        "Counts until",
        "the backup is done",
    ):
        assert words in said
    assert "You asked for it, so somebody else approves: 1 approver." in text_of(manager.get("/weeks/3/"))


def test_an_approval_holds_the_line_and_can_be_taken_back(approver, asked):
    give = address(asked, "give")
    response = approver.post(give, fields(approver.get("/weeks/3/"), give), headers=HTMX)
    assert response.status_code == 200
    said = text_of(response)
    assert "You approved" in said
    assert "Approved 1 of 1: approver" in said
    withdraw = address(asked, "withdraw")
    response = approver.post(withdraw, fields(response, withdraw), headers=HTMX)
    assert response.status_code == 200
    assert "Waiting, 0 of 1" in text_of(response)


def test_a_declined_request_says_why_to_who_asked(manager, approver, asked):
    response = approver.post(address(asked, "decline"), {"reason": "not with an old backup"}, headers=HTMX)
    assert response.status_code == 200
    said = text_of(manager.get("/weeks/3/"))
    assert "declined by approver: not with an old backup" in said
    assert "Not asked for" in said
    assert fields(manager.get("/weeks/3/"), ASK)


def test_declining_needs_a_reason(approver, asked):
    response = approver.post(address(asked, "decline"), {"reason": " "}, headers=HTMX)
    assert response.status_code == 422
    assert "Say why" in text_of(response)
    assert not Approval.objects.exists()


def test_whoever_asked_can_withdraw_and_not_approve(manager, asked, people):
    people[Role.RELEASE_MANAGER].account.groups.add(people[Role.APPROVER].account.groups.get())
    assert address(asked, "give") not in manager.get("/weeks/3/").content.decode()
    refused = manager.post(address(asked, "give"), headers=HTMX)
    assert refused.status_code == 403
    assert "somebody else must approve it" in text_of(refused)
    assert AuditEvent.objects.first().kind == AuditKind.ACTION_REFUSED
    withdraw = address(asked, "withdraw")
    assert manager.post(withdraw, fields(manager.get("/weeks/3/"), withdraw), headers=HTMX).status_code == 200
    asked.refresh_from_db()
    assert asked.closed_at is not None


@pytest.mark.parametrize("role", [Role.VIEWER, Role.SUPPORT, Role.RELEASE_MANAGER, Role.ADMINISTRATOR])
def test_only_approvers_answer(clients, asked, role):
    content = clients[role].get("/weeks/3/").content.decode()
    for verb in ("give", "decline"):
        assert address(asked, verb) not in content
        assert clients[role].post(address(asked, verb), {"reason": "x"}, headers=HTMX).status_code == 403
    assert not Approval.objects.exists()


@pytest.mark.parametrize("role", [Role.VIEWER, Role.SUPPORT, Role.APPROVER, Role.ADMINISTRATOR])
def test_only_release_managers_ask(clients, role):
    assert ASK not in clients[role].get("/weeks/3/").content.decode()
    assert clients[role].post(ASK, headers=HTMX).status_code == 403
    assert not ApprovalRequest.objects.exists()


def test_an_answer_on_an_older_page_is_told_that_nothing_was_done(approver, asked, people):
    stale = fields(approver.get("/weeks/3/"), address(asked, "give"))
    tick_all(3, people[Role.RELEASE_MANAGER])
    response = approver.post(address(asked, "give"), stale, headers=HTMX)
    assert response.status_code == 409
    assert "Nothing was done" in text_of(response)
    assert 'id="panel"' in response.content.decode()


def test_an_expired_request_counts_no_more_and_is_asked_for_anew(manager, approver, asked):
    ApprovalRequest.objects.update(expires_at=timezone.now() - timedelta(minutes=5))
    said = text_of(approver.get("/weeks/3/"))
    assert "It counts no more: it expired 5 min ago." in said
    assert address(asked, "give") not in approver.get("/weeks/3/").content.decode()
    assert approver.post(address(asked, "give"), headers=HTMX).status_code == 409
    assert manager.post(ASK, fields(manager.get("/weeks/3/"), ASK), headers=HTMX).status_code == 200
    assert ApprovalRequest.objects.filter(closed_at=None).count() == 1


def test_a_replayed_answer_changes_nothing(approver, asked):
    give, withdraw = address(asked, "give"), address(asked, "withdraw")
    data = fields(approver.get("/weeks/3/"), give)
    for _ in range(2):
        assert approver.post(give, data, headers=HTMX).status_code == 200
    assert Approval.objects.count() == 1
    approver.post(withdraw, headers=HTMX)
    again = approver.post(give, data, headers=HTMX)
    assert again.status_code == 409
    assert "carried out before" in text_of(again)


@pytest.mark.parametrize(
    ("forged", "status"),
    [({"flag": "USE_RAG_SERVICE"}, 422), ({"flag": "x" * 150}, 422), ({"seen": "x"}, 422), ({"request_key": "1"}, 422)],
)
def test_a_forged_field_is_refused(manager, forged, status):
    assert manager.post(ASK, forged, headers=HTMX).status_code == status
    assert not ApprovalRequest.objects.exists()


def test_one_service_of_a_week_can_be_approved_alone_and_its_button_looks_so(manager, approver, people):
    put_behind(3)
    tick_all(4, people[Role.RELEASE_MANAGER])
    ask = "/weeks/4/approvals/ask/"
    assert manager.post(ask, {"flag": "USE_SAMPLE_SERVICE"}, headers=HTMX).status_code == 200
    assert "Sample service alone" in text_of(approver.get("/weeks/4/"))

    def looks_shut(key):
        button = re.search(rf'<button class="([^"]*)" id="enable-{key}"', manager.get("/weeks/4/").content.decode())
        return "shut" in button[1].split()

    assert looks_shut("sample")
    row = ApprovalRequest.objects.get()
    for number in range(row.week.approvals_needed):
        giver = approver if number == 0 else second_approver(people)
        assert giver.post(address(row, "give"), headers=HTMX).status_code == 200
    assert not looks_shut("sample")
    assert looks_shut("sequencing")
    assert looks_shut("week-4")
    moved = manager.post("/flags/USE_SAMPLE_SERVICE/enable/", {"reason": "as planned"}, headers=HTMX)
    assert moved.status_code == 200
    assert Flag.objects.get(key="USE_SAMPLE_SERVICE").weight == 100


def second_approver(people):
    from django.contrib.auth.models import User
    from django.test import Client

    user = User.objects.create_user("approver-two")
    user.groups.add(people[Role.APPROVER].account.groups.get())
    client = Client()
    client.force_login(user)
    return client


def test_the_timeline_asks_approvers_that_have_not_answered(clients, approver, asked):
    assert "Week 3: release-manager asks for your approval." in text_of(approver.get("/"))
    assert f'href="/weeks/3/#request-{asked.pk}"' in approver.get("/").content.decode()
    for role in (Role.RELEASE_MANAGER, Role.SUPPORT, Role.ADMINISTRATOR):
        assert "asks for your approval" not in text_of(clients[role].get("/"))
    approver.post(address(asked, "give"), headers=HTMX)
    assert "asks for your approval" not in text_of(approver.get("/"))


def test_a_request_that_was_used_is_told_as_such(manager, people):
    put_behind(2)
    tick_all(3, people[Role.RELEASE_MANAGER])
    approve(3, people)
    assert manager.post("/weeks/3/enable/", {"reason": "as planned"}, headers=HTMX).status_code == 200
    assert "the change was made" in text_of(manager.get("/weeks/3/"))


@pytest.mark.parametrize("verb", ["give", "decline", "withdraw"])
def test_an_unknown_request_is_404_and_a_plain_look_leads_to_the_week(manager, asked, verb):
    assert manager.post(f"/approvals/9999/{verb}/").status_code == 404
    assert manager.get(address(asked, verb))["Location"] == "/weeks/3/"
