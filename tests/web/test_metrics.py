"""Who may read /metrics, in which format, and that many scrapers cost one."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from django.db import OperationalError
from django.test import Client, RequestFactory
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from migrations_app.roles import Role
from migrations_app.web import metrics
from migrations_app.web.shared_reading import SharedReading

TOKEN = "a token for tests, long enough"
# What Prometheus 2.42 and 3.5 send.
OLDER = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
OLDEST = "application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5"
NOT_FIRST = "text/plain,application/openmetrics-text;q=0.5"
NEWER = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.fixture(autouse=True)
def _own_readings(monkeypatch: pytest.MonkeyPatch):
    """No test gets what another one's scrape has left."""
    monkeypatch.setattr(metrics, "_database", SharedReading(metrics._read_database, keep=0))
    monkeypatch.setattr(metrics, "_queues", SharedReading(metrics._read_queues, keep=0))


def status(address: str = "203.0.113.9", **headers: str) -> int:
    return Client().get("/metrics", headers=headers, REMOTE_ADDR=address).status_code


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_loopback_addresses_may_by_default(address: str):
    assert status(address) == 200


@pytest.mark.parametrize("address", ["203.0.113.9", "10.0.0.7", "::ffff:203.0.113.9", "fe80::1", "", "unix:", "\n"])
def test_other_addresses_may_not(address: str):
    assert status(address) == 403


@pytest.mark.parametrize("header", metrics.FORWARDED)
def test_what_came_by_a_proxy_does_not_count_as_near(header: str):
    assert status("127.0.0.1", **{header: "127.0.0.1"}) == 403


@pytest.mark.django_db(transaction=True)
def test_the_networks_are_a_setting(settings):
    settings.METRICS_NETWORKS = [ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")]
    assert status("10.9.8.7") == 200
    assert status("2001:db8::5") == 200
    assert status("127.0.0.1") == 403


@pytest.mark.django_db(transaction=True)
def test_the_token_opens_it_from_anywhere_also_by_a_proxy(settings):
    settings.METRICS_TOKEN = TOKEN
    assert status(**bearer(TOKEN)) == 200
    assert status(**bearer(TOKEN), **{"X-Forwarded-For": "198.51.100.4"}) == 200
    assert status(Authorization=f"bearer  {TOKEN} ") == 200


@pytest.mark.parametrize("sent", ["", "a", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\xfc\xdf"])
@pytest.mark.parametrize("address", ["203.0.113.9", "127.0.0.1"])
def test_a_wrong_token_opens_nothing_wherever_it_comes_from(settings, sent: str, address: str):
    settings.METRICS_TOKEN = TOKEN
    assert status(address, **bearer(sent)) == 403


def test_without_a_token_set_none_is_right():
    assert status(**bearer("")) == 403
    assert status(**bearer(TOKEN)) == 403
    assert status(Authorization="Basic YTpi") == 403


def test_a_token_is_compared_in_constant_time(settings, monkeypatch: pytest.MonkeyPatch):
    settings.METRICS_TOKEN, compared = TOKEN, []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return False

    monkeypatch.setattr(metrics.hmac, "compare_digest", compare)
    assert status(**bearer(TOKEN)) == 403
    assert compared == [(TOKEN.encode(), TOKEN.encode())]


@pytest.mark.django_db
def test_a_session_opens_nothing(people):
    client = Client()
    client.force_login(people[Role.ADMINISTRATOR].account)
    response = client.get("/metrics", REMOTE_ADDR="203.0.113.9")
    assert response.status_code == 403


def test_the_refusal_is_plain_text_that_says_what_to_do_and_is_never_kept():
    response = Client().get("/metrics", REMOTE_ADDR="203.0.113.9")
    assert response["Content-Type"].startswith("text/plain")
    assert "METRICS_TOKEN" in response.content.decode()
    assert "no-store" in response["Cache-Control"]
    assert "Set-Cookie" not in response


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "accept", ["", "*/*", "text/plain", "text/html", "text/plain;version=0.0.4", OLDEST, NOT_FIRST]
)
def test_the_text_format_is_what_is_told(accept: str):
    response = Client().get("/metrics", headers={"Accept": accept} if accept else {})
    assert response["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in parse_plain(response.content.decode())}
    assert families["switchyard_database_up"].samples[0].value == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("accept", [OLDER, NEWER, "application/openmetrics-text;version=1.0.0"])
def test_open_metrics_are_told_to_who_asks_for_them(accept: str):
    response = Client().get("/metrics", headers={"Accept": accept})
    assert response["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    families = {family.name: family for family in parse_open(response.content.decode())}
    assert families["switchyard_database_up"].samples[0].value == 1
    assert families["switchyard_rollbacks"].type == "counter"


@pytest.mark.django_db(transaction=True)
def test_every_family_has_a_name_of_ours_a_type_and_a_sentence(plan):
    response = Client().get("/metrics")
    families = list(parse_plain(response.content.decode()))
    assert len(families) > 30
    for family in families:
        assert family.name.startswith("switchyard_")
        assert family.type in {"gauge", "counter", "histogram"}, family.name
        assert family.documentation.endswith("."), family.name
        assert (family.type == "counter") == all(sample.name.endswith("_total") for sample in family.samples) or (
            not family.samples
        ), family.name


@pytest.mark.django_db(transaction=True)
def test_many_scrapers_cost_one(monkeypatch: pytest.MonkeyPatch):
    """The reading, and putting it into words."""
    begun, worded = [], []

    def read() -> metrics.Reading:
        begun.append(1)
        return metrics._read_database()

    def generate(reading: metrics.Reading) -> bytes:
        worded.append(1)
        return b"".join(family.name.encode() for family in reading.collect())

    monkeypatch.setattr(metrics, "_database", SharedReading(read, keep=60))
    monkeypatch.setattr(metrics, "_queues", SharedReading(metrics._read_queues, keep=60))
    monkeypatch.setattr(metrics.exposition, "generate_latest", generate)
    answers = {Client().get("/metrics").content for _ in range(5)}
    assert len(answers) == len(begun) == len(worded) == 1
    assert metrics.KEPT == 1.0


@pytest.mark.django_db(transaction=True)
def test_a_fault_of_our_own_is_no_outage_of_the_database(monkeypatch: pytest.MonkeyPatch):
    def fail() -> metrics.Reading:
        raise LookupError("a fault")

    monkeypatch.setattr(metrics, "_database", SharedReading(fail, keep=0))
    with pytest.raises(LookupError):
        metrics.metrics(RequestFactory().get("/metrics"))


@pytest.mark.django_db(transaction=True)
def test_without_redis_the_rest_is_told(settings):
    settings.CELERY_BROKER_URL = ""
    response = Client().get("/metrics")
    told = {sample.name: sample.value for family in parse_plain(response.content.decode()) for sample in family.samples}
    assert response.status_code == 200
    assert told["switchyard_queue_up"] == 0
    assert "switchyard_queue_messages" not in told
    assert told["switchyard_database_up"] == 1


@pytest.mark.django_db(transaction=True)
def test_why_the_database_could_not_be_read_stands_in_the_log(monkeypatch: pytest.MonkeyPatch, caplog):
    def fail(_counts: object) -> None:
        raise OperationalError("the server went away")

    monkeypatch.setattr(metrics, "read", fail)
    response = Client().get("/metrics")
    assert response.status_code == 503
    assert response["Content-Type"].startswith("text/plain")
    assert "switchyard_database_up 0.0\n" in response.content.decode()
    assert "the server went away" in caplog.text
