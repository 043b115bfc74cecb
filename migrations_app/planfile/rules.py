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
from migrations_app.planfile.words import is_broken, is_echo, problem, shorten, suggest, translate

RESERVED_PREFIXES = ("/health", "/routing-status", "/services/discovery")
# Keys of the lines that gates.verdict makes by itself.
OWN_LINES = r"approval|soak|(after|freeze)-[0-9]+|health-.*"
MONOLITH_KEY = "monolith"  # what health and traffic of the old side are stored under
GATEWAY_TARGET = "gateway"  # what a check's `target` calls the gateway
DONE_KEY = r"done-[0-9]+"  # as schema.done_key
NO_VALUE = "has no value; write one, or leave the key out"
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
        _failover,
        _weeks,
        _order,
        _values,
        _prerequisites,
        _done_when,
        _approvals,
        _triggers,
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
        self.done_when = [_items(week, "done_when", loc) for loc, week in self.weeks]

    def checks(self) -> Iterator[tuple[Loc, Node, Node]]:
        """Place, line of the checklist and its week, for each line that may have a check."""
        for (_, week), lines, criteria in zip(self.weeks, self.prerequisites, self.done_when, strict=True):
            yield from ((loc, line, week) for loc, line in lines if line.text("kind") == "automatic")
            yield from ((loc, line, week) for loc, line in criteria)


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
    for prerequisites, criteria in zip(document.prerequisites, document.done_when, strict=True):
        keys = [([*loc, "key"], node.text("key")) for loc, node in [*prerequisites, *criteria]]
        yield from _duplicates(document, keys, "the prerequisite key")


def _keys(document: _Document) -> Iterator[tuple[Loc, str]]:
    for loc, service in document.services:
        if service.text("key") == MONOLITH_KEY:
            yield [*loc, "key"], f"'{MONOLITH_KEY}' names the old side; give the service another key"
    for items in [*document.prerequisites, *document.done_when]:
        for loc, item in items:
            key = item.text("key")
            if key is not None and re.fullmatch(DONE_KEY, key):
                yield [*loc, "key"], f"'{key}' names a line of done_when that has no key; choose another"
            elif key is not None and re.fullmatch(OWN_LINES, key):
                # An override names lines by their keys: two of one name could be let through for one.
                yield [*loc, "key"], f"'{key}' names a line that every gate may have; choose another"


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


def _failover(document: _Document) -> Iterator[tuple[Loc, str]]:
    """What the monolith cannot serve does not fail over to it, and no trigger waits for that."""
    never_of: dict[str | None, str] = {}
    for loc, service in document.services:
        told, past = service.get("failover"), service.text("point_of_no_return")
        if past is not None and told is not None and told.value is True:
            line = _line(document, [*loc, "point_of_no_return"])
            yield [*loc, "failover"], f"is true, but line {line} says that past a point the old side cannot serve it"
        never = "it has a point_of_no_return" if past is not None else ""
        if told is not None and told.value is False:
            never = "its failover is false"
        alone = service.get("new_side_only")
        if alone is not None and alone.value is True:
            never = "the monolith never had it"
        never_of[service.text("flag")] = never
        if never:
            why = f"failover never comes about: {never}, so the monolith never answers in its place"
            yield from _waits_for_failover(service, loc, why)
    for loc, week in document.weeks:
        flags = [flag for _, flag in _texts(week, "flags", loc)]
        if flags and all(never_of.get(flag) for flag in flags):
            yield from _waits_for_failover(week, loc, "failover never comes about: no service of the week fails over")


def _waits_for_failover(node: Node, loc: Loc, why: str) -> Iterator[tuple[Loc, str]]:
    for where, trigger in _items(node, "triggers", loc):
        if trigger.text("when") == "failover":
            yield [*where, "when"], why


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


def _values(document: _Document) -> Iterator[tuple[Loc, str]]:
    """A key without a value, where the schema has a use for nothing, is an oversight in a file."""
    places: list[tuple[Loc, Node, tuple[str, ...]]] = [
        (loc, week, ("approvals", "downtime")) for loc, week in document.weeks
    ]
    places += [(loc, item, ("check", "valid_for")) for items in document.prerequisites for loc, item in items]
    places += [(loc, item, ("check", "key")) for items in document.done_when for loc, item in items]
    polled = [(loc, service.get("health")) for loc, service in document.services]
    polled.append((["monolith"], monolith.get("health") if (monolith := document.root.get("monolith")) else None))
    places += [([*loc, "health"], health, ("interval", "timeout")) for loc, health in polled if health is not None]
    if (gateway := document.root.get("gateway")) is not None:
        places.append((["gateway"], gateway, ("sticky",)))
    steps = [(loc, service.get("rollout")) for loc, service in document.services]
    places += [(loc, service, ("point_of_no_return",)) for loc, service in document.services]
    places += [([*loc, "rollout"], rollout, ("template", "p95")) for loc, rollout in steps if rollout is not None]
    for loc, node, keys in places:
        for key in keys:
            value = node.get(key)
            if value is not None and value.value is None and not value.broken:
                yield [*loc, key], NO_VALUE


def _prerequisites(document: _Document) -> Iterator[tuple[Loc, str]]:
    for prerequisites in document.prerequisites:
        for loc, prerequisite in prerequisites:
            kind = prerequisite.text("kind")
            if kind == "manual":
                for key in ("check", "parameters"):
                    if (value := prerequisite.get(key)) is not None and value.value is not None:
                        yield [*loc, key], f"a manual prerequisite has no '{key}'"
            elif kind == "automatic":
                if prerequisite.get("check") is None:
                    yield loc, f"an automatic prerequisite needs a 'check': {', '.join(CHECK_PARAMETERS)}"
                if (value := prerequisite.get("valid_for")) is not None and value.value is not None:
                    yield [*loc, "valid_for"], "an automatic prerequisite has no 'valid_for'; it is checked anew"
                yield from _known_check(loc, prerequisite)


def _done_when(document: _Document) -> Iterator[tuple[Loc, str]]:
    for criteria in document.done_when:
        for loc, criterion in criteria:
            if criterion.get("parameters") is not None and criterion.get("check") is None:
                yield [*loc, "parameters"], "there is no 'check' that could take them"
            yield from _known_check(loc, criterion)


def _known_check(loc: Loc, line: Node) -> Iterator[tuple[Loc, str]]:
    name = line.text("check")
    if name is not None and name not in CHECK_PARAMETERS:
        hint = suggest(name, CHECK_PARAMETERS) or f"; known: {', '.join(CHECK_PARAMETERS)}"
        yield [*loc, "check"], f"there is no check '{shorten(name)}'{hint}"


def _approvals(document: _Document) -> Iterator[tuple[Loc, str]]:
    for loc, week in document.weeks:
        approvals = week.get("approvals")
        if approvals is not None and approvals.integer("count") == 0 and week.text("risk") == "high":
            yield [*loc, "approvals", "count"], "is 0, but a week of high risk needs at least one approval"


def _triggers(document: _Document) -> Iterator[tuple[Loc, str]]:
    """The routes that triggers name are of the service, or of a service of the week."""
    routes_of = {
        service.text("flag"): [prefix for _, prefix in _texts(service, "routes", loc)]
        for loc, service in document.services
    }
    for loc, service in document.services:
        yield from _counted_routes(service, loc, routes_of.get(service.text("flag"), []), "the service has no route")
    for loc, week in document.weeks:
        flags = [flag for _, flag in _texts(week, "flags", loc)]
        routes = [prefix for flag in flags for prefix in routes_of.get(flag, [])]
        yield from _counted_routes(week, loc, routes, "no service of the week has a route")
        if not flags and _items(week, "triggers", loc):
            yield [*loc, "triggers"], "the week moves no traffic, so there is nothing to move back"


def _counted_routes(node: Node, loc: Loc, routes: list[str], lacking: str) -> Iterator[tuple[Loc, str]]:
    for where, trigger in _items(node, "triggers", loc):
        path = trigger.text("route")
        if path is not None and not any(_inside(path, route) for route in routes):
            yield [*where, "route"], f"{lacking} that {shorten(path)} is in"
        for key in ("method", "above", "below", "times", "url", "path", "prometheus", "query"):
            if (value := trigger.get(key)) is not None and value.value is None and not value.broken:
                yield [*where, key], NO_VALUE


def _parameters(file: str, document: _Document) -> Iterator[Problem]:
    root = document.root
    weeks = {number for _, week in document.weeks if (number := week.integer("number")) is not None}
    services = {key for _, service in document.services if (key := service.text("key"))}
    for loc, line, week in document.checks():
        name, given = line.text("check") or "", line.get("parameters")
        model = CHECK_PARAMETERS.get(name)
        if model is None or (given is not None and not isinstance(given.value, dict)):
            continue
        where = [*loc, "parameters"]
        try:
            model.model_validate(given.plain() if given is not None else {})
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                if not is_echo(detail) and not is_broken(root, [*where, *detail["loc"]]):
                    yield translate(file, root, detail, model, where)
            continue
        for place, reason in (
            *_named(given or Node({}, line.line, {}), where, weeks, services),
            *_sensible(name, given, where, week),
        ):
            yield problem(file, root, place, reason)


def _named(given: Node, where: Loc, weeks: set[int], services: set[str]) -> Iterator[tuple[Loc, str]]:
    """The parts of the plan that parameters name must be in the plan."""
    for key in ("week", "weeks"):
        for place, number in _one_or_more(given, key, where):
            if number not in weeks:
                yield place, f"there is no week {number}"
    for key in ("service", "services", "target"):
        known = {*services, GATEWAY_TARGET, MONOLITH_KEY} if key == "target" else services
        for place, service in _one_or_more(given, key, where):
            if service not in known:
                yield place, f"there is no service '{shorten(str(service))}'{suggest(str(service), sorted(known))}"


def _one_or_more(given: Node, key: str, where: Loc) -> list[tuple[Loc, object]]:
    """The items of the list under `key`, or the one value there."""
    node = given.get(key)
    if node is None:
        return []
    items: list[tuple[Loc, object]] = [(loc, item.value) for loc, item in _items(given, key, where)]
    return items if isinstance(node.value, tuple) else [([*where, key], node.value)]


def _sensible(name: str, given: Node | None, where: Loc, week: Node) -> Iterator[tuple[Loc, str]]:
    """Checks of the week's own services, or target, can never hold in a week that has none."""
    alone = given is None or (given.get("under") is None and given.get("week") is None)
    if name == "downtime" and week.get("downtime") is None and alone:
        yield where, "the week has no 'downtime' to go by; give it one, or say 'under' here"
    flags = week.get("flags")
    if flags is not None and flags.items():
        return
    if name == "services_healthy" and not (given is not None and _items(given, "services", where)):
        yield where, "the week moves no flag, so name 'services: [keys]'"
    if name == "rollback_rehearsed":
        yield where, "the week moves no flag, so there is no rollback to rehearse"
