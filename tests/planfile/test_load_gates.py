"""What a load does to what gates rest on: sign-offs, check results, approvals, and the time that is waited for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone

from migrations_app.actions.approvals import request_approval
from migrations_app.actions.overrides import override_gate
from migrations_app.actions.prerequisites import tick
from migrations_app.actions.weeks import enable_week, roll_back_week
from migrations_app.actor import SYSTEM
from migrations_app.choices import CheckState, Phase, PrerequisiteKind, WeekStatus
from migrations_app.errors import GateClosed, Invalid, NotPermitted, PlanConflict
from migrations_app.gates.load import verdicts
from migrations_app.gates.target import digest_of
from migrations_app.models import (
    ApprovalRequest,
    AuditEvent,
    CheckResult,
    Evidence,
    Override,
    Plan,
    Prerequisite,
    SignOff,
    Week,
)
from migrations_app.planfile.load import current_plan, current_scale, load_plan
from migrations_app.roles import Permission, Role
from tests.factories import make_healthy, tick_all

from .samples import CHECKED, SMALL, changed, plan_of

pytestmark = pytest.mark.django_db

HEALTHY = "      - {key: healthy, title: Storage is healthy, kind: manual}\n"
BACKUP = "{key: backup, title: The backup is done, kind: manual}"


def load(text=SMALL, **options):
    return load_plan(plan_of(text), actor=SYSTEM, **options)


def start_week_1(shell):
    make_healthy()
    tick_all(1, shell)
    enable_week(number=1, actor=shell)


def withdrawn():
    """Which sign-offs the last audit event names as lost."""
    return AuditEvent.objects.first().after["sign_offs_withdrawn"]


def live():
    return set(SignOff.objects.filter(withdrawn_at=None).values_list("prerequisite__week__number", "prerequisite__key"))


def find(week, key):
    return Prerequisite.objects.get(week__number=week, key=key)


def store_result(row):
    now = timezone.now()
    asked = digest_of([row.check_name, row.parameters])
    return CheckResult.objects.create(
        prerequisite=row,
        state=CheckState.HELD,
        value="1",
        limit="1",
        asked=asked,
        since=now,
        checked_at=now,
        milliseconds=1,
    )


# --- lines of a checklist ---


def test_the_lines_of_a_week_are_rows_with_their_keys_kinds_checks_and_validity():
    load(CHECKED)
    rows = list(Prerequisite.objects.filter(week__number=1).order_by("-phase", "position"))
    assert [(row.phase, row.key, row.kind, row.check_name) for row in rows] == [
        (Phase.START, "healthy", PrerequisiteKind.AUTOMATIC, "services_healthy"),
        (Phase.START, "told", PrerequisiteKind.MANUAL, ""),
        (Phase.START, "users", PrerequisiteKind.AUTOMATIC, "data_migrated"),
        (Phase.START, "answers", PrerequisiteKind.AUTOMATIC, "endpoint_answers"),
        (Phase.DONE, "done-1", PrerequisiteKind.MANUAL, ""),
        (Phase.DONE, "all-on", PrerequisiteKind.AUTOMATIC, "flags_on"),
    ]
    assert (rows[0].parameters, rows[1].valid_for) == ({"services": ["storage"], "for": "5m"}, timedelta(hours=72))
    assert (rows[5].parameters, rows[5].help, rows[5].title) == (
        {"weeks": [1]},
        "All of it.",
        "Storage is on the new side.",
    )
    week = Week.objects.get(number=1)
    assert (week.approvals_needed, week.approver_role) == (2, Role.APPROVER)
    assert (week.approval_valid_for, week.soak) == (timedelta(hours=8), timedelta(seconds=90))
    other = Week.objects.get(number=2)
    assert (other.approvals_needed, other.approver_role) == (1, Role.APPROVER)
    assert other.approval_valid_for == timedelta(hours=24)
    assert load(CHECKED).changed is False


def test_a_sign_off_lasts_as_long_as_its_line_says(shell):
    load(CHECKED)
    row = find(1, "told")
    tick(prerequisite_id=row.pk, actor=shell, note="by mail")
    sign_off = SignOff.objects.get()
    assert sign_off.expires_at == sign_off.ticked_at + timedelta(hours=72)


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (("kind: manual}", "kind: manual, valid_for: 4h}"), False),
        (("kind: manual}", "kind: manual, help: Look.}"), True),
        (("title: The backup is done, kind: manual", "title: Backed up, kind: manual"), False),
        (
            ("kind: manual}", "kind: automatic, check: backup_fresh, parameters: {file: a.dump}}"),
            False,
        ),
    ],
)
def test_a_sign_off_is_kept_only_by_the_same_promise(shell, change, kept):
    load()
    tick_all(2, shell)
    old, new = change
    load(changed((BACKUP, BACKUP.replace(old, new))))
    assert live() == ({(2, "backup")} if kept else set())
    assert len(withdrawn()) == (0 if kept else 1)


def test_another_validity_ends_the_sign_offs_that_had_the_old_one(shell):
    load(changed((BACKUP, BACKUP.replace("manual}", "manual, valid_for: 72h}"))))
    tick_all(2, shell)
    load(changed((BACKUP, BACKUP.replace("manual}", "manual, valid_for: 1h}"))))
    assert live() == set()
    tick_all(2, shell)
    sign_off = SignOff.objects.get(withdrawn_at=None)
    assert sign_off.expires_at - sign_off.ticked_at == timedelta(hours=1)


def test_sign_offs_of_done_criteria_go_with_their_sentence(shell):
    text = changed(("[Storage is on the new side.]", "[Storage is on the new side., {key: fine, title: All is fine.}]"))
    load(text)
    tick_all(1, shell, phase=Phase.DONE)
    load(text.replace("Storage is on", "Storage runs on"))
    assert live() == {(1, "fine")}
    (told,) = withdrawn()
    assert told.startswith("week 1 / done-1: ticked by tester at ")


def test_a_key_that_moves_from_the_prerequisites_to_the_done_criteria_starts_anew(shell):
    load()
    tick_all(1, shell)
    load(
        changed(
            (HEALTHY, ""),
            ("    prerequisites:\n    soak", "    soak"),
            ("[Storage is on the new side.]", ("[{key: healthy, title: Storage is healthy}]")),
        )
    )
    assert live() == set()
    assert find(1, "healthy").phase == Phase.DONE
    assert withdrawn()[0].startswith("week 1 / healthy: ticked by tester")


def test_a_removed_line_takes_its_sign_off_evidence_and_result_along(shell):
    load(CHECKED)
    store_result(find(1, "users"))
    tick_all(1, shell)
    sign_off = SignOff.objects.get(prerequisite__key="told")
    Evidence.objects.create(sign_off=sign_off, name="a", content_type="text/plain", size=1, sha256="0", content=b"a")
    load()
    assert not Prerequisite.objects.filter(key__in=["users", "told", "answers", "all-on"]).exists()
    assert CheckResult.objects.count() == Evidence.objects.count() == 0
    assert [told.partition(":")[0] for told in withdrawn()] == ["week 1 / told"]


# --- what a week moves ---


@pytest.mark.parametrize(
    "change",
    [
        ("127.0.0.1:3010", "127.0.0.1:3999"),
        ("[/api/auth]", "[/api/auth, /api/login]"),
        ("    owner: Identity team", "    owner: Identity team\n    strip: ''"),
        ("    owner: Identity team", "    owner: Identity team\n    health_path: /ready"),
    ],
)
def test_sign_offs_are_withdrawn_when_the_week_moves_something_else(shell, change):
    load()
    tick_all(1, shell)
    tick_all(2, shell)
    tick_all(2, shell, phase=Phase.DONE)
    load(changed(change))
    assert live() == {(1, "healthy")}
    assert [told.partition(" at ")[0] for told in withdrawn()] == [
        "week 2 / backup: ticked by tester",
        "week 2 / done-1: ticked by tester",
    ]
    assert {told.partition(", ")[2] for told in withdrawn()} == {
        "void: the week's flags, routes or upstreams have changed"
    }
    load()
    assert live() == {(1, "healthy")}


def test_sign_offs_are_withdrawn_when_a_flag_comes_or_goes(shell):
    load()
    tick_all(1, shell)
    tick_all(2, shell)
    text = changed(("flags: [USE_STORAGE]", "moves_traffic: false"), ("[USE_AUTH]", "[USE_AUTH, USE_STORAGE]"))
    load(text)
    assert live() == set()
    assert len(withdrawn()) == 2


@pytest.mark.parametrize(
    "change",
    [
        ("    owner: Identity team", "    owner: Another team"),
        ("    owner: Identity team", "    owner: Identity team\n    timeout: 5"),
        ("risk: high", "risk: medium"),
        ("127.0.0.1:3000", "127.0.0.1:3001"),
    ],
)
def test_sign_offs_stay_while_the_week_moves_the_same(shell, change):
    load()
    tick_all(2, shell)
    load(changed(change))
    assert live() == {(2, "backup")}
    assert withdrawn() == []


def test_a_sign_off_that_is_lost_twice_is_named_once(shell):
    load()
    tick_all(2, shell)
    load(changed(("127.0.0.1:3010", "127.0.0.1:3999"), ("The backup is done", "Backed up")))
    (told,) = withdrawn()
    assert told.startswith("week 2 / backup: ticked by tester at ")


# --- what checks found ---


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (("[email, role]", "[email]"), {"answers"}),
        (("title: Users are the same", "title: Users are all there"), {"users", "answers"}),
        (("127.0.0.1:3010", "127.0.0.1:3999"), set()),
        (("127.0.0.1:3000", "127.0.0.1:3001"), set()),
        (("    owner: Lab team", "    owner: Lab crew"), {"users", "answers"}),
    ],
)
def test_results_of_changed_checks_and_of_other_routes_are_forgotten(change, kept):
    load(CHECKED)
    store_result(find(1, "users"))
    store_result(find(1, "answers"))
    load(changed(change, text=CHECKED))
    assert set(CheckResult.objects.values_list("prerequisite__key", flat=True)) == kept


# --- approvals ---


def test_a_new_revision_makes_the_pages_of_weeks_with_an_open_request_old(people):
    load()
    request_approval(number=2, actor=people[Role.RELEASE_MANAGER], reason="soon")
    before = dict(Week.objects.values_list("number", "version"))
    load(changed(("title: A small plan", "title: Another")))
    after = dict(Week.objects.values_list("number", "version"))
    assert (after[1], after[2]) == (before[1], before[2] + 1)


def test_a_week_that_was_asked_for_and_overridden_may_be_removed_before_it_starts(people):
    load()
    request_approval(number=2, actor=people[Role.RELEASE_MANAGER], reason="soon")
    closed = [line.key for line in verdicts(weeks=[2])[2].blocking]
    override_gate(number=2, lines=closed, minutes=5, actor=people[Role.ADMINISTRATOR], reason="a drill")
    auth = SMALL[SMALL.index("  - key: auth") : SMALL.index("weeks:")]
    load(changed((SMALL[SMALL.index("  - number: 2") :], ""), (auth, "")))
    assert list(Week.objects.values_list("number", flat=True)) == [1]
    assert ApprovalRequest.objects.count() == Override.objects.count() == 0
    assert AuditEvent.objects.filter(week_number=2).count() == 2


def test_a_started_week_keeps_its_approvals_and_what_it_is_done_when(shell):
    load()
    start_week_1(shell)
    with pytest.raises(PlanConflict) as raised:
        load(
            changed(
                ("    soak: 48h", "    approvals: {count: 2}\n    soak: 48h"),
                ("[Storage is on the new side.]", "[Storage is on the new side., And stable.]"),
            )
        )
    assert raised.value.conflicts == [
        "Week 1 has been started: its approvals cannot change from none to 2 by the role approver for 24h.",
        "Week 1 has been started: what it is done when cannot change: 'done-2' is added.",
    ]


# --- the time scale ---


def test_a_time_scale_is_stored_told_and_kept():
    loaded = load(time_scale=3600)
    assert (loaded.time_scale, current_scale(), Plan.objects.get().time_scale) == (3600, 3600, 3600)
    assert loaded.difference.lines[-1] == "time scale 1 -> 3600"
    assert AuditEvent.objects.first().after["time_scale"] == 3600
    again = load(time_scale=3600)
    assert (again.changed, again.revision, again.time_scale) == (False, 1, 3600)
    assert current_plan() == plan_of()


def test_without_a_plan_the_scale_is_one():
    assert current_scale() == 1
    assert load().time_scale == 1
    assert AuditEvent.objects.first().after["time_scale"] == 1


def test_the_scale_alone_is_a_difference_with_a_revision_and_no_generation():
    load(CHECKED)
    store_result(find(1, "users"))
    versions = dict(Week.objects.values_list("number", "version"))
    loaded = load(CHECKED, time_scale=3600)
    assert loaded.difference.lines == ("time scale 1 -> 3600",)
    assert (loaded.revision, loaded.generation, loaded.difference.routing) == (2, 1, False)
    event = AuditEvent.objects.first()
    assert (event.before["revision"], event.after["revision"], event.generation) == (1, 2, None)
    assert event.after["difference"] == ["time scale 1 -> 3600"]
    assert dict(Week.objects.values_list("number", "version")) == {key: one + 1 for key, one in versions.items()}
    assert not CheckResult.objects.exists()
    assert load(CHECKED).difference.lines == ("time scale 3600 -> 1",)


def test_the_scale_shortens_what_is_waited_for_and_not_what_expires(shell):
    load(changed((HEALTHY, HEALTHY.replace("manual}", "manual, valid_for: 4h}"))), time_scale=3600)
    start_week_1(shell)
    week, row = Week.objects.get(number=1), Plan.objects.get()
    assert row.scaled(week.soak) == timedelta(seconds=48)
    sign_off = SignOff.objects.get()
    assert sign_off.expires_at - sign_off.ticked_at == timedelta(hours=4)


@pytest.mark.parametrize("scale", [0, -1, 86_401])
def test_a_scale_out_of_range_is_refused_before_anything_is_done(scale):
    with pytest.raises(Invalid, match=f"from 1 to 86400, not {scale}"):
        load(time_scale=scale)
    assert not Plan.objects.exists()
    assert load(time_scale=86_400).time_scale == 86_400


def test_production_waits_as_long_as_the_plan_says(settings):
    settings.PRODUCTION = True
    with pytest.raises(Invalid, match="for demos and tests"):
        load(time_scale=2)
    assert not Plan.objects.exists()
    assert load(time_scale=1).changed


def test_the_scale_does_not_change_under_a_soaking_week(shell):
    load(time_scale=3600)
    start_week_1(shell)
    assert Week.objects.get(number=1).status == WeekStatus.SOAKING
    for scale in (1, 7200):
        with pytest.raises(PlanConflict, match=f"Week 1 is soaking: the time scale cannot change from 3600 to {scale}"):
            load(time_scale=scale)
    assert (current_scale(), Plan.objects.get().revision) == (3600, 1)
    assert load(changed(("end: 2026-11-29", "end: 2026-12-24")), time_scale=3600).changed
    roll_back_week(number=1, actor=shell)
    assert load(time_scale=1).time_scale == 1


def test_what_is_in_the_way_of_the_plan_and_of_the_scale_is_told_at_once(shell):
    load()
    start_week_1(shell)
    with pytest.raises(PlanConflict) as raised:
        load(changed(("soak: 48h", "soak: 1h")), time_scale=60)
    assert [sentence.partition(":")[0] for sentence in raised.value.conflicts] == [
        "Week 1 has been started",
        "Week 1 is soaking",
    ]


# --- while others act ---


@pytest.mark.django_db(transaction=True)
def test_a_load_waits_for_a_tick_and_then_withdraws_it(shell):
    load()

    def change_upstream():
        try:
            load(changed(("127.0.0.1:3010", "127.0.0.1:3999")))
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            tick_all(2, shell)
            waiting = pool.submit(change_upstream)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.3)
        waiting.result(timeout=5)
    assert live() == set()
    assert withdrawn()[0].startswith("week 2 / backup: ticked by tester")


def test_whoever_has_lost_the_role_meanwhile_loads_nothing(people):
    load()
    administrator = people[Role.ADMINISTRATOR]
    assert administrator.can(Permission.LOAD_PLAN)  # as seen when the request began
    User.objects.get(username="administrator").groups.clear()
    with pytest.raises(NotPermitted, match="may no longer load plans"):
        load_plan(plan_of(changed(("risk: high", "risk: low"))), actor=administrator)
    assert Plan.objects.get().revision == 1


def test_a_changed_upstream_closes_the_gate_until_somebody_looks_again(shell):
    load()
    make_healthy()
    tick_all(1, shell)
    load(changed(("127.0.0.1:3014", "127.0.0.1:3999")))
    make_healthy()
    with pytest.raises(GateClosed):
        enable_week(number=1, actor=shell)
    tick_all(1, shell)
    assert enable_week(number=1, actor=shell).changed
