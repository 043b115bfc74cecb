"""The overview: every target in one list, what it says of each, and what it costs."""

import re
from datetime import UTC, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from migrations_app.actions.flags import roll_back_flag, set_weight
from migrations_app.choices import AuditKind, Health
from migrations_app.gateways.base import Side
from migrations_app.models import (
    Gateway,
    HealthChange,
    HealthState,
    HealthSummary,
    Plan,
    Service,
    TrafficSample,
)
from migrations_app.models.audit import MOVES as MOVING_KINDS
from migrations_app.planfile.load import load_plan
from migrations_app.reconcile.loop import reconcile_all
from migrations_app.roles import Role
from migrations_app.web import overview, overview_rows
from migrations_app.web.past import MOVES
from tests.factories import make_healthy, memory_gateway, put_behind, tick_all, tracseq
from tests.web.conftest import HTMX, text_of


def row(client, key, query=""):
    """What a row says, as text; None when it is not there."""
    content = client.get(f"/services/{query}").content.decode()
    found = re.search(rf'<li id="row-{key}".*?(?=<li id="row-|</section>)', content, re.DOTALL)
    if found is None:
        return None
    bare = re.sub(r"<svg.*?</svg>", " ", found[0], flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", bare)).strip()


def drawing(client, key):
    content = client.get("/services/").content.decode()
    return re.search(rf'<li id="row-{key}".*?(<svg class="sparkline".*?</svg>)', content, re.DOTALL)[1]


def keys(response):
    return re.findall(r'<li id="row-([\w-]+)"', response.content.decode())


def summed_up(target, now=None, **values):
    now = now or timezone.now()
    line = [None] * 40 + [4.0, 5.0, 20.0, 6.0, 5.0, 4.0, 4.0, 5.0]
    return HealthSummary.objects.create(
        target=target,
        refreshed_at=now,
        **{"uptime_24h": 9998, "uptime_90d": 9950, "sparkline": line, "days": [None] * 90} | values,
    )


def requests(key, side, count, errors=0):
    TrafficSample.objects.create(
        service=Service.objects.get(key=key),
        side=side.value,
        read_at=timezone.now() - timedelta(seconds=5),
        requests=count,
        errors=errors,
    )


def changed(target, state, *, ago=timedelta(hours=2), was=Health.HEALTHY, reason=""):
    return HealthChange.objects.create(target=target, at=timezone.now() - ago, was=was, state=state, reason=reason)


def test_what_somebody_wrote_is_escaped(manager, plan):
    hostile = "<script>alert('1')</script>"
    escaped = "&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;"
    Service.objects.filter(key="storage").update(title=hostile)
    HealthState.objects.filter(target="storage").update(state=Health.UNHEALTHY, error=hostile)
    HealthChange.objects.create(
        target="storage", at=timezone.now(), was=Health.HEALTHY, state=Health.UNHEALTHY, reason=hostile
    )
    summed_up("storage")
    page = manager.get("/services/").content.decode()
    assert hostile not in page
    assert f'id="open-storage">{escaped}</a>' in page  # its name
    assert f"</span> {escaped}</p>" in page  # its last error
    assert f"Unhealthy: {escaped}</li>" in page  # why it changed
    assert f"<title>{escaped}" not in page


def test_it_lists_the_monolith_and_every_service_by_week_and_links_services_alone(manager):
    answer = manager.get("/services/")
    assert keys(answer) == ["monolith", *(keys_in_order())]
    content = answer.content.decode()
    assert 'href="/services/auth/"' in content
    assert 'href="/services/monolith/"' not in content
    assert text_of(answer).index("Week 1:") < text_of(answer).index("Week 2:")


def keys_in_order():
    return Service.objects.order_by("flag__week__number", "position").values_list("key", flat=True)


def test_a_row_says_state_since_when_uptimes_and_the_last_value(manager):
    summed_up("auth")
    said = row(manager, "auth")
    assert re.match(r"Auth service Healthy since \d+ \w+ \d\d:\d\d:\d\d 5.0 ms last, 20 ms at most", said)
    assert "24 h 99.98 % 90 d 99.50 %" in said
    assert "Old side" in said


def test_before_the_first_minute_is_summed_up_and_before_the_first_poll_the_row_says_so(manager):
    assert "Not summed up yet: the first minute is not over." in row(manager, "auth")
    HealthState.objects.filter(target="auth").delete()
    said = row(manager, "auth")
    assert "Unknown no poll yet" in said
    assert "Not polled yet." in said
    assert "24 h - 90 d -" in said


def test_a_target_that_nobody_polled_lately_is_unknown_and_not_what_it_was(manager):
    HealthState.objects.filter(target="auth").update(polled_at=timezone.now() - timedelta(minutes=5))
    assert "Auth service Unknown not polled lately" in row(manager, "auth")


def test_sums_that_are_old_are_told_as_old(manager):
    summed_up("auth")
    assert "Uptimes and lines are as of" not in text_of(manager.get("/services/"))
    HealthSummary.objects.update(refreshed_at=timezone.now() - timedelta(minutes=6))
    assert "Uptimes and lines are as of" in text_of(manager.get("/services/"))


def test_what_serves_it_is_what_the_gateway_runs_and_not_what_is_asked(manager, shell):
    tick_all(1, shell)
    set_weight(key="USE_RAG_SERVICE", weight=30, actor=shell)
    assert "Old side asked 30 %" in row(manager, "rag")
    reconcile_all()
    assert "New side, 30 % " in row(manager, "rag")
    assert "asked" not in row(manager, "rag")
    Gateway.objects.update(observed_at=timezone.now() - timedelta(seconds=30))
    assert "Not known asked 30 %" in row(manager, "rag")


def test_gateways_that_run_different_weights_are_not_known(manager):
    plan = Plan.objects.get()
    Gateway.objects.create(
        plan=plan,
        key="second",
        adapter="memory",
        observed_generation=1,
        observed_at=timezone.now(),
        observed_weights={"USE_AUTH_SERVICE": 50, "USE_RAG_SERVICE": 0},
    )
    assert "Not known" in row(manager, "auth")
    assert "Old side" in row(manager, "rag")


def test_a_service_that_the_monolith_never_had_is_served_by_nobody_until_it_moves(manager):
    assert "Nobody yet" in row(manager, "reports")


def test_the_monoliths_row_says_what_it_still_serves(manager):
    services = Service.objects.filter(new_side_only=False).count()
    assert f"Serves all of {services}" in row(manager, "monolith")
    put_behind(1)
    reconcile_all()
    assert f"Serves all of {services - 3}" in row(manager, "monolith")
    memory_gateway().answers = False
    reconcile_all()
    assert "Not known" in row(manager, "monolith")


@pytest.mark.parametrize(
    ("count", "errors", "told"),
    [(0, 0, "– "), (200, 0, "0 % of 200"), (200, 5, "2.5 % of 200"), (30_000, 1, "&lt; 0.1 % of 30,000")],  # noqa: RUF001
)
def test_the_share_of_requests_that_failed_in_the_last_minute(manager, count, errors, told):
    if count:
        requests("auth", Side.SERVICE, count, errors)
    assert f"Failed {told}".strip() in row(manager, "auth")


def test_the_last_error_is_that_of_the_last_poll_or_what_last_made_it_unhealthy(manager):
    assert "Last error" not in row(manager, "auth")
    changed("auth", Health.UNHEALTHY, ago=timedelta(days=30), reason="no connection: refused")
    assert re.search(r"Last error \d+ \w+ [\d:]+ : no connection: refused", row(manager, "auth"))
    HealthState.objects.filter(target="auth").update(state=Health.UNHEALTHY, error="answered 500, expected 200")
    said = row(manager, "auth")
    assert "answered 500, expected 200" in said
    assert "refused" not in said


def test_moves_and_changes_of_health_are_drawn_and_told(manager, shell):
    now = timezone.now()
    summed_up("rag", now)
    tick_all(1, shell)
    set_weight(key="USE_RAG_SERVICE", weight=100, actor=shell)
    reconcile_all()
    roll_back_flag(key="USE_RAG_SERVICE", actor=shell)
    reconcile_all()
    changed("rag", Health.UNHEALTHY, reason="no answer <in> time")
    drawn = drawing(manager, "rag")
    assert re.findall(r'<path class="(\w+)"', drawn) == ["ground", "line", "back", "up", "ill"]
    label = re.search(r'aria-label="([^"]*)"', drawn)[1]
    assert "RAG" in label
    assert "5.0 ms last, 20 ms at most; 3 changes, newest first:" in label
    assert "Rolled back, 100 % to 0 %, by tester" in label
    assert "Unhealthy: no answer &lt;in&gt; time" in label
    # Beside the drawing the newest two, and how many more.
    said = row(manager, "rag")
    assert "Rolled back, 100 % to 0 %" in said
    assert "Enabled, 0 % to 100 %" in said
    assert "and 1 before" in said


def test_a_week_that_was_enabled_is_drawn_for_each_of_its_services(manager, shell):
    for key in ("rag", "storage", "auth"):
        summed_up(key)
    put_behind(1)
    assert ['class="up"' in drawing(manager, key) for key in ("rag", "storage", "auth")] == [True, True, False]


def test_what_lies_further_back_than_the_drawing_is_not_in_it(manager):
    summed_up("auth")
    changed("auth", Health.UNHEALTHY, ago=timedelta(hours=49))
    assert 'class="ill"' not in drawing(manager, "auth")
    changed("auth", Health.UNKNOWN, ago=timedelta(hours=46))
    assert 'class="unknown"' in drawing(manager, "auth")


def test_a_mark_stands_at_its_hour(manager):
    now = timezone.now()
    summed_up("auth", now)
    hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    HealthChange.objects.create(
        target="auth", at=hour - timedelta(hours=23), was=Health.HEALTHY, state=Health.UNHEALTHY
    )
    # 24 of 48 hours after the drawing's beginning, in its middle: 96 of 192 units.
    assert '<path class="ill" d="M93 33l6 6m0-6l-6 6">' in drawing(manager, "auth")


def test_the_words_for_moves_cover_every_kind_that_moves():
    assert set(MOVES) == set(MOVING_KINDS) < set(AuditKind)


# -- what is shown ----------------------------------------------------------------------------------------------------


def test_a_search_finds_by_title_key_area_owner_and_flag(manager):
    for words in ("Auth service", "auth", "Sign-in", "identity TEAM", "use_auth_service", "identity sign"):
        assert "auth" in keys(manager.get("/services/", {"q": words})), words
    assert keys(manager.get("/services/", {"q": "identity"})) == ["auth"]


def test_a_filter_by_state_stays_in_the_form(manager):
    HealthState.objects.filter(target="rag").update(state=Health.UNHEALTHY, error="answered 500")
    HealthState.objects.filter(target="auth").delete()
    assert keys(manager.get("/services/", {"state": "unhealthy"})) == ["rag"]
    answer = manager.get("/services/", {"state": "unknown", "q": "identity"})
    assert keys(answer) == ["auth"]
    assert '<option value="unknown" selected>' in answer.content.decode()
    assert 'name="q" maxlength="100" value="identity"' in answer.content.decode()
    assert "1 of 11" in text_of(answer)


def test_the_tally_counts_every_target_whatever_the_filter(manager):
    HealthState.objects.filter(target="rag").update(state=Health.UNHEALTHY)
    for query in ({}, {"q": "identity"}):
        assert "1 unhealthy" in text_of(manager.get("/services/", query)).replace("\xa0", " ")
        assert "10 healthy" in text_of(manager.get("/services/", query)).replace("\xa0", " ")


def test_nothing_that_fits_says_so_and_leads_back(manager):
    answer = manager.get("/services/", {"q": "nothing of ours"})
    assert "None of the 11 fits this filter." in text_of(answer)
    assert 'href="/services/"' in answer.content.decode()


def test_a_state_that_does_not_exist_is_told(manager):
    answer = manager.get("/services/", {"state": "green"})
    assert answer.status_code == 422
    assert "green is not one of the available choices" in text_of(answer)


def test_in_order_of_trouble_the_unhealthy_that_carry_traffic_stand_first(manager, shell):
    tick_all(1, shell)
    set_weight(key="USE_STORAGE_SERVICE", weight=100, actor=shell)
    reconcile_all()
    HealthState.objects.filter(target__in=["auth", "storage"]).update(state=Health.UNHEALTHY)
    HealthState.objects.filter(target="rag").delete()
    found = keys(manager.get("/services/", {"sort": "trouble"}))
    assert found[:4] == ["storage", "auth", "rag", "monolith"]


def test_it_is_shown_a_page_at_a_time_and_pages_keep_the_filter(manager, monkeypatch):
    monkeypatch.setattr(overview, "PAGE", 4)
    first = manager.get("/services/", {"state": "healthy"})
    assert len(keys(first)) == 4
    assert 'href="?state=healthy&amp;page=2" rel="next"' in first.content.decode()
    last = manager.get("/services/", {"state": "healthy", "page": "99"})
    assert keys(last) == list(keys_in_order())[-3:]
    assert "Page 3 of 3" in text_of(last)
    everything = [key for number in (1, 2, 3) for key in keys(manager.get("/services/", {"page": number}))]
    assert everything == ["monolith", *keys_in_order()]


def test_without_a_plan_it_says_so(people, client):
    client.force_login(people[Role.VIEWER].account)
    assert "No plan is loaded yet" in text_of(client.get("/services/"))


# -- what still reaches the monolith ----------------------------------------------------------------------------------


def test_what_still_reaches_the_monolith_is_told_with_the_three_largest(manager):
    for key, count in (("auth", 400), ("rag", 200), ("storage", 100), ("template", 50)):
        requests(key, Side.MONOLITH, count)
    requests("rag", Side.SERVICE, 250)
    said = text_of(manager.get("/services/")).split("reach the monolith")[1]
    assert said.startswith(" 75 % 750 of 1,000 in the last minute")
    assert re.search(r"Most of them: Auth service 400 , .* 200 , .* 100 ", said)
    assert "Templates" not in said.split("Search")[0]


def test_without_traffic_there_is_no_share(manager):
    assert "No traffic in the last minute" in text_of(manager.get("/services/"))


def test_when_nothing_reaches_it_any_more_that_is_told(manager):
    requests("auth", Side.SERVICE, 40)
    said = text_of(manager.get("/services/"))
    assert "0 % 0 of 40 in the last minute" in said
    assert "All of it goes to the new side." in said


@pytest.mark.parametrize(("old", "new", "told"), [(1, 9999, "1 %"), (9999, 1, "99 %")])
def test_a_share_is_never_rounded_to_all_or_nothing(manager, old, new, told):
    requests("auth", Side.MONOLITH, old)
    requests("auth", Side.SERVICE, new)
    assert f"reach the monolith {told}" in text_of(manager.get("/services/"))


# -- live, and what it costs ------------------------------------------------------------------------------------------


def test_the_live_part_brings_the_same_rows_and_a_row_that_is_as_it_was_stays(manager):
    summed_up("auth")
    page = manager.get("/services/", {"state": "healthy"}).content.decode()
    part = manager.get("/live/services/", {"state": "healthy"}, headers=HTMX)
    live = part.content.decode()
    assert 'hx-get="/live/services/?state=healthy"' in page
    assert keys(part) == ["monolith", *keys_in_order()]
    assert "<form" not in live
    same = dict(re.findall(r'<li id="row-([\w-]+)" data-same="(\w+)"', page))
    assert dict(re.findall(r'<li id="row-([\w-]+)" data-same="(\w+)"', live)) == same
    token = re.search(r'data-token="\w+"', page)[0]
    assert token in live
    HealthState.objects.filter(target="auth").update(error="answered 500")
    again = manager.get("/live/services/", {"state": "healthy"}, headers=HTMX).content.decode()
    fresh = dict(re.findall(r'<li id="row-([\w-]+)" data-same="(\w+)"', again))
    assert {key for key in same if same[key] != fresh[key]} == {"auth"}


def test_the_live_part_brings_no_row_that_the_page_does_not_have(manager):
    page = manager.get("/services/", {"q": "identity"}).content.decode()
    assert '<input type="hidden" id="shown" name="shown" value="auth">' in page
    assert keys(manager.get("/live/services/", {"shown": "auth monolith nothing"}, headers=HTMX)) == [
        "monolith",
        "auth",
    ]
    assert keys(manager.get("/live/services/", {"shown": ""}, headers=HTMX)) == []


def test_other_rows_are_told_by_the_token(manager):
    def token():
        return re.search(
            r'id="token"[^>]*data-token="(\w+)"', manager.get("/live/services/?sort=trouble").content.decode()
        )[1]

    before = token()
    assert token() == before
    HealthState.objects.filter(target="auth").update(state=Health.UNHEALTHY)
    assert token() != before


def queries(client, address="/services/"):
    client.get(address)
    with CaptureQueriesContext(connection) as captured:
        assert client.get(address).status_code == 200
    return len(captured)


@pytest.mark.parametrize("address", ["/services/", "/services/?sort=trouble&q=e", "/live/services/"])
def test_it_costs_the_same_with_more_services_history_and_events(manager, shell, address):
    before = queries(manager, address)
    document = tracseq(adapter="memory", by_hand=True)
    first = document.services[0]
    more = [
        first.model_copy(
            update={"key": f"more-{n}", "title": f"More {n}", "flag": f"USE_MORE_{n}", "routes": (f"/api/more-{n}",)}
        )
        for n in range(30)
    ]
    weeks = list(document.weeks)
    weeks[0] = weeks[0].model_copy(update={"flags": (*weeks[0].flags, *(one.flag for one in more))})
    document = document.model_copy(update={"services": (*document.services, *more), "weeks": tuple(weeks)})
    load_plan(document, actor=shell, reason="more")
    make_healthy()
    for key in Service.objects.values_list("key", flat=True):
        summed_up(key)
        changed(key, Health.UNHEALTHY, reason="no connection: refused")
        requests(key, Side.MONOLITH, 7, 1)
    for _ in range(3):
        put_behind(1)
    reconcile_all()
    assert queries(manager, address) == before <= 12


def test_more_changes_than_can_be_drawn_are_bounded(manager):
    summed_up("auth")
    for minutes in range(40):
        state = Health.UNHEALTHY if minutes % 2 else Health.HEALTHY
        changed("auth", state, ago=timedelta(minutes=minutes))
    drawn = re.findall(r'<path class="(ill|well)"', drawing(manager, "auth"))
    assert len(drawn) == overview_rows.MOST_CHANGES
