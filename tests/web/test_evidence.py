"""Files and links that come with a sign-off: what is taken, and how it is handed out."""

import io
import zlib

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from migrations_app.models import Evidence, Prerequisite, SignOff
from migrations_app.roles import Role
from tests.web.conftest import HTMX, fields, text_of


@pytest.fixture
def line(plan):
    return Prerequisite.objects.get(week__number=3, key="support-standby")


def tick(client, line, *, headers=HTMX, **data):
    address = f"/prerequisites/{line.pk}/tick/"
    return client.post(address, fields(client.get("/weeks/3/"), address) | data, headers=headers)


def upload(name, content):
    return SimpleUploadedFile(name, content)


def test_a_file_and_a_link_stand_beside_the_note_and_are_downloaded(manager, support, line):
    response = tick(
        manager, line, note="two people", link="https://rota.example/w49", evidence=upload("rota.txt", b"Ada")
    )
    assert response.status_code == 200
    row = Evidence.objects.get()
    content = support.get("/weeks/3/").content.decode()
    assert f'href="/evidence/{row.pk}/"' in content
    assert 'href="https://rota.example/w49" rel="noopener noreferrer nofollow"' in content
    file = support.get(f"/evidence/{row.pk}/")
    assert file.content == b"Ada"
    assert file["Content-Disposition"] == 'attachment; filename="rota.txt"'
    assert file["Content-Type"] == "text/plain; charset=utf-8"
    assert file["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert file["X-Content-Type-Options"] == "nosniff"
    assert "no-store" in file["Cache-Control"]


def test_a_page_in_disguise_is_never_served_as_one(manager, line):
    tick(manager, line, evidence=upload("rota.txt", b"Ada"))
    Evidence.objects.update(
        name='../"x\r\nSet-Cookie: a=b".html', content_type="text/html", content=b"<script>1</script>"
    )
    file = manager.get(f"/evidence/{Evidence.objects.get().pk}/")
    assert file["Content-Type"] == "application/octet-stream"
    disposition = file["Content-Disposition"]
    assert disposition.startswith("attachment")
    assert not {"\r", "\n", "/"} & set(disposition)


@pytest.mark.parametrize(
    "sent",
    [
        upload("page.html", b"<html><script>alert(1)</script>"),
        upload("picture.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        upload("program.exe", b"MZ\x90\x00"),
        upload("empty.txt", b""),
        upload("large.txt", b"x" * (5 * 2**20 + 1)),
    ],
    ids=lambda sent: sent.name,
)
def test_what_is_not_taken_is_refused_in_place(manager, line, sent):
    response = tick(manager, line, evidence=sent)
    assert response.status_code == 422
    assert "Evidence:" in text_of(response)
    assert not SignOff.objects.exists()


@pytest.mark.parametrize(
    "link", ["javascript:alert(1)", "data:text/html,x", "ftp://x.example/", "nonsense", "https://"]
)
def test_a_link_that_leads_nowhere_good_is_refused(manager, line, link):
    assert tick(manager, line, link=link).status_code == 422
    assert not SignOff.objects.exists()


class Counted(io.RawIOBase):
    """A body that says how much of it was read."""

    def __init__(self) -> None:
        self.taken = 0

    def read(self, size=-1):
        self.taken += max(size, 0)
        return b"x" * max(size, 0)


@pytest.mark.parametrize("headers", [{}, HTMX])
@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x", "application/x-www-form-urlencoded"])
def test_a_body_of_50_megabytes_is_refused_before_it_is_read(manager, line, headers, kind):
    body = Counted()
    response = manager.generic(
        "POST",
        f"/prerequisites/{line.pk}/tick/",
        content_type=kind,
        headers=headers,
        **{"CONTENT_LENGTH": str(50 * 2**20), "wsgi.input": body},
    )
    assert response.status_code == 413
    assert "A file may have 5 MB. Nothing was done" in text_of(response)
    assert response.get("HX-Retarget") == ("#notices" if headers else None)
    assert body.taken == 0


@pytest.mark.parametrize("role", list(Role))
def test_whoever_sees_the_plan_sees_its_evidence_and_nobody_else(manager, clients, line, django_user_model, role):
    tick(manager, line, evidence=upload("rota.txt", b"Ada"))
    address = f"/evidence/{Evidence.objects.get().pk}/"
    assert clients[role].get(address).status_code == 200
    assert Client().get(address).status_code == 302
    nobody = Client()
    nobody.force_login(django_user_model.objects.create_user("nobody"))
    assert nobody.get(address).status_code == 403
    assert manager.post(address).status_code == 405
    assert manager.get("/evidence/9999/").status_code == 404


def test_the_page_of_a_week_never_reads_the_files(manager, line, django_assert_max_num_queries):
    content = zlib.compress(b"") + b"x"
    tick(manager, line, evidence=upload("rota.txt", b"Ada"))
    Evidence.objects.update(content=content)
    with django_assert_max_num_queries(30) as found:
        manager.get("/weeks/3/")
    assert not any('"content"' in query["sql"] for query in found.captured_queries)
