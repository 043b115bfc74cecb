"""One service's traffic, from the page of its week and from its own."""

import re

import pytest

from migrations_app.choices import AuditKind, Health
from migrations_app.models import AuditEvent, Flag, HealthState
from migrations_app.roles import Role
from tests.factories import approve, put_behind, tick_all
from tests.web.conftest import HTMX, fields, text_of

ENABLE, ROLL_BACK = "/flags/USE_RAG_SERVICE/enable/", "/flags/USE_RAG_SERVICE/rollback/"


@pytest.fixture
def ready(manager, people):
    for number in (1, 3):
        tick_all(number, people[Role.RELEASE_MANAGER])
    put_behind(2)
    approve(3, people)
    return manager


def weight(key="USE_RAG_SERVICE"):
    return Flag.objects.get(key=key).weight


def test_enable_moves_one_service_alone(ready):
    response = ready.post(ENABLE, fields(ready.get("/weeks/1/"), ENABLE), headers=HTMX)
    assert response.status_code == 200
    assert "RAG service is on. Applied on the gateway" in text_of(response)
    on = set(Flag.objects.filter(weight=100, week__number=1).values_list("key", flat=True))
    assert on == {"USE_RAG_SERVICE"}
    assert "1 of 3 on" in text_of(response)


def test_the_answer_is_the_page_that_was_clicked_on(ready):
    data = fields(ready.get("/services/rag/"), ENABLE)
    assert data["page"] == "service"
    response = ready.post(ENABLE, data, headers=HTMX)
    assert 'data-self="/services/rag/"' in response.content.decode()
    assert ready.post(ROLL_BACK, {"page": "service"})["Location"] == "/services/rag/"
    assert ready.post(ENABLE)["Location"] == "/weeks/1/"


def test_another_service_that_is_ill_does_not_block(ready):
    HealthState.objects.filter(target="storage").update(state=Health.UNHEALTHY)
    assert ready.post(ENABLE, headers=HTMX).status_code == 200
    ill = ready.post("/flags/USE_STORAGE_SERVICE/enable/", headers=HTMX)
    assert ill.status_code == 409
    assert "Storage service healthy" in text_of(ill)


def test_a_button_looks_open_only_when_the_gate_would_let_its_click_through(ready):
    def looks_shut(key):
        button = re.search(rf'<button class="([^"]*)" id="enable-{key}"', ready.get("/weeks/1/").content.decode())
        return "shut" in button[1].split()

    ready.post(ENABLE)
    assert not looks_shut("week-1")
    HealthState.objects.filter(target="rag").update(state=Health.UNHEALTHY)
    assert looks_shut("week-1")
    assert not looks_shut("storage")
    assert ready.post("/weeks/1/enable/", headers=HTMX).status_code == 409
    HealthState.objects.filter(target="storage").update(state=Health.UNHEALTHY)
    assert looks_shut("storage")
    assert not looks_shut("notification")


def test_rollback_wins_over_everything(ready):
    ready.post(ENABLE)
    HealthState.objects.update(state=Health.UNHEALTHY)
    response = ready.post(ROLL_BACK, {"seen": "1"}, headers=HTMX)
    assert re.search(r"RAG service is rolled back\. Applied on the gateway in \d+ ms", text_of(response))
    assert weight() == 0


def test_a_service_of_a_high_risk_week_needs_a_reason_too(ready):
    key = "USE_AUTH_SERVICE"
    assert ready.post(f"/flags/{key}/enable/", headers=HTMX).status_code == 422
    assert weight(key) == 0
    asked = ready.get(f"/flags/{key}/enable/")
    assert "Enable Auth service?" in text_of(asked)
    assert ready.post(f"/flags/{key}/enable/", {"reason": "rehearsed"}, headers=HTMX).status_code == 200


def test_one_click_is_one_event(ready):
    data = fields(ready.get("/weeks/1/"), ENABLE)
    for _ in range(3):
        assert ready.post(ENABLE, data, headers=HTMX).status_code == 200
    assert AuditEvent.objects.filter(kind=AuditKind.FLAG_ENABLED).count() == 1


@pytest.mark.parametrize("role", [Role.SUPPORT, Role.APPROVER])
def test_enable_is_refused_to_who_may_not(clients, people, role):
    tick_all(1, people[Role.RELEASE_MANAGER])
    assert clients[role].post(ENABLE, headers=HTMX).status_code == 403
    assert weight() == 0


def test_an_unknown_flag_is_404(manager):
    assert manager.post("/flags/USE_NOTHING/enable/").status_code == 404
    assert manager.post("/flags/USE_NOTHING/rollback/", headers=HTMX).status_code == 404
