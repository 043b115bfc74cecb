"""The shipped plans say what the two migrations need, and the JSON Schema beside them is fresh."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta
from typing import get_args

import pytest

from demo import migrate_users
from demo.nouns import auth
from migrations_app.gates.parameters import CHECK_PARAMETERS, DataMigrated, JwtCompatible
from migrations_app.planfile.schema import ApproverWord, json_schema
from migrations_app.roles import MATRIX, Permission, Role

from .samples import PLANS, plan_of

# service: flag, prefix, port, week, risk
TRACSEQ = {
    "notification": ("USE_NOTIFICATION_SERVICE", "/api/notifications", 3016, 1, "low"),
    "storage": ("USE_STORAGE_SERVICE", "/api/storage", 3014, 1, "low"),
    "rag": ("USE_RAG_SERVICE", "/api/rag", 3019, 1, "low"),
    "template": ("USE_TEMPLATE_SERVICE", "/api/templates", 3013, 2, "medium"),
    "auth": ("USE_AUTH_SERVICE", "/api/auth", 3010, 3, "high"),
    "sample": ("USE_SAMPLE_SERVICE", "/api/samples", 3011, 4, "high"),
    "sequencing": ("USE_SEQUENCING_SERVICE", "/api/sequencing", 3012, 4, "high"),
    "dashboard": ("USE_DASHBOARD_SERVICE", "/api/dashboard", 3015, 5, "low"),
    "reports": ("USE_REPORTS_SERVICE", "/api/reports", 3017, 5, "low"),
    "spreadsheet": ("USE_SPREADSHEET_SERVICE", "/api/spreadsheets", 3018, 5, "low"),
}


@pytest.fixture(scope="module")
def tracseq():
    return plan_of((PLANS / "tracseq-phase2.yaml").read_text())


@pytest.fixture(scope="module")
def nanopore():
    return plan_of((PLANS / "nanopore.yaml").read_text())


def test_the_schema_beside_the_plans_is_fresh():
    assert (PLANS / "plan.schema.json").read_text() == json_schema(), (
        "run: python manage.py plan schema > plans/plan.schema.json"
    )


def test_the_schema_refuses_unknown_keys_everywhere_and_knows_the_checks():
    schema = json.loads(json_schema())
    for part in [schema, *schema["$defs"].values()]:
        assert part["additionalProperties"] is False
    for name in ("PrerequisitePart", "DonePart"):
        part = schema["$defs"][name]
        assert part["properties"]["check"]["anyOf"] == [{"enum": sorted(CHECK_PARAMETERS)}, {"type": "null"}]
        assert [rule["if"]["properties"]["check"]["const"] for rule in part["allOf"]] == list(CHECK_PARAMETERS)
        for rule, model in zip(part["allOf"], CHECK_PARAMETERS.values(), strict=True):
            parameters = schema["$defs"][rule["then"]["properties"]["parameters"]["$ref"].removeprefix("#/$defs/")]
            assert list(parameters["properties"]) == [field.alias or name for name, field in model.model_fields.items()]


def test_the_schema_writes_lengths_of_time_as_a_plan_file_does():
    assert '"default": "P' not in json_schema()
    parts = json.loads(json_schema())["$defs"]
    assert parts["WeekPart"]["properties"]["soak"]["default"] == "0h"
    assert parts["ApprovalsPart"]["properties"]["valid_for"]["default"] == "24h"
    assert parts["RollbackRehearsed"]["properties"]["under"]["default"] == "2s"
    assert re.fullmatch(parts["WeekPart"]["properties"]["soak"]["pattern"], "90s")


def test_the_roles_that_a_plan_may_name_are_those_that_may_approve():
    assert set(get_args(ApproverWord)) == {role.value for role in Role if Permission.APPROVE in MATRIX[role]}


@pytest.mark.parametrize("name", ["tracseq-phase2.yaml", "nanopore.yaml"])
def test_plan_files_begin_with_the_line_for_editors(name):
    assert (PLANS / name).read_text().startswith("# yaml-language-server: $schema=plan.schema.json\n")


@pytest.mark.parametrize("name", ["tracseq-phase2.yaml", "nanopore.yaml"])
def test_what_goes_over_in_steps_keeps_each_user_on_one_side(name):
    plan = plan_of((PLANS / name).read_text())
    assert any(service.rollout for service in plan.services)
    assert plan.gateway.sticky.row() == {"jwt_claim": "sub"}


def test_tracseq_has_every_service_with_its_flag_prefix_port_week_and_risk(tracseq):
    weeks = {flag: week for week in tracseq.weeks for flag in week.flags}
    found = {
        service.key: (
            service.flag,
            *service.routes,
            int(service.upstream.rpartition(":")[2]),
            weeks[service.flag].number,
            weeks[service.flag].risk,
        )
        for service in tracseq.services
    }
    assert found == TRACSEQ
    assert {service.key for service in tracseq.services if service.new_side_only} == {
        "dashboard",
        "reports",
        "spreadsheet",
    }
    assert {service.strip for service in tracseq.services} == {"/api"}
    assert tracseq.monolith.address == "127.0.0.1:3000"


def test_tracseq_has_every_prerequisite(tracseq):
    assert {week.number: [item.key for item in week.prerequisites] for week in tracseq.weeks} == {
        1: ["services-looked-at", "services-healthy"],
        2: ["week-1-stable", "no-degradation"],
        3: ["database-backup", "user-data", "jwt", "support-standby", "users-notified", "rollback-plan"],
        4: ["week-3-stable"],
        5: [],
        6: ["all-flags-on"],
    }
    assert {item.key: item.check for week in tracseq.weeks for item in week.prerequisites} == {
        "services-healthy": "services_healthy",
        "services-looked-at": None,
        "week-1-stable": "week_stable",
        "no-degradation": "no_degradation",
        "database-backup": "backup_fresh",
        "user-data": "data_migrated",
        "jwt": "jwt_compatible",
        "support-standby": None,
        "users-notified": None,
        "rollback-plan": "rollback_rehearsed",
        "week-3-stable": "week_stable",
        "all-flags-on": "flags_on",
    }
    valid_for = {item.key: item.valid_for for item in tracseq.weeks[2].prerequisites if item.kind == "manual"}
    assert valid_for == {"support-standby": timedelta(hours=4), "users-notified": timedelta(hours=72)}
    assert parameters(tracseq, "services-healthy") == {"for": "1m"}
    assert parameters(tracseq, "week-1-stable") == {"week": 1, "for": "24h"}
    assert parameters(tracseq, "week-3-stable") == {"week": 3, "for": "72h"}
    assert parameters(tracseq, "rollback-plan") == {"within": "7d", "under": "2s"}
    assert parameters(tracseq, "database-backup")["file"] == "tracseq_main-*.dump"
    assert parameters(tracseq, "all-flags-on") == {"all": True}


def parameters(plan, key):
    (found,) = (item.parameters for week in plan.weeks for item in week.prerequisites if item.key == key)
    return found


def test_the_user_data_is_compared_in_every_column_that_the_demo_copies(tracseq):
    asked = DataMigrated.of(parameters(tracseq, "user-data"))
    (table,) = asked.tables
    assert (asked.old, asked.new, table.name, table.renamed) == ("main", "auth", "users", None)
    assert (table.key, *table.columns) == migrate_users.COLUMNS


def test_the_tokens_are_tried_on_paths_that_both_sides_have(tracseq):
    asked = JwtCompatible.of(parameters(tracseq, "jwt"))
    served = {(method, f"/api{path}") for method, path, _ in auth.ROUTES}
    assert {("POST", asked.sign_in), ("GET", asked.verify)} <= served


@pytest.mark.parametrize("name", ["tracseq-phase2.yaml", "nanopore.yaml"])
def test_weeks_of_high_risk_need_an_approval_and_weeks_that_move_flags_check_that_they_are_on(name):
    for week in plan_of((PLANS / name).read_text()).weeks:
        assert week.required_approvals.count == (1 if week.risk == "high" else 0)
        assert (week.approvals is not None) == (week.risk == "high")
        on = [item.parameters for item in week.done_criteria if item.check == "flags_on"]
        assert on == ([{"weeks": [week.number]}] if week.flags else [])


def test_tracseq_takes_six_weeks_one_after_the_other(tracseq):
    monday = date(2026, 11, 23)
    for number, week in enumerate(tracseq.weeks, 1):
        assert week.number == number
        assert week.planned.start == monday + timedelta(weeks=number - 1)
        assert week.planned.end == week.planned.start + timedelta(days=6)
        assert week.after == ((number - 1,) if number > 1 else ())
        assert week.done_when
    assert [week.title for week in tracseq.weeks][4:] == ["Create missing services", "Complete migration"]
    assert [week.moves_traffic for week in tracseq.weeks] == [True] * 5 + [False]
    assert [week.risk for week in tracseq.weeks] == ["low", "medium", "high", "high", "low", "medium"]
    assert tracseq.weeks[2].soak == timedelta(hours=72)


def test_nanopore_lasts_ten_weeks_and_has_stages_without_a_flag(nanopore):
    assert (nanopore.weeks[-1].planned.end - nanopore.weeks[0].planned.start).days + 1 == 70
    assert [week.moves_traffic for week in nanopore.weeks] == [False, True, True, True, False]
    ports = sorted(int(service.upstream.rpartition(":")[2]) for service in nanopore.services)
    assert ports == [3002, 3003, 3004, 3005, 3006, 3007]
