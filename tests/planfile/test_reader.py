"""Any bytes are a plan or a list of problems, each with its line, in plain words."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from migrations_app.planfile import nodes
from migrations_app.planfile.problems import PlanFileError, Problem
from migrations_app.planfile.reader import MAX_BYTES, MAX_PROBLEMS, read_bytes, read_path, read_plan
from migrations_app.planfile.schema import Plan

from .samples import CHECKED, SMALL, changed, line_of, only_problem, plan_of, problems_of


def test_the_small_plan_is_read():
    plan = plan_of()
    assert [service.key for service in plan.services] == ["storage", "auth"]
    assert plan.weeks[1].prerequisites[1].parameters == {"weeks": [1]}
    assert plan.weeks[0].soak.total_seconds() == 48 * 3600


def test_a_byte_order_mark_and_windows_line_ends_are_accepted():
    assert read_bytes(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode()) == plan_of()


@pytest.mark.parametrize(
    ("old", "new", "path", "reason"),
    [
        (
            "    owner: Lab team",
            "    wieght: 3\n    owner: Lab team",
            "services[storage]",
            "unknown key 'wieght'; did you mean 'weight'?",
        ),
        ("    owner: Lab team\n", "", "services[storage]", "'owner' is missing"),
        ("Lab team", "5", "services[storage].owner", "expected text, got the number 5; put it in quotes"),
        ("Lab team", "true", "services[storage].owner", "expected text, got true; put it in quotes"),
        ("Lab team", "", "services[storage].owner", "has no value; write one, or leave the key out"),
        ("Lab team", "''", "services[storage].owner", "is empty"),
        ("Lab team", "[a]", "services[storage].owner", "expected text, got a list"),
        ("Lab team", "x" * 201, "services[storage].owner", "is longer than 200 characters"),
        ("Lab team", '"a\\nb"', "services[storage].owner", "must be on one line"),
        ("Lab team", '"a\\0b"', "services[storage].owner", "the control character 0x00 does not belong in a plan"),
        ("[/api/storage]", "/api/storage", "services[storage].routes", "expected a list, got the text '/api/storage'"),
        ("[/api/storage]", "[]", "services[storage].routes", "needs at least one entry"),
        (
            "[/api/storage]",
            "[api]",
            "services[storage].routes[api]",
            "'api' is not a path; write one such as /api/auth, with no slash at the end",
        ),
        ("127.0.0.1:3014", "127.0.0.1:0", "services[storage].upstream", "port 0 is outside 1-65535"),
        ("127.0.0.1:3014", "127.0.0.1:65536", "services[storage].upstream", "port 65536 is outside 1-65535"),
        (
            "127.0.0.1:3014",
            "somewhere",
            "services[storage].upstream",
            "'somewhere' is not an address; write host:port, such as 127.0.0.1:3000",
        ),
        (
            "    flag: USE_STORAGE",
            "    flag: USE_STORAGE\n    weight: 101",
            "services[storage].weight",
            "101 is too large; the most is 100",
        ),
        (
            "    flag: USE_STORAGE",
            "    flag: USE_STORAGE\n    weight: -1",
            "services[storage].weight",
            "-1 is too small; the least is 0",
        ),
        (
            "    flag: USE_STORAGE",
            "    flag: USE_STORAGE\n    timeout: 0",
            "services[storage].timeout",
            "0 is too small; the least is 0.1",
        ),
        (
            "risk: high",
            "risk: hihg",
            "weeks[2].risk",
            "expected one of low, medium, high, got the text 'hihg'; did you mean 'high'?",
        ),
        ("soak: 48h", "soak: 48", "weeks[1].soak", "expected a length of time such as 30s, 15m, 48h or 3d"),
        ("soak: 48h", "soak: 91d", "weeks[1].soak", "longer than 90 days"),
        (
            "healthy, kind: manual",
            "healthy, kind: manual, valid_for: 0h",
            "weeks[1].prerequisites[healthy].valid_for",
            "must be longer than nothing",
        ),
        (
            "healthy, kind: manual",
            "healthy, kind: manual, valid_for: soon",
            "weeks[1].prerequisites[healthy].valid_for",
            "expected a length of time such as 30s, 15m, 48h or 3d",
        ),
        (
            "healthy, kind: manual",
            "healthy, kind: manual, valid_for: ",
            "weeks[1].prerequisites[healthy].valid_for",
            "has no value; write one, or leave the key out",
        ),
        (
            "    soak: 48h",
            "    approvals: ",
            "weeks[1].approvals",
            "has no value; write one, or leave the key out",
        ),
        (
            "    soak: 48h",
            "    approvals: 1",
            "weeks[1].approvals",
            "expected a group of 'key: value' lines, got the number 1",
        ),
        (
            "    soak: 48h",
            "    approvals: {count: 10}",
            "weeks[1].approvals.count",
            "10 is too large; the most is 9",
        ),
        (
            "    soak: 48h",
            "    approvals: {cuont: 1}",
            "weeks[1].approvals",
            "unknown key 'cuont'; did you mean 'count'?",
        ),
        (
            "    soak: 48h",
            "    approvals: {role: viewer}",
            "weeks[1].approvals.role",
            "expected approver, got the text 'viewer'",
        ),
        (
            "    soak: 48h",
            "    approvals: {valid_for: 0m}",
            "weeks[1].approvals.valid_for",
            "must be longer than nothing",
        ),
        ("[Storage is on the new side.]", "[]", "weeks[1].done_when", "needs at least one entry"),
        (
            "[Storage is on the new side.]",
            "[5]",
            "weeks[1].done_when[5]",
            "expected text, got the number 5; put it in quotes",
        ),
        ("[Storage is on the new side.]", "['']", "weeks[1].done_when[#1]", "is empty"),
        (
            "[Storage is on the new side.]",
            f"[Fine., {'x' * 201}]",
            f"weeks[1].done_when[{'x' * 57}...]",
            "is longer than 200 characters",
        ),
        (
            "[Storage is on the new side.]",
            "[{key: on}]",
            "weeks[1].done_when[on]",
            "'title' is missing",
        ),
        (
            "[Storage is on the new side.]",
            "[{title: It is on., parmeters: {}}]",
            "weeks[1].done_when[#1]",
            "unknown key 'parmeters'; did you mean 'parameters'?",
        ),
        ("end: 2026-12-06", "end: 2026-12-32", "weeks[2].planned.end", "there is no day 2026-12-32"),
        ("end: 2026-12-06", "end: tomorrow", "weeks[2].planned.end", "expected a date such as 2026-11-23"),
        ("number: 2", "number: 2.5", "weeks[#2].number", "expected a whole number, got the number 2.5"),
        ("number: 2", "number: two", "weeks[#2].number", "expected a whole number, got the text 'two'"),
        (
            "title: A small plan",
            "title: A, timezone: Mars/Base",
            "plan.timezone",
            "'Mars/Base' is not a time zone; write one such as UTC or Europe/Berlin",
        ),
        (
            "key: small",
            "key: Not A Key",
            "plan.key",
            "'Not A Key' is not a key; write lower-case letters, digits and single hyphens, such as user-data",
        ),
    ],
)
def test_a_wrong_value_is_told_in_plain_words(old, new, path, reason):
    told = only_problem(changed((old, new)))
    assert told[1:] == (path, reason)
    assert told[0] > 0


def test_the_line_is_that_of_the_key():
    text = changed(("    owner: Identity team", "    ownr: Identity team\n    owner: Identity team"))
    assert only_problem(text)[0] == line_of(text, "ownr:")


def test_every_problem_is_told_at_once_in_the_order_of_the_file():
    text = changed(
        ("title: A small plan", "title: A small plan, colour: red"),
        ("key: storage\n", "key: auth\n"),
        ("risk: high", "risk: extreme"),
        ("flags: [USE_AUTH]", "flags: [USE_AUHT]"),
    )
    found = problems_of(text)
    assert found == sorted(found)
    told = "\n".join(map(str, found))
    for part in ("'colour'", "'auth' is already used", "extreme", "did you mean 'USE_AUTH'", "no week moves"):
        assert part in told
    assert f"plan.yaml:{line_of(text, 'risk: extreme')}: weeks[2].risk: " in told


@pytest.mark.parametrize(
    ("data", "line", "part"),
    [
        (b"", 1, "the file is empty"),
        (b"# nothing\n", 1, "the file is empty"),
        (b"plan:\n  title: \xff\n", 2, "byte 0xff at offset 15 is not UTF-8"),
        (SMALL.encode("utf-16"), 1, "is not UTF-8"),
        (b"plan:\n\tkey: small\n", 2, "a tab in the indentation"),
        (b"plan: [\n", 2, "not valid YAML"),
        (b"plan: 'x\n", 2, "not valid YAML"),
        (b"plan:\n  a: \x07\n", 2, "the control character 0x07"),
        (b"- a\n", 1, "a plan is a group of keys"),
        (b"[" * 5000, 1, "nested deeper than 12 levels"),
        (b"{a: " * 5000, 1, "nested deeper than 12 levels"),
        (b"- " * 5000, 1, "nested deeper than 12 levels"),
        (b'plan: "\\ud800"\n', 1, "not valid YAML"),
    ],
)
def test_what_is_no_plan_at_all_is_refused_with_its_line(data, line, part):
    (problem,) = problems_of(data)
    assert problem.line == line
    assert part in problem.reason


def test_aliases_are_refused_each_with_its_line():
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
    told = [str(problem) for problem in problems_of(bomb)]
    assert "plan.yaml:1: the anchor '&a' is not allowed; write the value out where it is needed" in told
    assert "plan.yaml:2: the alias '*a' is not allowed; write the value out" in told
    assert "plan.yaml:3: the alias '*b' is not allowed; write the value out" in told


def test_an_alias_is_told_once_and_not_as_a_wrong_value_too():
    text = changed(("owner: Identity team", "owner: *team"))
    assert only_problem(text) == (line_of(text, "*team"), "", "the alias '*team' is not allowed; write the value out")


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (
            changed(("    owner: Lab team", "    owner: Lab team\n    owner: Other team")),
            9,
            "the key 'owner' is already there, on line 8",
        ),
        (SMALL + "---\na: 1\n", len(SMALL.splitlines()) + 1, "a second document begins here; a plan file holds one"),
        (
            changed(("Lab team", "!!python/object:os.system x")),
            8,
            "the tag 'tag:yaml.org,2002:python/object:os.system' is not allowed; write the plain value",
        ),
        (SMALL + "7: x\n", len(SMALL.splitlines()) + 1, "a key must be text; put it in quotes"),
        (changed(("number: 2", f"number: {'9' * 5000}")), line_of(SMALL, "number: 2"), "the number is too long"),
    ],
)
def test_yaml_that_a_plan_does_not_need_is_refused(text, line, reason):
    assert only_problem(text) == (line, "", reason)


@pytest.mark.parametrize("word", ["no", "on", "12:30", "2026-11-23", "0x1F", "1_000"])
def test_words_that_old_yaml_turns_into_something_else_stay_text(word):
    assert plan_of(changed(("Lab team", word))).services[0].owner == word


@pytest.fixture
def taken(monkeypatch) -> list[int]:
    """How many bytes each read of a file took from it."""
    found: list[int] = []

    class Noted(io.FileIO):
        def readinto(self, buffer) -> int:
            found.append(super().readinto(buffer))
            return found[-1]

        def readall(self) -> bytes:
            data = super().readall()
            found.append(len(data))
            return data

    monkeypatch.setattr(Path, "open", lambda path, mode: io.BufferedReader(Noted(path, mode)))
    return found


def test_a_large_file_is_refused_without_reading_it_in(tmp_path, taken):
    path = tmp_path / "large.yaml"
    with open(path, "wb") as stream:
        stream.truncate(50_000_000)
    (problem,) = read_path(path)
    assert taken == []
    assert str(problem) == f"{path}:1: has 50,000,000 bytes; a plan file has at most 1,048,576"
    (problem,) = problems_of(b"#" * (MAX_BYTES + 1))
    assert "at most" in problem.reason


def test_a_pipe_that_never_ends_is_refused_after_the_limit(taken):
    (problem,) = read_path("/dev/zero")
    assert "at most 1,048,576" in problem.reason
    assert MAX_BYTES < sum(taken) <= MAX_BYTES + io.DEFAULT_BUFFER_SIZE


@pytest.mark.parametrize("name", ["missing.yaml", ".", "\0"])
def test_what_cannot_be_read_is_a_problem(tmp_path, name):
    (problem,) = read_path(os.path.join(tmp_path, name))  # pathlib would normalise it
    assert problem.reason.startswith("cannot be read: ")
    assert problem.line == 0


def test_read_plan_raises_with_every_problem(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(changed(("risk: high", "risk: x"), ("soak: 48h", "soak: x")))
    with pytest.raises(PlanFileError) as raised:
        read_plan(path)
    assert len(raised.value.problems) == 2
    path.write_text(SMALL)
    assert read_plan(path) == plan_of()


def test_a_flood_of_problems_is_cut_short_and_counted():
    found = problems_of(SMALL + "".join(f"key{number}: 1\n" for number in range(20_000)))
    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1].reason == f"and {20_000 - MAX_PROBLEMS:,} more problems"


def worked(text: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Problem], int, int]:
    """The problems of a text, and what it took to find them: events of the YAML parser, and calls of functions."""
    events, calls = 0, 0
    parse = yaml.parse

    def counted(*args, **kwargs) -> Iterator[yaml.Event]:
        nonlocal events
        for event in parse(*args, **kwargs):
            events += 1
            yield event

    def note(_frame, event: str, _value) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    monkeypatch.setattr(yaml, "parse", counted)
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        found = problems_of(text)
    finally:
        sys.setprofile(before)
    return found, events, calls


_MANY = "more than 50,000 keys and values; a plan never has as many"


@pytest.mark.parametrize(
    ("flood", "reason", "steps"),
    [
        ("services:\n" + "- {}\n" * 200_000, _MANY, 100_000),
        ("weeks:\n- after: [" + "1," * 500_000 + "]\n", _MANY, 50_010),
        ("x: [" + "*a, " * 250_000 + "]\n", _MANY, 50_010),
        ("services:\n- routes: [" + "/a" * 500_000 + "]\n", "is longer than 200 characters", 20),
        ("[" * 10 + "{" * 1_000_000, "nested deeper than 12 levels; a plan never is", 20),
        ("'" * 1_000_000, "a plan is a group of keys", 10),
    ],
    ids=["groups", "numbers", "aliases", "a long text", "depth", "quotes"],
)
def test_a_full_size_file_made_to_be_slow_is_given_up_after_a_few_steps(flood, reason, steps, monkeypatch):
    """Going through some of these to the end takes minutes, or all memory."""
    found, events, calls = worked(flood, monkeypatch)
    assert any(problem.reason.startswith(reason) for problem in found)
    assert events <= steps
    assert calls <= 25 * steps + 1_000


def test_a_plan_of_500_services_is_within_the_limits():
    services = "".join(
        f"  - {{key: s{n}, title: S, area: A, owner: O, flag: USE_{n}, routes: [/api/s{n}], upstream: 'h:{n + 1}'}}\n"
        for n in range(500)
    )
    flags = ", ".join(f"USE_{n}" for n in range(500))
    text = changed(("weeks:\n", f"{services}weeks:\n"), ("flags: [USE_AUTH]", f"flags: [USE_AUTH, {flags}]"))
    assert len(plan_of(text).services) == 502


def test_without_libyaml_the_same_is_read(monkeypatch):
    found = [SMALL, changed(("risk: high", "risk: x")), "a: &a 1\nb: *a\n", "[" * 5000, "a: 1\na: 2\n"]
    with_libyaml = [read_bytes(text.encode()) for text in found]
    monkeypatch.setattr(nodes, "_LOADER", yaml.SafeLoader)
    assert [read_bytes(text.encode()) for text in found] == with_libyaml
    for broken in ('plan: "\\ud800"', "plan: [", "a:\n\t- b", "'"):
        assert problems_of(broken)


_LINES = CHECKED.splitlines(keepends=True)


def _check(data: bytes) -> None:
    found = read_bytes(data)
    if isinstance(found, Plan):
        return
    assert found
    for problem in found:
        assert problem.line >= 1
        assert problem.reason
        for jargon in ("Input should", "Value error", "pydantic", "Traceback", "does not fit here"):
            assert jargon not in str(problem)


@given(st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_a_plan_or_problems(data):
    _check(data)


@given(st.text(alphabet="ab:-[]{}&*!|>'\"#%@,?~ \n\t01", max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_yaml_gives_a_plan_or_problems(text):
    _check(text.encode())


_VALUES = st.sampled_from(
    [
        "",
        "~",
        "[]",
        "{}",
        "[[1]]",
        "{a: 1}",
        "true",
        "5",
        "-5",
        "1e999",
        "''",
        '"\\0"',
        "*a",
        "&a b",
        "- x",
        "|",
        ".inf",
    ]
) | st.text(max_size=12)


@given(st.integers(0, len(_LINES) - 1), _VALUES)
@settings(max_examples=300, deadline=None)
def test_a_plan_with_one_value_replaced_gives_a_plan_or_problems(number, value):
    key = _LINES[number].partition(":")[0]
    lines = [*_LINES[:number], f"{key}: {value}\n", *_LINES[number + 1 :]]
    _check("".join(lines).encode("utf-8", "surrogatepass"))
