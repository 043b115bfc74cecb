"""What must hold between the values of a plan."""

from __future__ import annotations

import pytest

from migrations_app.gates.parameters import CHECK_PARAMETERS

from .samples import SMALL, changed, line_of, only_problem, plan_of, problems_of

THIRD_WEEK = """\
  - number: 3
    title: Clean up
    risk: low
    impact: None
    planned: {start: 2026-12-07, end: 2026-12-13}
    moves_traffic: false
    after: [2]
    done_when: [All is tidy.]
"""

KNOWN = ", ".join(CHECK_PARAMETERS)


def reasons(text: str) -> list[str]:
    return [f"{problem.path}: {problem.reason}" for problem in problems_of(text)]


def test_a_flag_of_two_services_is_refused():
    text = changed(
        ("flag: USE_AUTH\n", "flag: USE_STORAGE\n"), ("    flags: [USE_AUTH]\n", "    moves_traffic: false\n")
    )
    first = line_of(SMALL, "flag: USE_STORAGE")
    assert only_problem(text)[1:] == ("services[auth].flag", f"the flag 'USE_STORAGE' is already used on line {first}")


def test_a_service_key_used_twice_is_refused():
    text = changed(("key: auth", "key: storage"))
    line = line_of(text, "    title: Auth") - 1
    assert only_problem(text) == (line, "services[storage].key", "the service key 'storage' is already used on line 5")


def test_a_service_cannot_be_called_as_the_old_side_is():
    text = changed(("key: storage", "key: monolith"))
    assert only_problem(text)[1:] == (
        "services[monolith].key",
        "'monolith' names the old side; give the service another key",
    )


def test_a_week_number_used_twice_is_refused():
    text = changed(("number: 2", "number: 1"), ("    after: [1]\n", ""))
    first = line_of(SMALL, "number: 1")
    assert only_problem(text)[1:] == ("weeks[1].number", f"the week number 1 is already used on line {first}")


def test_a_prerequisite_key_used_twice_in_a_week_is_refused_but_not_across_weeks():
    text = changed(("{key: week-1-on,", "{key: backup,"))
    line = line_of(text, "The backup is done")
    assert only_problem(text) == (
        line + 1,
        "weeks[2].prerequisites[backup].key",
        f"the prerequisite key 'backup' is already used on line {line}",
    )
    plan_of(changed(("{key: backup,", "{key: healthy,")))


@pytest.mark.parametrize(
    ("storage", "auth", "place"),
    [
        ("/api", "/api/auth", "auth"),
        ("/api/auth/login", "/api/auth", "storage"),
        ("/api/auth/a/b/c", "/api/auth", "storage"),
    ],
)
def test_a_prefix_inside_one_of_another_service_is_refused(storage, auth, place):
    text = changed(("[/api/storage]", f"[{storage}]"), ("[/api/auth]", f"[{auth}]"))
    _, path, reason = only_problem(text)
    assert path.startswith(f"services[{place}].routes[")
    assert "overlaps" in reason


def test_equal_prefixes_are_refused_also_within_a_service():
    line = line_of(SMALL, "[/api/storage]")
    for text, key in (
        (changed(("[/api/auth]", "[/api/storage]")), "auth"),
        (changed(("[/api/storage]", "[/api/storage, /api/storage]")), "storage"),
    ):
        path, reason = only_problem(text)[1:]
        assert path == f"services[{key}].routes[/api/storage]"
        assert reason == f"/api/storage is already a route of service 'storage' on line {line}"


@pytest.mark.parametrize("routes", ["[/api/authors]", "[/api/aut]", "[/api/storage/a, /api/storage]"])
def test_prefixes_that_share_only_letters_or_a_service_are_accepted(routes):
    plan_of(changed(("[/api/storage]", routes)))


@pytest.mark.parametrize("prefix", ["/health", "/health/deep", "/routing-status", "/services", "/services/discovery"])
def test_the_gateways_own_paths_are_refused(prefix):
    text = changed(("routes: [/api/storage]", f"routes: [{prefix}]\n    strip: ''"))
    assert "which the gateway answers itself" in only_problem(text)[2]


@pytest.mark.parametrize("prefix", ["/healthy", "/services/other", "/api/health"])
def test_paths_beside_the_gateways_own_are_accepted(prefix):
    plan_of(changed(("routes: [/api/storage]", f"routes: [{prefix}]\n    strip: ''")))


def test_a_route_that_does_not_begin_with_what_is_taken_off_is_refused():
    assert only_problem(changed(("[/api/storage]", "[/v2/storage]")))[2] == (
        "/v2/storage does not begin with /api, which is to be taken off; set 'strip'"
    )


def test_an_upstream_that_is_the_monolith_is_refused():
    text = changed(("127.0.0.1:3014", "http://127.0.0.1:3000"))
    assert only_problem(text)[1:] == (
        "services[storage].upstream",
        "is the monolith's own address; turning the flag on would move nothing",
    )


def test_a_flag_in_two_weeks_is_refused():
    text = changed(("flags: [USE_AUTH]", "flags: [USE_AUTH, USE_STORAGE]"))
    line = line_of(SMALL, "flags: [USE_STORAGE]")
    assert only_problem(text)[1:] == (
        "weeks[2].flags[USE_STORAGE]",
        f"the flag 'USE_STORAGE' is already moved on line {line}",
    )


def test_a_flag_in_no_week_and_a_week_without_services_are_refused():
    assert reasons(changed(("    flags: [USE_AUTH]\n", ""))) == [
        "services[auth].flag: no week moves the flag 'USE_AUTH'; name it in the 'flags' of one week",
        "weeks[2]: moves no flag; name its 'flags', or say 'moves_traffic: false'",
    ]


def test_a_week_that_says_it_moves_no_traffic_needs_no_flags_and_may_have_none():
    plan_of(SMALL + THIRD_WEEK)
    text = changed(("    flags: [USE_AUTH]\n", "    flags: [USE_AUTH]\n    moves_traffic: false\n"))
    assert only_problem(text)[1:] == ("weeks[2].moves_traffic", "is false, but the week has flags")


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        ("[2]", "the week waits for itself"),
        ("[7]", "there is no week 7"),
        ("[1, 1]", "week 1 is named twice"),
    ],
)
def test_an_order_that_cannot_be_is_refused(after, reason):
    text = changed(("after: [1]", f"after: {after}"))
    assert only_problem(text)[0] == line_of(text, "after: ")
    assert only_problem(text)[2] == reason


def test_a_circle_is_named():
    text = changed(("  - number: 1\n", "  - number: 1\n    after: [3]\n"), text=SMALL + THIRD_WEEK)
    assert only_problem(text)[1:] == ("weeks[1].after", "the weeks 1 -> 3 -> 2 -> 1 wait for each other in a circle")


def test_an_end_before_the_start_is_refused_and_one_day_is_enough():
    text = changed(("{start: 2026-11-23, end: 2026-11-29}", "{start: 2026-11-23, end: 2026-11-22}"))
    assert only_problem(text)[1:] == ("weeks[1].planned.end", "the end 2026-11-22 is before the start 2026-11-23")
    plan_of(changed(("{start: 2026-11-23, end: 2026-11-29}", "{start: 2026-11-23, end: 2026-11-23}")))


@pytest.mark.parametrize(
    ("line", "path", "reason"),
    [
        ("kind: manual, check: flags_on", ".check", "a manual prerequisite has no 'check'"),
        ("kind: manual, parameters: {}", ".parameters", "a manual prerequisite has no 'parameters'"),
        ("kind: automatic", "", f"an automatic prerequisite needs a 'check': {KNOWN}"),
        ("kind: automatic, check: ", ".check", "has no value; write one, or leave the key out"),
        (
            "kind: automatic, valid_for: 4h, check: flags_on, parameters: {all: true}",
            ".valid_for",
            "an automatic prerequisite has no 'valid_for'; it is checked anew",
        ),
        ("kind: automatic, check: flag_on", ".check", "there is no check 'flag_on'; did you mean 'flags_on'?"),
        ("kind: automatic, check: weather", ".check", f"there is no check 'weather'; known: {KNOWN}"),
        ("kind: automatic, check: flags_on", ".parameters", "name either 'weeks: [numbers]' or 'all: true'"),
        (
            "kind: automatic, check: flags_on, parameters: {all: true, weeks: [1]}",
            ".parameters",
            "name either 'weeks: [numbers]' or 'all: true'",
        ),
        (
            "kind: automatic, check: flags_on, parameters: {week: [1]}",
            ".parameters",
            "unknown key 'week'; did you mean 'weeks'?",
        ),
        (
            "kind: automatic, check: flags_on, parameters: {weeks: [one]}",
            ".parameters.weeks[one]",
            "expected a whole number, got the text 'one'",
        ),
        ("kind: automatic, check: flags_on, parameters: {weeks: [9]}", ".parameters.weeks[9]", "there is no week 9"),
    ],
)
def test_checks_and_their_parameters_are_checked(line, path, reason):
    text = changed(("{key: healthy, title: Storage is healthy, kind: manual}", f"{{key: healthy, title: X, {line}}}"))
    assert only_problem(text)[1:] == (f"weeks[1].prerequisites[healthy]{path}", reason)


@pytest.mark.parametrize(
    ("line", "path", "reason"),
    [
        ("{title: X, check: }", "[#1].check", "has no value; write one, or leave the key out"),
        ("{title: X, key: }", "[#1].key", "has no value; write one, or leave the key out"),
        ("{title: X, check: flag_on}", "[#1].check", "there is no check 'flag_on'; did you mean 'flags_on'?"),
        ("{title: X, parameters: {all: true}}", "[#1].parameters", "there is no 'check' that could take them"),
        ("{title: X, key: on, check: flags_on}", "[on].parameters", "name either 'weeks: [numbers]' or 'all: true'"),
        (
            "{title: X, key: on, check: flags_on, parameters: {weeks: [9]}}",
            "[on].parameters.weeks[9]",
            "there is no week 9",
        ),
        (
            "{title: X, key: done-7}",
            "[done-7].key",
            "'done-7' names a line of done_when that has no key; choose another",
        ),
    ],
)
def test_what_a_week_is_done_when_is_checked_too(line, path, reason):
    text = changed(("[Storage is on the new side.]", f"[{line}]"))
    assert only_problem(text) == (line_of(text, "{title: X"), f"weeks[1].done_when{path}", reason)


def test_keys_are_unique_in_a_week_over_all_its_lines():
    text = changed(("[Storage is on the new side.]", "[{key: healthy, title: X}]"))
    assert only_problem(text) == (
        line_of(text, "{key: healthy, title: X}"),
        "weeks[1].done_when[healthy].key",
        f"the prerequisite key 'healthy' is already used on line {line_of(text, 'Storage is healthy')}",
    )
    text = changed(("{key: healthy,", "{key: done-1,"))
    assert only_problem(text)[1:] == (
        "weeks[1].prerequisites[done-1].key",
        "'done-1' names a line of done_when that has no key; choose another",
    )


def test_a_week_of_high_risk_cannot_say_that_it_needs_no_approval():
    text = changed(("    after: [1]\n", "    after: [1]\n    approvals:\n      count: 0\n"))
    assert only_problem(text) == (
        line_of(text, "count: 0"),
        "weeks[2].approvals.count",
        "is 0, but a week of high risk needs at least one approval",
    )
    assert [week.required_approvals.count for week in plan_of().weeks] == [0, 1]
    assert (
        plan_of(changed(("risk: high", "risk: low\n    approvals: {count: 0}"))).weeks[1].required_approvals.count == 0
    )
    assert plan_of(changed(("risk: high", "risk: low\n    approvals: {}"))).weeks[1].required_approvals.count == 1
