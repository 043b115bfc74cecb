"""Signing in and out, what is audited of it, and the throttle."""

from datetime import timedelta

import pytest
import time_machine
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from migrations_app.choices import AuditKind
from migrations_app.models import AuditEvent
from migrations_app.web import throttle
from tests.web.conftest import HTMX, text_of


def sign_in(client, name, password, **extra):
    return client.post("/sign-in/", {"username": name, "password": password, **extra})


def test_a_right_password_leads_to_the_timeline_and_is_audited(plan, people, password):
    client = Client()
    response = sign_in(client, "release-manager", password)
    assert (response.status_code, response["Location"]) == (302, "/")
    event = AuditEvent.objects.first()
    assert (event.kind, event.actor, event.after) == (AuditKind.SIGNED_IN, "release-manager", {"address": "127.0.0.1"})


def test_signing_in_leads_back_to_where_one_wanted_to_go(plan, people, password):
    client = Client()
    asked = client.get("/weeks/3/")
    assert asked["Location"] == "/sign-in/?next=/weeks/3/"
    assert 'name="next" value="/weeks/3/"' in client.get(asked["Location"]).content.decode()
    assert sign_in(client, "support", password, next="/weeks/3/")["Location"] == "/weeks/3/"


def test_signing_in_never_leads_to_another_site(plan, people, password):
    assert sign_in(Client(), "support", password, next="https://elsewhere.example/")["Location"] == "/"


def test_a_wrong_password_is_told_and_audited(plan, people):
    response = sign_in(Client(), "approver", "wrong")
    assert response.status_code == 422
    assert "The name or the password is wrong" in text_of(response)
    event = AuditEvent.objects.first()
    assert (event.kind, event.subject, event.actor) == (AuditKind.SIGN_IN_FAILED, "account approver", "switchyard")


def test_a_name_that_is_no_account_is_not_kept(plan, people):
    for number, name in enumerate(("my secret password", "nul\x00byte")):
        assert sign_in(Client(REMOTE_ADDR=f"10.0.0.{number}"), name, "x").status_code == 422
        assert AuditEvent.objects.first().subject == "an unknown account"
        assert AuditEvent.objects.first().after == {"address": f"10.0.0.{number}", "failures": 1}
    assert not AuditEvent.objects.filter(subject__contains="secret").exists()


def test_after_ten_failures_even_the_right_password_waits(plan, people, password):
    with time_machine.travel("2026-11-24T12:00:00Z", tick=False) as clock:
        for _ in range(10):
            assert sign_in(Client(), "approver", "wrong").status_code == 422
        response = sign_in(Client(), "Approver", password)
        assert (response.status_code, response["Retry-After"]) == (429, "300")
        assert "Wait 300 seconds" in text_of(response)
        assert sign_in(Client(), "release-manager", password).status_code == 302
        clock.shift(299)
        assert sign_in(Client(), "approver", password).status_code == 429
        clock.shift(2)
        assert sign_in(Client(), "approver", password).status_code == 302


def test_a_name_is_counted_as_signing_in_reads_it(plan, people, password):
    spellings = ["approver", " approver", "approver\t", "\uff41pprover", "APPROVER"]
    for name in spellings * 2:
        assert sign_in(Client(), name, "wrong").status_code == 422
    for name in (*spellings, "\u2003approver", "a\uff50prover"):
        assert sign_in(Client(), name, password).status_code == 429


def exhaust(address, limit=throttle.SOURCE_LIMIT):
    for number in range(limit):
        throttle.failed(f"name-{number}", address)


def test_guessing_through_many_names_from_one_address_is_slowed_too(plan, people):
    for number in range(100):
        assert sign_in(Client(REMOTE_ADDR="10.0.0.1"), f"name-{number}", "wrong").status_code == 422
    assert sign_in(Client(REMOTE_ADDR="10.0.0.1"), "another", "wrong").status_code == 429
    assert sign_in(Client(REMOTE_ADDR="10.0.0.2"), "another", "wrong").status_code == 422


def test_who_has_signed_in_lately_is_not_locked_out_by_others_behind_the_same_address(plan, people, password):
    assert sign_in(Client(REMOTE_ADDR="10.0.0.9"), "approver", password).status_code == 302
    exhaust("10.0.0.1")
    shared = {"REMOTE_ADDR": "10.0.0.1"}
    assert sign_in(Client(**shared), "support", password).status_code == 429
    assert sign_in(Client(**shared), "approver", password).status_code == 302
    User.objects.filter(username="approver").update(last_login=timezone.now() - timedelta(days=31))
    assert sign_in(Client(**shared), "approver", password).status_code == 429


def test_no_name_is_spared_the_limit_of_name_and_address(plan, people, password):
    assert sign_in(Client(), "approver", password).status_code == 302
    exhaust("127.0.0.1")
    for _ in range(10):
        assert sign_in(Client(), "approver", "wrong").status_code == 429
    assert sign_in(Client(), "approver", password).status_code == 429
    assert sign_in(Client(REMOTE_ADDR="10.0.0.2"), "approver", password).status_code == 302


def test_past_the_limit_of_the_source_the_answer_does_not_tell_which_names_are_accounts(plan, people, password):
    assert sign_in(Client(), "approver", password).status_code == 302
    with time_machine.travel("2026-11-24T12:00:00Z", tick=False):
        exhaust("10.0.0.1")
        tries = [("approver", "wrong"), ("support", "wrong"), ("support", password), ("nobody", "wrong")]
        answers = [sign_in(Client(REMOTE_ADDR="10.0.0.1"), *one) for one in tries]
        assert {(answer.status_code, answer["Retry-After"]) for answer in answers} == {(429, "300")}
        told = {text_of(answer) for answer in answers}
        assert len(told) == 1, told
        # Each of these was counted, the right password too: what comes of ten tries tells nothing either.
        for _ in range(throttle.LIMIT - 2):
            sign_in(Client(REMOTE_ADDR="10.0.0.1"), "support", password)
        assert throttle.wait_for("support", "10.0.0.1") == throttle.WINDOW


def test_past_the_last_limit_of_a_source_no_password_is_looked_at(plan, people, password):
    assert sign_in(Client(), "approver", password).status_code == 302
    exhaust("10.0.0.1", throttle.LAST_LIMIT)
    assert sign_in(Client(REMOTE_ADDR="10.0.0.1"), "approver", password).status_code == 429
    assert sign_in(Client(REMOTE_ADDR="10.0.0.2"), "approver", password).status_code == 302


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("testclient", "testclient"),
    ],
)
def test_what_an_address_is_counted_as(address, counted_as):
    assert throttle.source(address) == counted_as


def test_another_address_of_the_same_network_is_no_way_round_the_limits(plan, people, password):
    for number in range(throttle.LIMIT):
        assert sign_in(Client(REMOTE_ADDR=f"2001:db8::{number}"), "approver", "wrong").status_code == 422
    assert sign_in(Client(REMOTE_ADDR="2001:db8::abcd"), "approver", password).status_code == 429
    assert sign_in(Client(REMOTE_ADDR="2001:db8:0:1::"), "approver", password).status_code == 302
    (event,) = AuditEvent.objects.filter(kind=AuditKind.SIGN_IN_FAILED)
    assert event.after == {"address": "2001:db8::0", "failures": 1}


def test_failures_from_everywhere_are_ten_events_a_minute_and_all_are_counted(plan, people):
    def told():
        events = AuditEvent.objects.filter(kind=AuditKind.SIGN_IN_FAILED, subject="an unknown account").order_by("id")
        return [event.after for event in events]

    with time_machine.travel("2026-11-24T12:00:00Z", tick=False) as clock:
        for number in range(15):
            sign_in(Client(REMOTE_ADDR=f"10.0.0.{number}"), f"nobody-{number}", "wrong")
        assert told() == [{"address": f"10.0.0.{number}", "failures": 1} for number in range(10)]
        sign_in(Client(REMOTE_ADDR="10.0.0.20"), "approver", "wrong")
        assert AuditEvent.objects.first().subject == "account approver"
        clock.shift(60)
        for number in (30, 31):
            sign_in(Client(REMOTE_ADDR=f"10.0.0.{number}"), "nobody", "wrong")
        assert told()[10:] == [
            {"address": "10.0.0.30", "failures": 1, "elsewhere": 5},
            {"address": "10.0.0.31", "failures": 1},
        ]


def test_a_deactivated_account_is_not_spared_the_limit_of_the_address(plan, people, password):
    assert sign_in(Client(), "approver", password).status_code == 302
    User.objects.filter(username="approver").update(is_active=False)
    exhaust("127.0.0.1")
    assert sign_in(Client(), "approver", password).status_code == 429


def test_failures_of_many_others_do_not_push_out_what_was_counted():
    for _ in range(throttle.LIMIT):
        throttle.failed("approver", "10.0.0.1")
    for number in range(1000):
        throttle.failed("somebody", f"10.1.{number // 250}.{number % 250}")
    assert throttle.wait_for("approver", "10.0.0.1") > 0


def test_failures_within_a_minute_are_one_event_and_the_next_tells_how_many(plan, people, password):
    def told(subject):
        events = AuditEvent.objects.filter(kind=AuditKind.SIGN_IN_FAILED, subject=subject).order_by("id")
        return [(event.after["address"], event.after["failures"]) for event in events]

    with time_machine.travel("2026-11-24T12:00:00Z", tick=False) as clock:
        for number in range(4):
            sign_in(Client(), "approver", "wrong")
            sign_in(Client(), f"nobody-{number}", "wrong")
        sign_in(Client(REMOTE_ADDR="10.0.0.2"), "approver", "wrong")
        assert told("account approver") == [("127.0.0.1", 1), ("10.0.0.2", 1)]
        assert told("an unknown account") == [("127.0.0.1", 1)]
        clock.shift(59)
        sign_in(Client(), "approver", "wrong")
        assert len(told("account approver")) == 2
        clock.shift(1)
        sign_in(Client(), "approver", "wrong")
        assert told("account approver")[2:] == [("127.0.0.1", 5)]


def test_a_success_forgets_the_failures_before_it(plan, people, password):
    for _ in range(9):
        sign_in(Client(), "approver", "wrong")
    assert sign_in(Client(), "approver", password).status_code == 302
    assert sign_in(Client(), "approver", "wrong").status_code == 422


def test_signing_out_needs_a_post(manager):
    assert manager.get("/sign-out/").status_code == 405
    assert manager.post("/sign-out/")["Location"] == "/sign-in/"
    assert manager.get("/").status_code == 302


def test_a_click_with_an_expired_session_leads_to_the_sign_in_page(plan):
    response = Client().post("/weeks/1/enable/", headers=HTMX | {"HX-Current-URL": "http://testserver/weeks/1/"})
    assert response["HX-Redirect"] == "/sign-in/?next=%2Fweeks%2F1%2F"
    assert b"<html" not in response.content


def test_a_page_that_refreshes_itself_stays_when_the_session_expires(plan):
    response = Client().get("/weeks/1/live/", headers=HTMX | {"HX-Current-URL": "http://testserver/weeks/1/"})
    assert response.status_code == 286
    assert 'id="notices"' in response.content.decode()
    assert "HX-Redirect" not in response


def test_the_way_back_after_an_expired_session_is_a_page_not_an_action(manager):
    for address in ("/weeks/1/rollback/", "/prerequisites/1/tick/", "/flags/USE_RAG_SERVICE/rollback/"):
        response = manager.get(address.replace("/1/tick", f"/{_first_manual()}/tick"))
        assert response.status_code == 302
        assert manager.get(response["Location"]).status_code == 200


def _first_manual():
    from migrations_app.models import Prerequisite

    return Prerequisite.objects.filter(kind="manual").first().pk
