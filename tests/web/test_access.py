"""What each role sees, and that nothing is open to nobody."""

import re

import pytest
from django.test import Client
from django.urls import URLPattern, get_resolver, reverse

from migrations_app.models import Plan
from migrations_app.roles import Role
from migrations_app.web.api import ENDPOINTS
from tests.factories import tick_all
from tests.web.conftest import text_of

PAGES = [
    "/",
    "/rollback/",
    "/freezes/",
    "/maintenance/",
    "/maintenance/live/",
    "/live/every-page/",
    "/weeks/1/",
    "/weeks/6/",
    "/services/",
    "/services/auth/",
    "/gateway/",
    "/live/",
    "/live/services/",
    "/weeks/1/live/",
]
OPEN = {"sign-in", "healthz", "metrics"} | {one.name for one in ENDPOINTS}  # the API answers 401 itself
NUMBERS = ("number", "prerequisite_id", "request_id", "freeze_id", "window_id", "evidence_id", "event_id")
ARGUMENTS = dict.fromkeys(NUMBERS, 1) | {"key": "auth"}


def test_every_address_but_the_open_ones_needs_a_session(plan):
    patterns = [pattern for pattern in get_resolver().url_patterns[0].url_patterns if isinstance(pattern, URLPattern)]
    assert len(patterns) > 28
    for pattern in patterns:
        assert Plan.objects.exists()  # most of these ask the database nothing, and it ends a transaction that idles
        wanted = {name: ARGUMENTS[name] for name in pattern.pattern.regex.groupindex}
        for method in ("get", "post"):
            response = getattr(Client(), method)(reverse(pattern.name, kwargs=wanted))
            signs_in = response.status_code == 302 and response["Location"].startswith("/sign-in/")
            assert signs_in != (pattern.name in OPEN), pattern.name


@pytest.mark.parametrize("role", list(Role))
def test_every_role_sees_the_plan(clients, role):
    for page in [*PAGES, "/services/auth/live/", "/gateway/live/"]:
        assert clients[role].get(page).status_code == 200, page


def test_an_account_without_a_role_sees_nothing_and_is_told_whom_to_ask(plan, django_user_model):
    client = Client()
    client.force_login(django_user_model.objects.create_user("nobody"))
    for page in PAGES:
        response = client.get(page)
        assert response.status_code == 403
        assert "open to viewers, the support team, release managers, approvers and administrators" in text_of(response)


def buttons(client, page):
    content = client.get(page).content.decode()
    return {word for word in ("enable", "rollback", "tick") if re.search(rf'action="[^"]*/{word}/"', content)}


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        (Role.VIEWER, (set(), set())),
        (Role.SUPPORT, (set(), set())),
        (Role.RELEASE_MANAGER, ({"enable", "tick"}, {"rollback", "tick"})),
        (Role.APPROVER, ({"tick"}, {"rollback", "tick"})),
        (Role.ADMINISTRATOR, (set(), {"rollback"})),
    ],
)
def test_each_role_gets_the_buttons_that_it_may_use(clients, people, manager, role, expected):
    closed, on = expected
    assert buttons(clients[role], "/weeks/1/") == closed
    tick_all(1, people[Role.RELEASE_MANAGER])
    assert manager.post("/weeks/1/enable/").status_code == 303
    assert buttons(clients[role], "/weeks/1/") == on
    # The criteria of being done are ticked on the page of the week alone.
    assert buttons(clients[role], "/services/rag/") == on - {"tick"}


def test_a_role_that_may_not_roll_back_reads_who_may(clients, people, manager, support):
    tick_all(1, people[Role.RELEASE_MANAGER])
    manager.post("/weeks/1/enable/")
    assert "Release managers, approvers and administrators can roll back." in text_of(support.get("/weeks/1/"))


@pytest.mark.parametrize("role", [Role.RELEASE_MANAGER, Role.APPROVER, Role.ADMINISTRATOR])
def test_the_audit_log_is_open_to(clients, role):
    assert clients[role].get("/audit/").status_code == 200
    assert "/audit/" in clients[role].get("/").content.decode()


def test_the_audit_log_is_closed_to_support(support):
    assert support.get("/audit/").status_code == 403
    assert "/audit/" not in support.get("/").content.decode()
