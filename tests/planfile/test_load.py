"""Loading: all or nothing, repeatable, and no promise of a started week broken."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from migrations_app.actions.flags import set_weight
from migrations_app.actions.weeks import enable_week
from migrations_app.actor import SYSTEM
from migrations_app.choices import AuditKind, Phase
from migrations_app.errors import GateClosed, NotFound, NotPermitted, PlanConflict
from migrations_app.models import (
    AuditEvent,
    Flag,
    Gateway,
    HealthState,
    Plan,
    Prerequisite,
    Route,
    Service,
    SignOff,
    Week,
)
from migrations_app.planfile.export import export_plan
from migrations_app.planfile.load import current_plan, load_plan
from migrations_app.planfile.problems import PlanFileError
from migrations_app.planfile.schema import join_address
from migrations_app.roles import Role
from tests.factories import make_healthy, tick_all

from .samples import PLANS, SMALL, changed, plan_of

pytestmark = pytest.mark.django_db


def load(text=SMALL, **options):
    return load_plan(plan_of(text), actor=SYSTEM, **options)


def rows():
    """Every row of the plan as values, primary keys included."""
    return [
        list(model.objects.order_by("pk").values())
        for model in (Plan, Week, Service, Route, Flag, Gateway, Prerequisite)
    ] + [list(Week.after.through.objects.order_by("pk").values()), AuditEvent.objects.count()]


def start_week_1(shell):
    make_healthy()
    tick_all(1, shell)
    set_weight(key="USE_STORAGE", weight=100, actor=shell)


@pytest.mark.parametrize("name", ["tracseq-phase2.yaml", "nanopore.yaml"])
def test_the_rows_say_what_the_plan_says(name):
    plan = plan_of((PLANS / name).read_text())
    load_plan(plan, actor=SYSTEM)
    row = Plan.objects.get()
    assert (row.key, row.title, row.summary) == (plan.plan.key, plan.plan.title, plan.plan.summary)
    assert join_address(row.monolith_host, row.monolith_port) == plan.monolith.address
    assert [(gateway.key, gateway.adapter) for gateway in row.gateways.all()] == [("main", "envoy")]
    for service, part in zip(row.services.all(), plan.services, strict=True):
        for field in ("key", "title", "area", "owner", "health_path", "strip", "timeout", "new_side_only"):
            assert getattr(service, field) == getattr(part, field)
        assert join_address(service.host, service.port) == part.upstream
        assert {route.prefix for route in service.routes.all()} == set(part.routes)
        assert (service.flag.key, service.flag.weight) == (part.flag, 0)
    for week, part in zip(row.weeks.all(), plan.weeks, strict=True):
        for field in ("number", "title", "risk", "impact", "owner", "notes", "soak", "moves_traffic"):
            assert getattr(week, field) == getattr(part, field)
        assert (week.planned_start, week.planned_end) == (part.planned.start, part.planned.end)
        approvals = part.required_approvals
        assert (week.approvals_needed, week.approval_valid_for) == (approvals.count, approvals.valid_for)
        assert week.approver_role == (approvals.role if approvals.count else "")
        assert set(week.flags.values_list("key", flat=True)) == set(part.flags)
        assert set(week.after.values_list("number", flat=True)) == set(part.after)
        for phase, lines in ((Phase.START, part.prerequisites), (Phase.DONE, part.done_criteria)):
            for prerequisite, item in zip(week.prerequisites.filter(phase=phase), lines, strict=True):
                assert (prerequisite.key, prerequisite.title, prerequisite.kind) == (item.key, item.title, item.kind)
                assert (prerequisite.check_name, prerequisite.parameters) == (item.check or "", item.parameters)
                assert (prerequisite.help, prerequisite.valid_for) == (item.help, item.valid_for)


def test_a_second_load_changes_nothing_and_says_so():
    first = load()
    assert (first.changed, first.revision, first.generation) == (True, 1, 1)
    before = rows()
    second = load(f"# only a comment\n{SMALL}")
    assert (second.changed, second.difference.lines, second.revision) == (False, (), 1)
    assert rows() == before


def test_a_load_is_an_audit_event_with_the_difference():
    load()
    loaded = load(changed(("risk: high", "risk: medium")), reason="rehearsed twice")
    event = AuditEvent.objects.first()
    assert (event.kind, event.actor, event.subject) == (AuditKind.PLAN_LOADED, "switchyard", "plan small")
    assert event.reason == "rehearsed twice"
    assert (event.before["revision"], event.after["revision"]) == (1, 2)
    assert event.before["fingerprint"] != event.after["fingerprint"]
    assert event.after["difference"] == ["week 2: risk 'high' -> 'medium'"] == list(loaded.difference.lines)
    assert event.generation is None


def test_only_a_change_of_routes_takes_a_generation_and_it_is_above_what_runs():
    load()
    assert load(changed(("risk: high", "risk: medium"))).generation == 1
    assert load(changed(("127.0.0.1:3010", "127.0.0.1:3011"))).generation == 2
    assert AuditEvent.objects.first().generation == 2
    Gateway.objects.update(observed_generation=40)
    assert load().generation == 41
    assert Plan.objects.get().generation == 41


def test_only_the_weeks_that_read_differently_get_a_new_version():
    load()
    load(changed(("127.0.0.1:3010", "127.0.0.1:3011"), ("title: A small plan", "title: Another")))
    assert list(Week.objects.values_list("number", "version")) == [(1, 1), (2, 2)]


def _swap(text, one, other):
    return text.replace(one, "...").replace(other, one).replace("...", other)


def test_everything_may_be_rearranged_before_it_has_begun():
    load()
    text = _swap(_swap(SMALL, "USE_STORAGE", "USE_AUTH"), "/api/storage", "/api/auth")
    text = changed(
        ("key: backup", "key: copy"),
        ("    after: [1]\n", ""),
        ("number: 1\n", "number: 1\n    after: [2]\n"),
        text=text,
    )
    load(text)
    assert current_plan() == plan_of(text)
    assert Route.objects.get(prefix="/api/auth").service.key == "storage"
    assert Flag.objects.get(key="USE_AUTH").service.key == "storage"
    assert Week.objects.get(number=1).after.get().number == 2
    load()
    assert current_plan() == plan_of()


def test_what_was_seen_at_another_address_vouches_for_nothing(shell):
    load()
    make_healthy()
    load(changed(("127.0.0.1:3014", "127.0.0.1:3999"), ("owner: Identity team", "owner: Other team")))
    assert set(HealthState.objects.values_list("target", flat=True)) == {"monolith", "auth"}
    tick_all(1, shell)
    with pytest.raises(GateClosed):
        enable_week(number=1, actor=shell)


def test_services_and_weeks_come_and_go():
    auth = SMALL[SMALL.index("  - key: auth") : SMALL.index("weeks:")]
    week = SMALL[SMALL.index("  - number: 2") :]
    load()
    load(changed((auth, ""), (week, "")))
    assert list(Service.objects.values_list("key", flat=True)) == ["storage"]
    assert list(Week.objects.values_list("number", flat=True)) == [1]
    load()
    assert Prerequisite.objects.filter(phase=Phase.START).count() == 3
    assert Prerequisite.objects.filter(phase=Phase.DONE).count() == 2


def test_sign_offs_of_unchanged_prerequisites_survive(shell):
    load()
    tick_all(1, shell)
    tick_all(2, shell)
    load(
        changed(
            ("title: The backup is done, kind: manual", "title: Two backups are done, kind: manual"),
            ("title: Storage is healthy, kind: manual", "title: Storage is healthy, kind: manual, help: Look."),
        )
    )
    live = SignOff.objects.filter(withdrawn_at=None)
    assert [sign_off.prerequisite.key for sign_off in live] == ["healthy"]
    withdrawn = SignOff.objects.get(prerequisite__key="backup")
    assert withdrawn.withdrawn_by == "switchyard"
    (kept,) = AuditEvent.objects.first().after["sign_offs_withdrawn"]
    assert kept.startswith("week 2 / backup: ticked by tester at ")


def test_a_prerequisite_with_a_sign_off_may_be_removed_and_the_audit_log_keeps_it(shell):
    load()
    tick_all(2, shell)
    load(changed(("      - {key: backup, title: The backup is done, kind: manual}\n", "")))
    assert not Prerequisite.objects.filter(key="backup").exists()
    assert AuditEvent.objects.first().after["sign_offs_withdrawn"][0].startswith("week 2 / backup: ticked by tester")


def test_a_started_week_keeps_its_promises_and_nothing_is_loaded(shell):
    load()
    start_week_1(shell)
    before = rows()
    with pytest.raises(PlanConflict) as raised:
        load(
            changed(
                ("title: A small plan", "title: Another"),
                ("soak: 48h", "soak: 1h"),
                ("127.0.0.1:3014", "127.0.0.1:3999"),
                ("risk: low", "risk: medium"),
            )
        )
    assert len(raised.value.conflicts) == 3
    assert rows() == before


def test_a_started_week_may_change_its_dates_and_the_flag_keeps_its_weight(shell):
    load()
    start_week_1(shell)
    generation = Plan.objects.get().generation
    loaded = load(changed(("end: 2026-11-29", "end: 2026-12-24"), ("127.0.0.1:3010", "127.0.0.1:3011")))
    assert loaded.generation == generation + 1
    assert Flag.objects.get(key="USE_STORAGE").weight == 100
    assert SignOff.objects.filter(withdrawn_at=None).count() == 1
    week = Week.objects.get(number=1)
    assert str(week.planned_end) == "2026-12-24"
    assert week.started_at is not None


def test_another_plan_is_refused():
    load()
    with pytest.raises(PlanConflict, match="This database holds the plan 'small'"):
        load(changed(("key: small", "key: other")))


def test_a_plan_may_begin_with_traffic_already_moved_but_not_bring_more_later():
    text = changed(("    owner: Lab team", "    owner: Lab team\n    weight: 30"))
    load(text)
    assert Flag.objects.get(key="USE_STORAGE").weight == 30
    assert load(text).changed is False
    load(text.replace("weight: 30", "weight: 60"))
    assert Flag.objects.get(key="USE_STORAGE").weight == 30


def test_loading_needs_the_permission(people):
    for role in (Role.SUPPORT, Role.RELEASE_MANAGER, Role.APPROVER):
        with pytest.raises(NotPermitted):
            load_plan(plan_of(), actor=people[role])
    assert not Plan.objects.exists()
    assert load_plan(plan_of(), actor=people[Role.ADMINISTRATOR]).changed


def test_the_port_offset_is_added_on_loading_and_taken_off_on_export(settings):
    settings.PORT_OFFSET = 20000
    load()
    assert set(Service.objects.values_list("port", flat=True)) == {23014, 23010}
    assert Plan.objects.get().monolith_port == 23000
    assert plan_of(export_plan()) == plan_of()
    assert load().changed is False
    settings.PORT_OFFSET = 62000
    with pytest.raises(PlanFileError):
        load(changed(("127.0.0.1:3014", "127.0.0.1:4014")))
    assert Plan.objects.get().monolith_port == 23000


@pytest.mark.django_db(transaction=True)
def test_two_first_loads_at_once_are_one_change():
    start = threading.Barrier(2)

    def first_load(_):
        start.wait(timeout=5)
        try:
            return load().changed
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(first_load, range(2))) == [False, True]
    assert AuditEvent.objects.count() == Plan.objects.get().revision == 1


@pytest.mark.django_db(transaction=True)
def test_a_load_waits_for_an_enable_and_then_sees_that_the_week_has_started(shell):
    load()
    make_healthy()
    tick_all(1, shell)

    def change_soak():
        try:
            load(changed(("soak: 48h", "soak: 1h")))
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            enable_week(number=1, actor=shell)
            waiting = pool.submit(change_soak)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.3)
        with pytest.raises(PlanConflict, match="Week 1 has been started"):
            waiting.result(timeout=5)


@pytest.mark.parametrize("name", ["tracseq-phase2.yaml", "nanopore.yaml"])
def test_an_export_loads_again_to_an_equal_plan(name):
    plan = plan_of((PLANS / name).read_text())
    load_plan(plan, actor=SYSTEM)
    exported = plan_of(export_plan())
    assert exported == plan
    assert load_plan(exported, actor=SYSTEM).changed is False


def test_without_a_plan_there_is_nothing_to_export():
    with pytest.raises(NotFound, match="No plan is loaded"):
        export_plan()


def test_a_repeated_load_costs_a_few_queries_whatever_the_size_of_the_plan():
    plan = plan_of((PLANS / "tracseq-phase2.yaml").read_text())
    load_plan(plan, actor=SYSTEM)
    with CaptureQueriesContext(connection) as queries:
        load_plan(plan, actor=SYSTEM)
    assert len(queries) <= 4
