"""What goes wrong is told in place: a page for a page, a notice for htmx. And the answers every page carries."""

import pytest
from django.db import DatabaseError
from django.test import Client

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


def test_the_policy_allows_nothing_inline(manager):
    policy = manager.get("/")["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
