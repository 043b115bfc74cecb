"""What must hold between the values of a plan. Works on the tree with lines, so that every fault is found at once.

Values of the wrong shape are passed over here: the schema has already reported them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from pydantic import ValidationError

from migrations_app.gates.parameters import CHECK_PARAMETERS
from migrations_app.planfile.circles import circles
from migrations_app.planfile.nodes import Node, Step
from migrations_app.planfile.problems import Problem
from migrations_app.planfile.schema import MAX_PATH, split_address
from migrations_app.planfile.words import is_broken, is_echo, problem, suggest, translate

RESERVED_PREFIXES = ("/health", "/routing-status", "/services/discovery")
MONOLITH_KEY = "monolith"  # what health and traffic of the old side are stored under
Loc = list[Step]


def check(file: str, root: Node) -> list[Problem]:
    """Every rule that the document breaks."""
    found: list[Problem] = []
    rules: tuple[Callable[[_Document], Iterator[tuple[Loc, str]]], ...] = (
        _unique_keys,
        _keys,
        _upstreams,
        _routes,
        _flags,
        _weeks,
        _order,
        _prerequisites,
    )
    document = _Document(root)
    for rule in rules:
        found += [problem(file, root, loc, reason) for loc, reason in rule(document)]
    return [*found, *_parameters(file, document)]


class _Document:
    """The lists of the document that the rules walk, each item with its place."""

    def __init__(self, root: Node) -> None:
        self.root = root
        self.services = _items(root, "services", [])
        self.weeks = _items(root, "weeks", [])
        self.prerequisites = [_items(week, "prerequisites", loc) for loc, week in self.weeks]


def _items(parent: Node, key: str, loc: Loc) -> list[tuple[Loc, Node]]:
    node = parent.get(key)
    return [([*loc, key, index], item) for index, item in enumerate(node.items() if node else ())]


def _texts(parent: Node, key: str, loc: Loc) -> list[tuple[Loc, str]]:
    return [(where, item.value.strip()) for where, item in _items(parent, key, loc) if isinstance(item.value, str)]


def _numbers(parent: Node, key: str, loc: Loc) -> list[tuple[Loc, int]]:
    return [(where, item.value) for where, item in _items(parent, key, loc) if type(item.value) is int]


def _line(document: _Document, loc: Loc) -> int:
    return problem("", document.root, loc, "").line


def _duplicates(
    document: _Document, found: Iterable[tuple[Loc, str | int | None]], what: str
) -> Iterator[tuple[Loc, str]]:
    first: dict[str | int, Loc] = {}
    for loc, value in found:
        if value is None:
            continue
        if value in first:
            yield loc, f"{what} {_quote(value)} is already used on line {_line(document, first[value])}"
        else:
            first[value] = loc


def _quote(value: str | int) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)


def _unique_keys(document: _Document) -> Iterator[tuple[Loc, str]]:
    services, weeks = document.services, document.weeks
    yield from _duplicates(document, [([*loc, "key"], node.text("key")) for loc, node in services], "the service key")
    yield from _duplicates(document, [([*loc, "flag"], node.text("flag")) for loc, node in services], "the flag")
    yield from _duplicates(
        document, [([*loc, "number"], node.integer("number")) for loc, node in weeks], "the week number"
    )
    for prerequisites in document.prerequisites:
        keys = [([*loc, "key"], node.text("key")) for loc, node in prerequisites]
        yield from _duplicates(document, keys, "the prerequisite key")


def _keys(document: _Document) -> Iterator[tuple[Loc, str]]:
    for loc, service in document.services:
        if service.text("key") == MONOLITH_KEY:
            yield [*loc, "key"], f"'{MONOLITH_KEY}' names the old side; give the service another key"


def _address(node: Node | None, key: str) -> tuple[str, int] | None:
    text = node.text(key) if node is not None else None
    try:
        return split_address(text) if text else None
    except ValueError:
        return None


def _upstreams(document: _Document) -> Iterator[tuple[Loc, str]]:
    monolith = _address(document.root.get("monolith"), "address")
    for loc, service in document.services:
        if monolith is not None and _address(service, "upstream") == monolith:
            yield [*loc, "upstream"], "is the monolith's own address; turning the flag on would move nothing"


def _inside(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith(f"{outer}/")


def _ancestors(prefix: str) -> Iterator[str]:
    """The prefix itself and every prefix that holds it, by path segments: /a/b -> /a/b, /a."""
    while prefix:
        yield prefix
        prefix = prefix.rpartition("/")[0]


def _routes(document: _Document) -> Iterator[tuple[Loc, str]]:
    owners: dict[str, tuple[Loc, int, str]] = {}
    for index, (loc, service) in enumerate(document.services):
        name = service.text("key") or f"#{index + 1}"
        strip = service.text("strip") if service.get("strip") is not None else "/api"
        for where, prefix in _texts(service, "routes", loc):
            if not prefix.startswith("/") or len(prefix) > MAX_PATH:
                continue
            for reserved in RESERVED_PREFIXES:
                if _inside(prefix, reserved) or _inside(reserved, prefix):
                    yield where, f"{prefix} takes {reserved}, which the gateway answers itself"
            if strip and not _inside(prefix, strip):
                yield where, f"{prefix} does not begin with {strip}, which is to be taken off; set 'strip'"
            if prefix in owners:
                line = _line(document, owners[prefix][0])
                yield where, f"{prefix} is already a route of service '{owners[prefix][2]}' on line {line}"
            else:
                owners[prefix] = (where, index, name)
    for prefix, (where, index, _) in owners.items():
        for outer in list(_ancestors(prefix))[1:]:
            if outer in owners and owners[outer][1] != index:
                line = _line(document, owners[outer][0])
                yield where, f"{prefix} overlaps {outer} of service '{owners[outer][2]}' on line {line}"


def _flags(document: _Document) -> Iterator[tuple[Loc, str]]:
    known = {flag for _, service in document.services if (flag := service.text("flag"))}
    used: dict[str, Loc] = {}
    for loc, week in document.weeks:
        for where, flag in _texts(week, "flags", loc):
            if flag not in known:
                yield where, f"no service has the flag '{flag}'{suggest(flag, known)}"
            elif flag in used:
                yield where, f"the flag '{flag}' is already moved on line {_line(document, used[flag])}"
            used.setdefault(flag, where)
    for loc, service in document.services:
        own = service.text("flag")
        if own is not None and own not in used:
            yield [*loc, "flag"], f"no week moves the flag '{own}'; name it in the 'flags' of one week"


def _weeks(document: _Document) -> Iterator[tuple[Loc, str]]:
    for loc, week in document.weeks:
        flags, moves = week.get("flags"), week.get("moves_traffic")
        moves_traffic = moves is None or moves.value is not False
        if moves_traffic and (flags is None or flags.value == ()):
            yield loc, "moves no flag; name its 'flags', or say 'moves_traffic: false'"
        if not moves_traffic and flags is not None and flags.items():
            yield [*loc, "moves_traffic"], "is false, but the week has flags"
        planned = week.get("planned")
        start, end = (planned.text("start"), planned.text("end")) if planned is not None else (None, None)
        if start and end and _is_day(start) and _is_day(end) and end < start:
            yield [*loc, "planned", "end"], f"the end {end} is before the start {start}"


def _is_day(text: str) -> bool:
    return re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) is not None


def _order(document: _Document) -> Iterator[tuple[Loc, str]]:
    numbered = {week.integer("number"): loc for loc, week in document.weeks}
    # Numbers that the schema refuses anyway are left out, which bounds the search for circles.
    places = {number: loc for number, loc in numbered.items() if number is not None and 1 <= number <= 999}
    after: dict[int, set[int]] = {number: set() for number in places}
    for loc, week in document.weeks:
        number, seen = week.integer("number"), set[int]()
        for where, earlier in _numbers(week, "after", loc):
            if earlier == number:
                yield where, "the week waits for itself"
            elif earlier not in places:
                yield where, f"there is no week {earlier}"
            elif earlier in seen:
                yield where, f"week {earlier} is named twice"
            elif number is not None and number in places:
                after[number].add(earlier)
            seen.add(earlier)
    for circle in circles(after):
        names = " -> ".join(str(number) for number in [*circle, circle[0]])
        yield [*places[circle[0]], "after"], f"the weeks {names} wait for each other in a circle"


def _prerequisites(document: _Document) -> Iterator[tuple[Loc, str]]:
    for prerequisites in document.prerequisites:
        for loc, prerequisite in prerequisites:
            kind, name = prerequisite.text("kind"), prerequisite.text("check")
            if kind == "manual":
                for key in ("check", "parameters"):
                    if prerequisite.get(key) is not None:
                        yield [*loc, key], f"a manual prerequisite has no '{key}'"
            elif kind == "automatic" and prerequisite.get("check") is None:
                yield loc, f"an automatic prerequisite needs a 'check': {', '.join(CHECK_PARAMETERS)}"
            elif kind == "automatic" and name is not None and name not in CHECK_PARAMETERS:
                hint = suggest(name, CHECK_PARAMETERS) or f"; known: {', '.join(CHECK_PARAMETERS)}"
                yield [*loc, "check"], f"there is no check '{name}'{hint}"


def _parameters(file: str, document: _Document) -> Iterator[Problem]:
    root = document.root
    numbers = {week.integer("number") for _, week in document.weeks}
    for prerequisites in document.prerequisites:
        for loc, prerequisite in prerequisites:
            model = CHECK_PARAMETERS.get(prerequisite.text("check") or "")
            given = prerequisite.get("parameters")
            if model is None or prerequisite.text("kind") != "automatic":
                continue
            if given is not None and not isinstance(given.value, dict):
                continue
            where = [*loc, "parameters"]
            try:
                model.model_validate(given.plain() if given is not None else {})
            except ValidationError as error:
                for detail in error.errors():
                    if not is_echo(detail) and not is_broken(root, [*where, *detail["loc"]]):
                        yield translate(file, root, detail, model, where)
                continue
            for place, named in _numbers(given, "weeks", where) if given is not None else ():
                if named not in numbers:
                    yield problem(file, root, place, f"there is no week {named}")
