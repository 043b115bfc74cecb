"""What started weeks have promised, and what carries traffic, is not changed by a plan file."""

from __future__ import annotations

import pytest

from migrations_app.planfile.conflicts import conflicts, scale_conflicts

from .samples import SMALL, changed, plan_of

WEEK_1 = SMALL[SMALL.index("  - number: 1") : SMALL.index("  - number: 2")]
STORAGE = SMALL[SMALL.index("  - key: storage") : SMALL.index("  - key: auth")]

STARTED = "Week 1 has been started: "
ON = "Service 'storage' carries traffic (USE_STORAGE is on): "


def found(*replacements: tuple[str, str], started=(1,), on=("USE_STORAGE",)) -> list[str]:
    return conflicts(plan_of(), plan_of(changed(*replacements)), started=started, on=on)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("risk: low", "risk: high", STARTED + "its risk cannot change from low to high."),
        ("soak: 48h", "soak: 1h", STARTED + "its soak cannot change from 48h to 1h."),
        (
            "[Storage is on the new side.]",
            "[Done.]",
            STARTED + "what it is done when cannot change: 'done-1' is changed.",
        ),
        (
            "[Storage is on the new side.]",
            "[Storage is on the new side., And stable.]",
            STARTED + "what it is done when cannot change: 'done-2' is added.",
        ),
        (
            "[Storage is on the new side.]",
            "[{title: Storage is on the new side., check: flags_on, parameters: {weeks: [1]}}]",
            STARTED + "what it is done when cannot change: 'done-1' is changed.",
        ),
        (
            "kind: manual}\n    soak",
            "kind: manual, valid_for: 4h}\n    soak",
            STARTED + "its prerequisite 'healthy' cannot be changed.",
        ),
        (
            "    soak: 48h",
            "    approvals: {count: 2, valid_for: 8h}\n    soak: 48h",
            STARTED + "its approvals cannot change from none to 2 by the role approver for 8h.",
        ),
        ("title: Storage is healthy", "title: Fine", STARTED + "its prerequisite 'healthy' cannot be changed."),
        ("{key: healthy,", "{key: well,", STARTED + "its prerequisite 'healthy' cannot be removed."),
        (
            "    soak: 48h",
            "      - {key: x, title: X, kind: manual}\n    soak: 48h",
            STARTED + "its prerequisite 'x' cannot be added.",
        ),
        (
            "127.0.0.1:3014",
            "127.0.0.1:3999",
            ON + "its upstream cannot change from 127.0.0.1:3014 to 127.0.0.1:3999. Roll it back first.",
        ),
        (
            "[/api/storage]",
            "[/api/shelves]",
            ON + "its routes cannot change from /api/storage to /api/shelves. Roll it back first.",
        ),
        (
            "    owner: Lab team",
            "    owner: Lab team\n    strip: ''",
            ON + "strip cannot change from '/api' to ''. Roll it back first.",
        ),
        (
            "    owner: Lab team",
            "    owner: Lab team\n    writes_from: 50",
            ON + "writes_from cannot change from 1 to 50. Roll it back first.",
        ),
        (
            "adapter: memory",
            "adapter: envoy",
            "The gateway's key and adapter cannot change once a week has been started.",
        ),
    ],
)
def test_a_broken_promise_is_a_sentence(old, new, sentence):
    assert sentence in found((old, new))
    assert found((old, new), started=(), on=()) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("title: Storage first", "title: Shelves first"),
        ("end: 2026-11-29", "end: 2026-12-24"),
        ("impact: Minimal", "impact: Hardly any\n    owner: Someone\n    notes: Careful."),
        ("title: Storage is healthy, kind: manual", "title: Storage is healthy, kind: manual, help: Look."),
        ("owner: Lab team", "owner: New team"),
        ("    soak: 48h", "    approvals: {count: 0}\n    soak: 48h"),
        ("[Storage is on the new side.]", "[{title: Storage is on the new side., help: Look.}]"),
        ("risk: high", "risk: low"),
        ("127.0.0.1:3010", "127.0.0.1:3999"),
    ],
)
def test_dates_titles_owners_notes_and_what_has_not_begun_may_change(old, new):
    assert found((old, new)) == []


def test_a_started_week_and_a_service_with_traffic_cannot_be_removed():
    assert found((WEEK_1, ""), (STORAGE, ""), ("    after: [1]\n", ""), ("{weeks: [1]}", "{all: true}")) == [
        "Week 1 has been started and cannot be removed.",
        "Service 'storage' carries traffic (USE_STORAGE is on) and cannot be removed.",
    ]


def test_flags_do_not_move_into_or_out_of_a_started_week():
    told = found(
        ("flags: [USE_STORAGE]", "moves_traffic: false"), ("flags: [USE_AUTH]", "flags: [USE_AUTH, USE_STORAGE]")
    )
    assert STARTED + "its flag USE_STORAGE cannot be removed." in told
    assert STARTED + "moves_traffic cannot change." in told
    told = found(
        ("flags: [USE_STORAGE]", "moves_traffic: false"),
        ("flags: [USE_AUTH]", "flags: [USE_AUTH, USE_STORAGE]"),
        started=(2,),
        on=(),
    )
    assert told == ["Week 2 has been started: the flag USE_STORAGE cannot be added to it."]


def test_a_flag_with_traffic_keeps_its_name():
    told = found(("flag: USE_STORAGE\n", "flag: USE_SHELVES\n"), ("[USE_STORAGE]", "[USE_SHELVES]"), started=())
    assert told == [ON + "its flag cannot change to USE_SHELVES. Roll it back first."]


def test_saying_what_a_high_risk_needs_anyway_is_no_change_of_a_started_week():
    said = ("    after: [1]", "    after: [1]\n    approvals: {count: 1, role: approver, valid_for: 24h}")
    assert found(said, started=(2,), on=()) == []
    more = ("    after: [1]", "    after: [1]\n    approvals: {count: 2}")
    told = "its approvals cannot change from 1 by the role approver for 24h to 2 by the role approver for 24h."
    assert found(more, started=(2,), on=()) == [f"Week 2 has been started: {told}"]


def test_a_line_of_done_when_with_a_key_of_its_own_may_change_its_place():
    first = "[{key: on, title: It is on.}, {key: fine, title: All is fine.}]"
    second = "[{key: fine, title: All is fine.}, {key: on, title: It is on.}]"
    old, new = (plan_of(changed(("[Storage is on the new side.]", lines))) for lines in (first, second))
    assert conflicts(old, new, started=(1,), on=()) == []


def test_the_time_scale_does_not_change_under_a_soaking_week():
    assert scale_conflicts(1, 3600, soaking=[4, 2]) == [
        f"Week {number} is soaking: the time scale cannot change from 1 to 3600 under it."
        " Call it done or roll it back first, or keep the scale with --time-scale 1."
        for number in (2, 4)
    ]
    assert scale_conflicts(3600, 3600, soaking=[2]) == scale_conflicts(1, 3600, soaking=[]) == []


def test_all_conflicts_come_at_once():
    assert len(found(("risk: low", "risk: high"), ("soak: 48h", "soak: 1h"), ("127.0.0.1:3014", "127.0.0.1:1"))) == 3


def test_another_plan_needs_another_database():
    assert found(("key: small", "key: other"), started=(), on=()) == [
        "This database holds the plan 'small'; the plan 'other' needs a database of its own."
    ]


def test_a_new_service_cannot_bring_its_traffic_along():
    without = plan_of(changed((STORAGE, ""), (WEEK_1, ""), ("    after: [1]\n", ""), ("{weeks: [1]}", "{all: true}")))
    with_weight = plan_of(changed(("    owner: Lab team", "    owner: Lab team\n    weight: 30")))
    (sentence,) = conflicts(without, with_weight, started=(), on=())
    assert sentence.startswith("Service 'storage' would begin with 30 % on the new side, past its week's gate.")
