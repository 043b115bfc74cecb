"""The difference of two plans, in lines."""

from __future__ import annotations

import pytest

from migrations_app.planfile.diff import compare, touched_weeks
from migrations_app.planfile.schema import fingerprint

from .samples import SMALL, changed, plan_of


def lines(*replacements: tuple[str, str]) -> tuple[str, ...]:
    return compare(plan_of(), plan_of(changed(*replacements))).lines


def test_equal_plans_have_no_difference():
    difference = compare(plan_of(), plan_of())
    assert not difference
    assert difference.routing is False


def test_everything_is_new_at_first():
    difference = compare(None, plan_of())
    assert difference.lines == (
        "plan 'small' added",
        "service 'storage' added",
        "service 'auth' added",
        "week 1 added",
        "week 2 added",
    )
    assert difference.routing


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("title: A small plan", "title: Another", "plan: title 'A small plan' -> 'Another'"),
        ("title: A small plan", "title: A small plan, targets: [Fast.]", "plan: target 'Fast.' added"),
        ("owner: Lab team", "owner: New team", "service 'storage': owner 'Lab team' -> 'New team'"),
        ("risk: high", "risk: medium", "week 2: risk 'high' -> 'medium'"),
        ("soak: 48h", "soak: 3d", "week 1: soak 48h -> 72h"),
        ("soak: 48h", "soak: 90m", "week 1: soak 48h -> 90m"),
        ("after: [1]", "after: []", "week 2: after 1 removed"),
        ("end: 2026-12-06", "end: 2026-12-08", "week 2: planned 2026-11-30 to 2026-12-06 -> 2026-11-30 to 2026-12-08"),
        ("[Storage is on the new side.]", "[Done.]", "week 1: done_when 'Storage is on the new side.' removed"),
        (
            "title: The backup is done",
            "title: Backed up",
            "week 2: prerequisite 'backup': title 'The backup is done' -> 'Backed up'",
        ),
        (
            "      - {key: backup, title: The backup is done, kind: manual}\n",
            "",
            "week 2: prerequisite 'backup' removed",
        ),
        (
            "    done_when: [Sign-in",
            "      - {key: jwt, title: JWT, kind: manual}\n    done_when: [Sign-in",
            "week 2: prerequisite 'jwt' added",
        ),
        ("soak: 48h", "soak: 90s", "week 1: soak 48h -> 90s"),
        (
            "[Storage is on the new side.]",
            "[Storage is on the new side., {key: fine, title: All is fine.}]",
            "week 1: done_when 'fine' added",
        ),
        (
            "[Storage is on the new side.]",
            "[{title: Storage is on the new side., check: flags_on, parameters: {all: true}}]",
            "week 1: done_when 'Storage is on the new side.' removed",
        ),
        (
            "    after: [1]",
            "    after: [1]\n    approvals: {count: 2, valid_for: 90m}",
            "week 2: approvals nothing -> 2 by the role approver, each for 90m",
        ),
        (
            "The backup is done, kind: manual",
            "The backup is done, kind: manual, valid_for: 4h",
            "week 2: prerequisite 'backup': valid_for nothing -> 4h",
        ),
        (
            "parameters: {weeks: [1]}",
            "parameters: {all: true}",
            "week 2: prerequisite 'week-1-on': parameters {'weeks': [1]} -> {'all': True}",
        ),
    ],
)
def test_each_change_is_a_line(old, new, line):
    assert lines((old, new))[0] == line


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "[A., {title: B., check: flags_on, parameters: {weeks: [1]}}]",
            "[A., {title: B., check: flags_on, parameters: {weeks: [2]}}]",
            (
                "week 1: done_when 'B.' by flags_on {'weeks': [1]} removed",
                "week 1: done_when 'B.' by flags_on {'weeks': [2]} added",
            ),
        ),
        (
            "[A.]",
            "[{title: A., help: Look.}]",
            ("week 1: done_when 'A.' removed", "week 1: done_when 'A.' with help added"),
        ),
        ("[{key: b, title: B.}]", "[{key: b, title: C.}]", ("week 1: done_when 'b': title 'B.' -> 'C.'",)),
        ("[{key: b, title: B.}, A.]", "[A.]", ("week 1: done_when 'b' removed",)),
        ("[A., B.]", "[B., A.]", ("week 1: done_when in another order",)),
        ("[A., {key: b, title: B.}]", "[{key: b, title: B.}, A.]", ("week 1: done_when in another order",)),
        (
            "[{key: a, title: A.}, {key: b, title: B.}]",
            "[{key: b, title: B.}, {key: a, title: A.}]",
            ("week 1: done_when in another order",),
        ),
    ],
)
def test_each_change_of_what_a_week_is_done_when_is_told(old, new, told):
    before, after = (plan_of(changed(("[Storage is on the new side.]", lines))) for lines in (old, new))
    assert compare(before, after).lines == told


def test_a_removed_service_and_week_are_told():
    auth = SMALL[SMALL.index("  - key: auth") : SMALL.index("weeks:")]
    week = SMALL[SMALL.index("  - number: 2") :]
    assert lines((auth, ""), (week, "")) == ("service 'auth' removed", "week 2 removed")


def test_another_order_alone_is_told():
    text = changed(("[USE_AUTH]", "[USE_AUTH, USE_STORAGE]"), ("flags: [USE_STORAGE]", "moves_traffic: false"))
    other = text.replace("[USE_AUTH, USE_STORAGE]", "[USE_STORAGE, USE_AUTH]")
    assert compare(plan_of(text), plan_of(other)).lines == ("week 2: flags in another order",)


@pytest.mark.parametrize(
    ("old", "new", "routing"),
    [
        ("127.0.0.1:3014", "127.0.0.1:3999", True),
        ("[/api/storage]", "[/api/storage, /api/shelves]", True),
        ("127.0.0.1:3000", "127.0.0.1:3001", True),
        ("    owner: Lab team", "    owner: Lab team\n    strip: ''", True),
        ("    owner: Lab team", "    owner: Lab team\n    timeout: 5", True),
        ("    owner: Lab team", "    owner: Other", False),
        ("soak: 48h", "soak: 24h", False),
    ],
)
def test_only_what_reaches_the_gateway_asks_for_a_new_table(old, new, routing):
    assert compare(plan_of(), plan_of(changed((old, new)))).routing is routing


def test_a_week_is_touched_by_its_own_changes_and_those_of_its_services():
    assert touched_weeks(plan_of(), plan_of(changed(("soak: 48h", "soak: 24h")))) == {1}
    assert touched_weeks(plan_of(), plan_of(changed(("127.0.0.1:3010", "127.0.0.1:3011")))) == {2}
    assert touched_weeks(plan_of(), plan_of(changed(("A small plan", "Another")))) == set()


def test_the_fingerprint_changes_with_the_content_and_not_with_the_layout():
    assert fingerprint(plan_of()) == fingerprint(plan_of(f"# a comment\n{SMALL}\n"))
    assert fingerprint(plan_of()) != fingerprint(plan_of(changed(("soak: 48h", "soak: 24h"))))
