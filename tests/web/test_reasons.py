"""Why something was rolled back: asked for on the timeline, given on the page of the event, shown in the log."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from migrations_app.actions.flags import roll_back_flag
from migrations_app.choices import AuditKind
from migrations_app.models import AuditEvent, Service
from migrations_app.roles import Role
from tests.factories import put_behind
from tests.web.conftest import fields, text_of

ASKED = "Why?"


@pytest.fixture
def rolled_back(manager) -> AuditEvent:
    put_behind(1, 2)
    assert manager.post("/flags/USE_RAG_SERVICE/rollback/").status_code == 303
    return AuditEvent.objects.get(kind=AuditKind.FLAG_ROLLED_BACK)


def say(client, event: AuditEvent, reason: str, **more: str):
    return client.post(f"/audit/{event.pk}/reason/", {"reason": reason, **more})


def test_its_author_is_asked_on_the_timeline_until_it_is_given(manager, rolled_back):
    page = manager.get("/")
    title = Service.objects.get(key="rag").title
    assert f"You rolled back {title} at" in text_of(page)
    assert ASKED in text_of(page)
    assert f'href="/audit/{rolled_back.pk}/#why"' in page.content.decode()
    assert say(manager, rolled_back, "answers were wrong").status_code == 303
    assert ASKED not in text_of(manager.get("/"))


def test_nobody_else_is_asked_and_who_owes_nothing_costs_no_question(clients, rolled_back):
    assert ASKED not in text_of(clients[Role.ADMINISTRATOR].get("/"))
    manager = clients[Role.RELEASE_MANAGER]

    def queries() -> int:
        with CaptureQueriesContext(connection) as found:
            manager.get("/")
        return len(found)

    queries()
    owing = queries()
    say(manager, rolled_back, "errors")
    manager.get("/")  # tells the outcome, once
    assert queries() == owing - 1


def test_at_most_three_are_asked_for_at_a_time(manager, people):
    actor = people[Role.RELEASE_MANAGER]
    for _ in range(4):
        put_behind(1)
        roll_back_flag(key="USE_RAG_SERVICE", actor=actor)
    words = text_of(manager.get("/"))
    assert words.count(ASKED) == 3
    assert words.count("There are older ones too.") == 1


def test_the_page_of_the_event_asks_and_shows_the_answer(manager, clients, rolled_back):
    page = manager.get(f"/audit/{rolled_back.pk}/")
    assert "You rolled back USE_RAG_SERVICE. Why?" in text_of(page)
    response = manager.post(
        f"/audit/{rolled_back.pk}/reason/",
        fields(page, f"/audit/{rolled_back.pk}/reason/") | {"reason": "wrong <answers>"},
    )
    assert (response.status_code, response["Location"]) == (303, f"/audit/{rolled_back.pk}/")
    words = text_of(manager.get(f"/audit/{rolled_back.pk}/"))
    assert "Your reason is kept with the rollback." in words
    assert "Reason, given afterwards wrong <answers> release-manager" in words
    answer = AuditEvent.objects.get(kind=AuditKind.REASON_GIVEN)
    assert f"Says why event {rolled_back.pk} was." in text_of(manager.get(f"/audit/{answer.pk}/"))
    assert "wrong <answers> release-manager, afterwards" in text_of(manager.get("/audit/?kind=flag.rolled_back"))


def test_an_administrator_may_give_it_and_an_approver_may_not(clients, rolled_back):
    page = f"/audit/{rolled_back.pk}/"
    assert "release-manager rolled back USE_RAG_SERVICE. Why?" in text_of(clients[Role.ADMINISTRATOR].get(page))
    assert "release-manager is asked for it" in text_of(clients[Role.APPROVER].get(page))
    assert "No reason yet" in text_of(clients[Role.APPROVER].get("/audit/"))
    assert say(clients[Role.APPROVER], rolled_back, "I know").status_code == 403
    assert say(clients[Role.VIEWER], rolled_back, "I know").status_code == 403
    assert say(clients[Role.ADMINISTRATOR], rolled_back, "they told me").status_code == 303
    assert AuditEvent.objects.get(kind=AuditKind.REASON_GIVEN).actor == "administrator"


def test_what_is_refused_is_told_in_place(manager, rolled_back):
    empty = say(manager, rolled_back, "  ")
    assert empty.status_code == 422
    assert "Say why: a few words are enough." in text_of(empty)
    assert say(manager, rolled_back, "x" * 1001).status_code == 422
    assert say(manager, rolled_back, "first").status_code == 303
    assert say(manager, rolled_back, "second").status_code == 409
    assert manager.post("/audit/999999/reason/", {"reason": "x"}).status_code == 404
    assert manager.get(f"/audit/{rolled_back.pk}/reason/")["Location"] == f"/audit/{rolled_back.pk}/"


def test_a_rollback_with_a_reason_asks_nothing(manager):
    put_behind(1)
    manager.post("/weeks/1/rollback/", {"reason": "errors"})
    event = AuditEvent.objects.get(kind=AuditKind.WEEK_ROLLED_BACK)
    assert ASKED not in text_of(manager.get("/"))
    assert ASKED not in text_of(manager.get(f"/audit/{event.pk}/"))
