"""The parameters of every automatic check are held to their shape and to the plan, with the line of what is wrong."""

from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest
import yaml

from migrations_app.durations import parse_duration
from migrations_app.gates.parameters import CHECK_PARAMETERS, CheckParameters
from migrations_app.planfile.schema import Plan

from .samples import PLANS, changed, only_problem, plan_of, problems_of

# One good set for each check; `changed` lines of it are what the tables below get wrong.
GOOD = {
    "backup_fresh": ["file: main-*.dump", "max_age: 24h", "tables: [users]"],
    "data_migrated": [
        "from: main",
        "to: auth",
        "tables:",
        "  - name: users",
        "    renamed: people",
        "    key: id",
        "    columns: [email, role]",
    ],
    "downtime": ["week: 1", "under: 5m", "not_known: held"],
    "endpoint_answers": [
        "target: storage",
        "path: /health",
        "status: 200",
        "json:",
        "  path: state.deep.0",
        "  equals: ok",
    ],
    "flags_on": ["weeks: [1, 2]"],
    "jwt_compatible": [
        "service: auth",
        "account: demo",
        "secret: jwt",
        "sign_in: /api/auth/login",
        "verify: /api/auth/me",
    ],
    "no_degradation": [
        "services: [storage]",
        "weeks: [1]",
        "window: 15m",
        "slower_by: 20",
        "slower_ms: 5",
        "error_rate: 0.5",
        "min_requests: 20",
        "without_traffic: held",
    ],
    "rollback_rehearsed": ["within: 7d", "under: 2s"],
    "services_healthy": ["services: [storage, auth]", "for: 5m"],
    "week_stable": ["week: 1", "for: 24h", "error_rate: 0.1"],
}
LENGTH = "expected a length of time such as 30s, 15m, 48h or 3d"
NOTHING = "has no value; write one, or leave the key out"
COLUMN = "is not a name in a database; write letters, digits and underscores, such as users"
NAME = "is not a name; write lower-case letters, digits and underscores, such as main"
PATH = "is not a path; write one such as /api/auth/me, without ? and #"
FILE = "is not a file name; write one such as tracseq_main-*.dump, without a folder"
PLACE = "is not a place in JSON; write keys joined by dots, such as data.status"
SCALAR = "expected a text, a number, true, false or null"

# check: (good line, what stands there instead, path below `parameters`, reason)
WRONG = {
    "backup_fresh": [
        ("file: main-*.dump", "file: ../main.dump", "file", f"'../main.dump' {FILE}"),
        ("file: main-*.dump", "file: /etc/passwd", "file", f"'/etc/passwd' {FILE}"),
        ("file: main-*.dump", "file: ''", "file", f"'' {FILE}"),
        ("file: main-*.dump", f"file: {'x' * 101}", "file", "is longer than 100 characters"),
        ("file: main-*.dump", "file: 5", "file", "expected text, got the number 5; put it in quotes"),
        ("max_age: 24h", "max_age: 24", "max_age", LENGTH),
        ("max_age: 24h", "max_age: 0h", "max_age", "must be longer than nothing"),
        ("max_age: 24h", "max_age: 91d", "max_age", "longer than 90 days"),
        ("max_age: 24h", "max_age:", "max_age", NOTHING),
        ("max_age: 24h", "max_ago: 24h", "", "unknown key 'max_ago'; did you mean 'max_age'?"),
        ("tables: [users]", "tables: users", "tables", "expected a list, got the text 'users'"),
        ("tables: [users]", 'tables: ["a;b"]', "tables[a;b]", f"'a;b' {COLUMN}"),
    ],
    "data_migrated": [
        ("from: main", "from: Main DB", "from", f"'Main DB' {NAME}"),
        ("from: main", "from: auth", "", "'from' and 'to' name the same database"),
        ("from: main", "form: main", "", "unknown key 'form'; did you mean 'from'?"),
        ("from: main", "old: main", "", "unknown key 'old'; known here: from, to, tables"),
        ("to: auth", f"to: {'x' * 33}", "to", "is longer than 32 characters"),
        ("  - name: users", "  - name: users; drop", "tables[users; drop].name", f"'users; drop' {COLUMN}"),
        ("  - name: users", "  - name: ''", "tables[id].name", f"'' {COLUMN}"),
        ("    key: id", "    kex: id", "tables[users]", "unknown key 'kex'; did you mean 'key'?"),
        ("    renamed: people", "    renamed: 1st", "tables[users].renamed", f"'1st' {COLUMN}"),
        ("    columns: [email, role]", "    columns: []", "tables[users].columns", "needs at least one entry"),
        ("    columns: [email, role]", '    columns: ["*"]', "tables[users].columns[*]", f"'*' {COLUMN}"),
    ],
    "downtime": [
        ("week: 1", "week: 9", "week", "there is no week 9"),
        ("week: 1", "week: 0", "week", "0 is too small; the least is 1"),
        ("under: 5m", "under: soon", "under", "expected a length of time such as 30s, 15m, 48h or 3d"),
        ("not_known: held", "not_known: maybe", "not_known", "expected one of unknown, held, got the text 'maybe'"),
        ("under: 5m", "below: 5m", "", "unknown key 'below'; known here: week, under, not_known"),
    ],
    "endpoint_answers": [
        ("target: storage", "target: stroage", "target", "there is no service 'stroage'; did you mean 'storage'?"),
        ("target: storage", "target: 127.0.0.1:80", "target", "there is no service '127.0.0.1:80'"),
        ("path: /health", "path: health", "path", f"'health' {PATH}"),
        ("path: /health", "path: /a?b", "path", f"'/a?b' {PATH}"),
        ("path: /health", 'path: "/a\\r\\nHost: b"', "path", f"'/a\\r\\nHost: b' {PATH}"),
        ("path: /health", f"path: /{'x' * 200}", "path", "is longer than 200 characters"),
        ("status: 200", "status: 99", "status", "99 is too small; the least is 100"),
        ("status: 200", "status: 600", "status", "600 is too large; the most is 599"),
        ("status: 200", "status: ok", "status", "expected a whole number, got the text 'ok'"),
        ("  path: state.deep.0", "  path: state..deep", "json.path", f"'state..deep' {PLACE}"),
        ("  path: state.deep.0", f"  path: {'a.' * 10}a", "json.path", f"'{'a.' * 10}a' {PLACE}"),
        ("  path: state.deep.0", "  paht: state", "json", "unknown key 'paht'; did you mean 'path'?"),
        ("  equals: ok", "  equals: [ok]", "json.equals", SCALAR),
        ("  equals: ok", '  equals: "a\\0b"', "json.equals", "expected text that can be seen, on one line"),
        ("  equals: ok", f"  equals: {'x' * 201}", "json.equals", "is longer than 200 characters"),
        ("  equals: ok", "  equals: 1e999", "json.equals", "the number is too large"),
        (
            "status: 200",
            "json_value: {path: a, equals: 1}",
            "",
            "unknown key 'json_value'; known here: target, path, status, json",
        ),
    ],
    "flags_on": [
        ("weeks: [1, 2]", "weeks: [1, 9]", "weeks[9]", "there is no week 9"),
        ("weeks: [1, 2]", "weeks: [one]", "weeks[one]", "expected a whole number, got the text 'one'"),
        ("weeks: [1, 2]", "weeks: 1", "weeks", "expected a list, got the number 1"),
        ("weeks: [1, 2]", "weeks: []", "", "name either 'weeks: [numbers]' or 'all: true'"),
        ("weeks: [1, 2]", "week: [1]", "", "unknown key 'week'; did you mean 'weeks'?"),
        ("weeks: [1, 2]", "all: yes", "all", "expected true or false, got the text 'yes'"),
        ("weeks: [1, 2]", "all: false", "", "name either 'weeks: [numbers]' or 'all: true'"),
    ],
    "jwt_compatible": [
        ("service: auth", "service: atuh", "service", "there is no service 'atuh'; did you mean 'auth'?"),
        ("service: auth", "service: monolith", "service", "there is no service 'monolith'"),
        ("service: auth", "service: [auth]", "service", "expected text, got a list"),
        ("account: demo", "account: ana:secret", "account", f"'ana:secret' {NAME}"),
        ("account: demo", "account:", "account", NOTHING),
        ("secret: jwt", "secret: JWT", "secret", f"'JWT' {NAME}"),
        ("secret: jwt", "secrets: jwt", "", "unknown key 'secrets'; did you mean 'secret'?"),
        ("sign_in: /api/auth/login", "sign_in: login", "sign_in", f"'login' {PATH}"),
        ("verify: /api/auth/me", "verify: http://elsewhere/", "verify", f"'http://elsewhere/' {PATH}"),
    ],
    "no_degradation": [
        ("services: [storage]", "services: [shelf]", "services[shelf]", "there is no service 'shelf'"),
        ("weeks: [1]", "weeks: [3]", "weeks[3]", "there is no week 3"),
        ("window: 15m", "window: 0m", "window", "must be longer than nothing"),
        ("window: 15m", "window: always", "window", LENGTH),
        ("slower_by: 20", "slower_by: -1", "slower_by", "-1 is too small; the least is 0"),
        ("slower_by: 20", "slower_by: 1001", "slower_by", "1001 is too large; the most is 1000"),
        ("slower_ms: 5", "slower_ms: 0", "slower_ms", "0 is too small; the least is 1"),
        ("slower_ms: 5", "slower_ms: 60001", "slower_ms", "60001 is too large; the most is 60000"),
        ("slower_by: 20", "slower_by: a lot", "slower_by", "expected a number, got the text 'a lot'"),
        ("slower_by: 20", "slowr_by: 20", "", "unknown key 'slowr_by'; did you mean 'slower_by'?"),
        ("error_rate: 0.5", "error_rate: 100.1", "error_rate", "100.1 is too large; the most is 100"),
        ("error_rate: 0.5", "error_rate: -0.1", "error_rate", "-0.1 is too small; the least is 0"),
        ("min_requests: 20", "min_requests: 0", "min_requests", "0 is too small; the least is 1"),
        ("min_requests: 20", "min_requests: 2.5", "min_requests", "expected a whole number, got the number 2.5"),
        ("min_requests: 20", "min_requests: 1000001", "min_requests", "1000001 is too large; the most is 1e+06"),
        (
            "without_traffic: held",
            "without_traffic: open",
            "without_traffic",
            "expected one of unknown, held, got the text 'open'",
        ),
    ],
    "rollback_rehearsed": [
        ("within: 7d", "within: 0d", "within", "must be longer than nothing"),
        ("within: 7d", "within: 91d", "within", "longer than 90 days"),
        ("under: 2s", "under: 2", "under", LENGTH),
        ("under: 2s", "under: 0s", "under", "must be longer than nothing"),
        ("under: 2s", "below: 2s", "", "unknown key 'below'; known here: within, under"),
    ],
    "services_healthy": [
        (
            "services: [storage, auth]",
            "services: [storage, aut]",
            "services[aut]",
            "there is no service 'aut'; did you mean 'auth'?",
        ),
        ("services: [storage, auth]", "services: [gateway]", "services[gateway]", "there is no service 'gateway'"),
        ("services: [storage, auth]", "services: auth", "services", "expected a list, got the text 'auth'"),
        ("for: 5m", "for: 5", "for", LENGTH),
        ("for: 5m", "lasting: 5m", "", "unknown key 'lasting'; known here: services, for"),
        ("for: 5m", "fro: 5m", "", "unknown key 'fro'; did you mean 'for'?"),
    ],
    "week_stable": [
        ("week: 1", "week: 9", "week", "there is no week 9"),
        ("week: 1", "week: 0", "week", "0 is too small; the least is 1"),
        ("week: 1", "week: [1]", "week", "expected a whole number, got a list"),
        ("for: 24h", "for: a day", "for", LENGTH),
        ("for: 24h", "for: 100d", "for", "longer than 90 days"),
        ("error_rate: 0.1", "error_rate: 101", "error_rate", "101 is too large; the most is 100"),
        ("error_rate: 0.1", "errors: 0.1", "", "unknown key 'errors'; did you mean 'error_rate'?"),
    ],
}  # fmt: skip


# check: what must be there, and what is said when nothing is
MISSING = {
    "backup_fresh": ["'file' is missing"],
    "data_migrated": ["'from' is missing", "'tables' is missing", "'to' is missing"],
    "downtime": ["the week has no 'downtime' to go by; give it one, or say 'under' here"],
    "endpoint_answers": ["'path' is missing", "'target' is missing"],
    "flags_on": ["name either 'weeks: [numbers]' or 'all: true'"],
    "jwt_compatible": ["'account' is missing", "'secret' is missing", "'service' is missing"],
    "no_degradation": ["name 'services: [keys]' or 'weeks: [numbers]'"],
    "rollback_rehearsed": [],
    "services_healthy": [],
    "week_stable": ["'for' is missing", "'week' is missing"],
}
OPENS = {
    "prerequisite": ("    prerequisites:\n", "      - key: mine\n        title: Mine\n        kind: automatic\n"),
    "done_when": ("    done_when:\n      - Fine.\n", "      - key: mine\n        title: Mine\n"),
}
PLACES = {"prerequisite": "weeks[1].prerequisites[mine]", "done_when": "weeks[1].done_when[mine]"}


def with_check(where: str, name: str, parameters: list[str] | None) -> str:
    """The small plan whose first week has this check, as a prerequisite or among what it is done when."""
    opening, line = OPENS[where]
    text = f"{opening}{line}        check: {name}\n"
    if parameters is not None:
        text += "        parameters:\n" + "".join(f"          {one}\n" for one in parameters)
    if where == "prerequisite":
        old = "    prerequisites:\n      - {key: healthy, title: Storage is healthy, kind: manual}\n"
    else:
        old = "    done_when: [Storage is on the new side.]\n"
    return changed((old, text))


CASES = [(name, *case) for name, cases in WRONG.items() for case in cases]


def test_the_tables_have_every_check():
    assert GOOD.keys() == WRONG.keys() == MISSING.keys() == CHECK_PARAMETERS.keys()
    for name, model in CHECK_PARAMETERS.items():
        parameters = {field.alias or key for key, field in model.model_fields.items()}
        assert {line.partition(":")[0] for line in GOOD[name] if line[0] != " "} | {"all"} >= parameters


@pytest.mark.parametrize("where", OPENS)
@pytest.mark.parametrize("name", GOOD)
def test_good_parameters_are_taken_as_they_are_written(name, where):
    plan = plan_of(with_check(where, name, GOOD[name]))
    week = plan.weeks[0]
    found = week.prerequisites[0] if where == "prerequisite" else week.done_criteria[1]
    assert (found.key, found.kind, found.check) == ("mine", "automatic", name)
    assert found.parameters == yaml.safe_load("\n".join(GOOD[name]))
    stored = Plan.model_validate_json(plan.model_dump_json())
    assert stored == plan
    assert isinstance(CHECK_PARAMETERS[name].of(json.loads(json.dumps(found.parameters))), CheckParameters)


@pytest.mark.parametrize("where", OPENS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[2].strip()[:40]}")
def test_a_wrong_parameter_is_told_with_its_line(case, where):
    name, good, bad, path, reason = case
    assert good in GOOD[name]
    text = with_check(where, name, [bad if line == good else line for line in GOOD[name]])
    line, place, told = only_problem_but_the_missing(text)
    assert (place, told) == (f"{PLACES[where]}.parameters{path and '.'}{path}", reason)
    on_the_whole = not path and not reason.startswith("unknown key")
    assert text.splitlines()[line - 1].strip() == ("parameters:" if on_the_whole else bad.strip())


def only_problem_but_the_missing(text: str) -> tuple[int, str, str]:
    """The only problem, but that a key is missing whose name was written wrongly."""
    found = problems_of(text)
    if any(problem.reason.startswith("unknown key") for problem in found):
        found = [problem for problem in found if not problem.reason.endswith("is missing")]
    (problem,) = found
    return problem.line, problem.path, problem.reason


@pytest.mark.parametrize("where", OPENS)
@pytest.mark.parametrize("name", MISSING)
def test_a_missing_parameter_is_told_where_it_should_be(name, where):
    for nothing, line in ((None, "- key: mine"), (["{}"], "parameters:")):
        text = with_check(where, name, nothing)
        if not MISSING[name]:
            plan_of(text)
            continue
        found = problems_of(text)
        assert [problem.reason for problem in found] == MISSING[name]
        assert {problem.path for problem in found} == {f"{PLACES[where]}.parameters"}
        assert {text.splitlines()[problem.line - 1].strip() for problem in found} == {line}


@pytest.mark.parametrize("where", OPENS)
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", NOTHING),
        ("5", "expected a group of 'key: value' lines, got the number 5"),
        ("[a]", "expected a group of 'key: value' lines, got a list"),
    ],
)
def test_parameters_that_are_no_group_of_keys_are_refused(value, reason, where):
    assert only_problem(with_check(where, "data_migrated", [value]))[1:] == (f"{PLACES[where]}.parameters", reason)


@pytest.mark.parametrize("target", ["gateway", "monolith", "auth"])
def test_an_endpoint_is_the_gateway_the_monolith_or_a_service(target):
    lines = [line if line != "target: storage" else f"target: {target}" for line in GOOD["endpoint_answers"]]
    plan_of(with_check("prerequisite", "endpoint_answers", lines))


@pytest.mark.parametrize("value", ["null", "true", "0", "-1.5", "'no'"])
def test_a_value_in_json_may_be_anything_that_is_one_value(value):
    lines = [line if line != "  equals: ok" else f"  equals: {value}" for line in GOOD["endpoint_answers"]]
    plan_of(with_check("done_when", "endpoint_answers", lines))


@pytest.mark.parametrize(
    ("name", "parameters", "reason"),
    [
        ("services_healthy", ["for: 5m"], "the week moves no flag, so name 'services: [keys]'"),
        ("services_healthy", ["services: []"], "the week moves no flag, so name 'services: [keys]'"),
        ("rollback_rehearsed", ["under: 2s"], "the week moves no flag, so there is no rollback to rehearse"),
    ],
)
def test_a_check_of_the_weeks_own_services_needs_some(name, parameters, reason):
    week = """\
  - number: 3
    title: Clean up
    risk: low
    impact: None
    planned: {start: 2026-12-07, end: 2026-12-13}
    moves_traffic: false
    prerequisites:
      - key: mine
        title: Mine
        kind: automatic
        check: CHECK
        parameters: {PARAMETERS}
    done_when: [All is tidy.]
"""
    week = week.replace("CHECK", name).replace("PARAMETERS", ", ".join(parameters))
    assert only_problem(changed() + week)[1:] == ("weeks[3].prerequisites[mine].parameters", reason)
    plan_of(with_check("prerequisite", name, parameters))


def test_the_documentation_has_every_check_with_its_parameters_and_defaults():
    text = (PLANS.parent / "docs" / "plan-file.md").read_text()
    assert re.findall(r"^\| `([a-z_]+)` \| \|\n\| --- \| --- \|$", text, re.MULTILINE) == list(CHECK_PARAMETERS)
    for name, model in CHECK_PARAMETERS.items():
        assert len(re.findall(rf"^\| `{name}` \| [^|]+ \| [^|]+ \| [^|]+ \|$", text, re.MULTILINE)) == 1
        rows = text.partition(f"\n| `{name}` | |\n")[2].partition("\n\n")[0]
        told = {}
        for keys, about in re.findall(r"^\| (.*?) \| (.*) \|$", rows, re.MULTILINE)[1:]:
            told |= dict.fromkeys(re.findall(r"`(\w+)`(\*?)", keys), about)
        fields = {field.alias or key: field for key, field in model.model_fields.items()}
        assert told.keys() == {(key, "*" if field.is_required() else "") for key, field in fields.items()}
        for key, field in fields.items():
            if field.is_required() or field.default in {None, False, ()}:
                continue
            default = field.default
            written = re.findall(r"`([^`]+)`", told[key, ""])
            if isinstance(default, timedelta):
                assert default in {parse_duration(one) for one in written if one[0].isdigit()}
            else:
                assert f"{default:g}" in written if isinstance(default, float) else str(default) in written
