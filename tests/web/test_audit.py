"""The audit log page: filters in the address, pages by key, verification, the chain."""

import re
import threading

import pytest
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from migrations_app.actor import SYSTEM, Actor
from migrations_app.audit import record
from migrations_app.choices import ActorKind, AuditKind
from migrations_app.models import AuditEvent
from migrations_app.models.audit import ChainCheck
from migrations_app.roles import Role
from migrations_app.web import audit
from migrations_app.web.audit import KIND_WORDS
from migrations_app.web.shared_reading import SharedReading
from tests.factories import make_people, memory_gateway, tick_all
from tests.web.conftest import lines_of, text_of


def make(count, actor=SYSTEM, **more):
    with transaction.atomic():
        for index in range(count):
            record(AuditKind.DRIFT_CORRECTED, actor=actor, subject=f"subject {index}", **more)


def shown(response):
    return [int(number) for number in re.findall(r'id="event-(\d+)"', response.content.decode())]


def test_every_kind_of_event_has_its_words():
    assert set(KIND_WORDS) == set(AuditKind)


def test_pages_go_by_key_from_the_newest_and_lose_nothing(manager):
    make(120)
    everything = list(AuditEvent.objects.order_by("-id").values_list("id", flat=True))
    seen, address = [], "/audit/"
    while address:
        response = manager.get(address)
        seen += shown(response)
        make(1)  # what is new meanwhile moves no page
        older = re.search(r'href="(\?[^"]*before=\d+)" rel="next"', response.content.decode())
        address = f"/audit/{older[1]}" if older else None
    assert seen == everything


def test_the_filter_lives_in_the_address(manager, people):
    make(60, actor=Actor("anna", ActorKind.SHELL), week_number=2)
    make(3)
    response = manager.get("/audit/", {"actor": "anna", "week": "2", "kind": "gateway.drift_corrected"})
    assert len(shown(response)) == 50
    content = response.content.decode()
    assert "?kind=gateway.drift_corrected&amp;actor=anna&amp;week=2&amp;before=" in content
    assert '<option value="2" selected>' in content
    make(1, actor=Actor("anna", ActorKind.ACCOUNT, via="token 7"))
    newest = AuditEvent.objects.latest("id").pk
    assert "by anna via token 7" in text_of(manager.get("/audit/"))
    assert "anna account, via token 7" in text_of(manager.get(f"/audit/{newest}/"))
    assert "No event fits this filter." in text_of(manager.get("/audit/", {"actor": "nobody"}))


@pytest.mark.parametrize("query", ["kind=nonsense", "week=x", "before=-1", "before=" + "9" * 30, "actor=" + "x" * 200])
def test_a_filter_that_makes_no_sense_is_told_and_shows_no_error_page(manager, query):
    assert manager.get(f"/audit/?{query}").status_code in {200, 422}


def test_a_change_is_verified_once_the_gateway_has_confirmed_it(manager, people):
    tick_all(1, people[Role.RELEASE_MANAGER])
    manager.post("/weeks/1/enable/")
    page = text_of(manager.get("/audit/?kind=week.enabled"))
    assert re.search(r"Verified on the gateway after \d+(\.\d)? ms, gen 2", page)
    assert "USE_RAG_SERVICE 0 → 100" in page
    assert f"Gate {lines_of(1)}/{lines_of(1)} open" in page
    memory_gateway().answers = False
    manager.post("/weeks/1/rollback/")
    assert "Not verified gen 3" in text_of(manager.get("/audit/?kind=week.rolled_back"))


def test_a_later_confirmation_verifies_what_it_overtook(manager, people):
    tick_all(1, people[Role.RELEASE_MANAGER])
    memory_gateway().answers = False
    manager.post("/weeks/1/enable/")
    memory_gateway().answers = True
    manager.post("/weeks/1/rollback/")
    assert "Verified on the gateway" in text_of(manager.get("/audit/?kind=week.enabled"))


@pytest.mark.django_db(transaction=True)
def test_the_chain_is_walked_when_asked_once_for_all_who_ask_and_nobody_waits_long(monkeypatch):
    walks, go_on = [], threading.Event()

    def walk():
        walks.append(1)
        assert go_on.wait(20)
        return audit._walk()

    def page():
        return text_of(auditor.get("/audit/?check=chain"))

    monkeypatch.setattr(audit, "_chain", SharedReading(walk, keep=audit.WALK_KEPT, patience=20, most=1))
    monkeypatch.setattr(audit, "WALK_WITHIN", 0.01)
    auditor = Client()
    auditor.force_login(make_people()[Role.RELEASE_MANAGER].account)
    make(7)
    assert "chain" not in text_of(auditor.get("/audit/")).replace("Check the chain", "")
    assert walks == []
    assert ["The chain is being checked." in page() for _ in range(3)] == [True] * 3
    go_on.set()
    monkeypatch.setattr(audit, "WALK_WITHIN", 20)
    assert "7 events, chain intact." in page()
    make(1)
    assert "7 events, chain intact." in page()  # as it was found then: the page tells when
    assert walks == [1]
    found = audit.Walk(ChainCheck(8, None, ("the event of generation 99",)), timezone.now())
    monkeypatch.setattr(audit, "_chain", SharedReading(lambda: found, keep=0))
    assert "8 events follow from one another, but these are missing: the event of generation 99." in page()
    victim = AuditEvent.objects.order_by("-id")[2]
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE migrations_app_auditevent DISABLE TRIGGER audit_rows_stay")
        cursor.execute("UPDATE migrations_app_auditevent SET actor = 'forged' WHERE id = %s", [victim.pk])
        cursor.execute("ALTER TABLE migrations_app_auditevent ENABLE TRIGGER audit_rows_stay")
    monkeypatch.setattr(audit, "_chain", SharedReading(walk, keep=0))
    assert f"The chain breaks at event {victim.pk}." in page()


def test_an_event_shows_the_gate_as_it_was(manager, people):
    manager.post("/weeks/3/enable/", {"reason": "now"})
    refusal = AuditEvent.objects.get(kind=AuditKind.ENABLE_REFUSED)
    tick_all(3, people[Role.RELEASE_MANAGER])  # what comes later does not change what was
    assert f'href="/audit/{refusal.pk}/"' in manager.get("/audit/").content.decode()
    said = text_of(manager.get(f"/audit/{refusal.pk}/"))
    for words in (
        "The gate as it was",
        f"Closed , 0/{lines_of(3)} prerequisites held.",
        "Not signed off The database backup is completed not signed off a person's sign-off",
        "Healthy Auth service healthy healthy",
        refusal.digest,
        refusal.previous_digest,
    ):
        assert words in said


def test_an_event_shows_before_and_after(manager, people):
    tick_all(1, people[Role.RELEASE_MANAGER])
    manager.post("/weeks/1/enable/")
    event = AuditEvent.objects.get(kind=AuditKind.WEEK_ENABLED)
    said = text_of(manager.get(f"/audit/{event.pk}/"))
    assert "USE_RAG_SERVICE 0 100" in said
    assert f"Open , {lines_of(1)}/{lines_of(1)} prerequisites held." in said
    assert re.search(r"Verified after \d+(\.\d)? ms, gen 2", said), said


def test_an_event_with_lines_of_an_older_version_is_shown(manager):
    old = {"week": 1, "open": True, "progress": "1/1", "lines": [{"key": "a", "title": "A line", "kind": "of old"}]}

    class Old:
        def as_json(self):
            return old

    with transaction.atomic():
        event = record(AuditKind.WEEK_ENABLED, actor=SYSTEM, subject="week 1", verdict=Old())
    assert "A line" in text_of(manager.get(f"/audit/{event.pk}/"))


@pytest.mark.parametrize("role", list(Role))
def test_an_event_is_open_to_who_may_read_the_log(clients, role):
    make(1)
    event = AuditEvent.objects.first()
    may = role in {Role.RELEASE_MANAGER, Role.APPROVER, Role.ADMINISTRATOR}
    assert clients[role].get(f"/audit/{event.pk}/").status_code == (200 if may else 403)
    if may:
        assert clients[role].get("/audit/987654/").status_code == 404
