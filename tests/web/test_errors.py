"""What goes wrong is told in place: a page for a page, a notice for htmx. And the answers every page carries."""

import pytest
from django.db import DatabaseError
from django.test import Client

from migrations_app.errors import Busy
from migrations_app.web import healthz
from tests.web.conftest import HTMX, text_of


def test_healthz_needs_no_session(db):
    response = Client().get("/healthz")
    assert (response.status_code, response.content) == (200, b"ok")


def test_healthz_says_when_the_database_is_away(monkeypatch):
    class Away:
        def cursor(self):
            raise DatabaseError("no")

    monkeypatch.setattr(healthz, "connection", Away())
    assert Client().get("/healthz").status_code == 503


@pytest.mark.parametrize("headers", [{}, HTMX])
def test_a_form_without_its_token_is_told_in_place(plan, people, headers):
    client = Client(enforce_csrf_checks=True)
    client.force_login(next(iter(people.values())).account)
    response = client.post("/weeks/1/rollback/", headers=headers)
    assert response.status_code == 403
    assert "This form is too old" in text_of(response)
    assert ("<html" in response.content.decode()) == (not headers)
    assert response.get("HX-Retarget") == ("#notices" if headers else None)


def test_a_lost_page_is_told(manager):
    page, notice = manager.get("/nothing/here/"), manager.get("/nothing/here/", headers=HTMX)
    assert (page.status_code, notice.status_code) == (404, 404)
    assert "There is nothing here" in text_of(page)
    assert "<html" not in notice.content.decode()


def test_a_fault_is_told_without_the_database(manager, monkeypatch):
    def broken():
        raise DatabaseError("secret detail")

    monkeypatch.setattr("migrations_app.web.weeks.load_board", broken)
    manager.raise_request_exception = False
    for headers in ({}, HTMX):
        response = manager.get("/weeks/1/", headers=headers)
        assert response.status_code == 500
        assert "secret detail" not in response.content.decode()
        assert "traffic keeps going where it goes" in text_of(response)
        assert ("<html" in response.content.decode()) == (not headers)


@pytest.mark.parametrize("path", ["/weeks/1/rollback/", "/flags/USE_RAG_SERVICE/rollback/"])
def test_a_rollback_that_meets_a_fault_or_a_held_plan_is_told_how_to_be_done_by_hand(manager, monkeypatch, path):
    def raising(error: Exception):
        def act(**_):
            raise error

        return act

    manager.raise_request_exception = False
    for error, status, said in (
        (DatabaseError("no"), 500, "manage.py panic"),
        (Busy("Another change has held the plan."), 503, "rollback 1" if "weeks" in path else "USE_RAG_SERVICE"),
    ):
        monkeypatch.setattr("migrations_app.web.weeks.roll_back_week", raising(error))
        monkeypatch.setattr("migrations_app.web.flags.roll_back_flag", raising(error))
        response = manager.post(path)
        assert response.status_code == status
        assert "by hand" in text_of(response).lower()
        assert said in text_of(response)
    assert "by hand" not in text_of(manager.get("/nothing/here/")).lower()


def test_the_policy_allows_nothing_inline(manager):
    policy = manager.get("/")["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
