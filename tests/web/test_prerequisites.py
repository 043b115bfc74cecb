"""Ticking and undoing, from the page of the week."""

import pytest

from migrations_app.choices import AuditKind
from migrations_app.models import AuditEvent, Prerequisite, SignOff
from migrations_app.roles import Role
from tests.web.conftest import HTMX, fields, lines_of, text_of


@pytest.fixture
def line(plan):
    return Prerequisite.objects.get(week__number=1, key="services-healthy")


def live():
    return SignOff.objects.filter(withdrawn_at__isnull=True)


def test_a_tick_keeps_note_who_and_when(manager, line):
    address = f"/prerequisites/{line.pk}/tick/"
    response = manager.post(
        address, fields(manager.get("/weeks/1/"), address) | {"note": "all answer 200"}, headers=HTMX
    )
    assert response.status_code == 200
    said = text_of(response)
    assert "all answer 200" in said
    assert "Signed off by release-manager since" in said
    assert f"1/{lines_of(1)} The gate is" in said
    assert live().get().actor == "release-manager"


def test_undo_withdraws_it(manager, line):
    manager.post(f"/prerequisites/{line.pk}/tick/")
    address = f"/prerequisites/{line.pk}/untick/"
    response = manager.post(address, fields(manager.get("/weeks/1/"), address), headers=HTMX)
    assert response.status_code == 200
    assert "Sign-off withdrawn" in text_of(response)
    assert not live().exists()


def test_a_plain_form_leads_back_to_the_line(manager, line):
    response = manager.post(f"/prerequisites/{line.pk}/tick/", {"note": "seen"})
    assert (response.status_code, response["Location"]) == (303, f"/weeks/1/#line-{line.pk}")
    assert "Signed off:" in text_of(manager.get("/weeks/1/"))


def test_a_repeated_tick_is_one_event(manager, line):
    address = f"/prerequisites/{line.pk}/tick/"
    data = fields(manager.get("/weeks/1/"), address)
    for _ in range(2):
        assert manager.post(address, data, headers=HTMX).status_code == 200
    assert AuditEvent.objects.filter(kind=AuditKind.PREREQUISITE_TICKED).count() == 1


def test_a_tick_on_an_older_page_is_told_that_nothing_was_done(manager, line):
    other = Prerequisite.objects.filter(week__number=3, phase="start")
    stale = fields(manager.get("/weeks/3/"), f"/prerequisites/{other[0].pk}/tick/")
    assert manager.post(f"/prerequisites/{other[1].pk}/tick/").status_code == 303
    response = manager.post(f"/prerequisites/{other[0].pk}/tick/", stale, headers=HTMX)
    assert response.status_code == 409
    assert "Nothing was done" in text_of(response)


def test_an_automatic_line_is_not_ticked_by_hand(manager):
    automatic = Prerequisite.objects.get(kind="automatic", week__number=6, phase="start")
    assert f"/prerequisites/{automatic.pk}/tick/" not in manager.get("/weeks/6/").content.decode()
    response = manager.post(f"/prerequisites/{automatic.pk}/tick/", headers=HTMX)
    assert response.status_code == 422
    assert "checked automatically" in text_of(response)


@pytest.mark.parametrize(("role", "status"), [(Role.SUPPORT, 403), (Role.ADMINISTRATOR, 403), (Role.APPROVER, 200)])
def test_who_may_tick(clients, line, role, status):
    assert clients[role].post(f"/prerequisites/{line.pk}/tick/", headers=HTMX).status_code == status
    assert live().exists() == (status == 200)


def test_a_hostile_note_is_text(manager, line):
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script> \u202e {{ 7 }} ${7} '\""
    manager.post(f"/prerequisites/{line.pk}/tick/", {"note": hostile})
    for page in ("/weeks/1/", "/audit/"):
        content = manager.get(page).content.decode()
        assert "&lt;img src=x onerror" in content
        assert "<img" not in content
        assert "<script>" not in content


@pytest.mark.parametrize("note", ["x" * 1001, "nul\x00byte"])
def test_a_note_that_cannot_be_kept_is_refused(manager, line, note):
    assert manager.post(f"/prerequisites/{line.pk}/tick/", {"note": note}, headers=HTMX).status_code == 422
    assert not live().exists()


def test_an_unknown_line_is_404(manager):
    assert manager.post("/prerequisites/987654/tick/").status_code == 404
