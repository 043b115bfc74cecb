"""Rollback scripts in the gateway's folder: plain sh, for when nothing of ours runs, made of `rollback.sh`.

- rollback/week-3.sh, rollback/everything.sh: one for each week that moves traffic, one for all of them
- rollback/scripts.json: what each of them moves, for `manage.py panic --week`, and how the plan calls the gateway
"""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from migrations_app.gateways import answers
from migrations_app.gateways.base import RollbackScript, Route, RoutingTable, Side, with_pins
from migrations_app.gateways.envoy.render import cluster_name, old_side_rules
from migrations_app.gateways.pins import JOURNAL_FILE, PINS_FOLDER

SCRIPTS_FOLDER = "rollback"
INDEX_FILE = "scripts.json"
_TEMPLATE = Path(__file__).with_name("rollback.sh")
_OF_A_KIND = re.compile(r":(reads|writes)((?::[A-Z]+)?)$")  # the end of a rule's name, a method may follow
_PLACE = re.compile(r"@([A-Z]+)@")  # of a value in the template
_KNOWN = r":\1:known\2"  # of users that have a number


class Scripts:
    """The scripts of one gateway. Every method raises OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._place = folder / SCRIPTS_FOLDER
        self._kept: tuple[tuple[RollbackScript, ...], RoutingTable, str, str] | None = None

    def keep(self, scripts: tuple[RollbackScript, ...], table: RoutingTable, url: str, *, called: str = "") -> bool:
        """Whether any had to be written. Weights and generations make no difference to them."""
        everything = {route.flag for route in table.routes}
        at_zero = with_pins(table, everything)
        at_zero = RoutingTable(table.plan, 0, table.monolith, at_zero.routes, counted=table.counted)
        names = {INDEX_FILE, *(script.name for script in scripts)}
        if self._kept == (scripts, at_zero, url, called) and self._names() == names:
            return False
        # Here, as the user that lifts pins: one who is root would make what others cannot remove.
        (self._folder / PINS_FOLDER).mkdir(exist_ok=True)
        os.close(os.open(self._folder / JOURNAL_FILE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o664))
        self._place.mkdir(exist_ok=True)
        found = {script.name: script_of(script, at_zero, url).encode() for script in scripts}
        listed = {"gateway": called, "scripts": [_as_values(script) for script in scripts]}
        found[INDEX_FILE] = json.dumps(listed, indent=1).encode()
        written = [name for name, content in found.items() if self._write(name, content)]
        gone = self._names() - names
        for name in gone:
            (self._place / name).unlink(missing_ok=True)
        self._kept = (scripts, at_zero, url, called)
        return bool(written or gone)

    def known(self) -> tuple[RollbackScript, ...]:
        """Those that lie ready; none when the list of them cannot be read."""
        try:
            listed = self._listed()["scripts"]
            return tuple(RollbackScript(one["name"], one["title"], tuple(one["flags"])) for one in listed)
        except (KeyError, TypeError):
            return ()

    def called(self) -> str:
        """How the plan calls the gateway; empty when nobody has told."""
        return str(self._listed().get("gateway", ""))

    def _listed(self) -> dict[str, Any]:
        try:
            found = json.loads((self._place / INDEX_FILE).read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        if isinstance(found, list):  # an older version's
            return {"scripts": found}
        return found if isinstance(found, dict) else {}

    def _names(self) -> set[str]:
        try:
            return set(os.listdir(self._place))
        except FileNotFoundError:
            return set()

    def _write(self, name: str, content: bytes) -> bool:
        target = self._place / name
        try:
            if target.read_bytes() == content:
                return False
        except FileNotFoundError:
            pass
        # In the folder above, where what killed writers leave is cleared up.
        temporary = self._folder / f".{name}.{os.getpid()}.{time.monotonic_ns()}.tmp"
        temporary.write_bytes(content)
        temporary.chmod(0o644 if name == INDEX_FILE else 0o755)
        temporary.replace(target)
        return True


def script_of(script: RollbackScript, table: RoutingTable, url: str) -> str:
    """The script's text. `table` has all routes, at weight 0; those of other flags stay as they are."""
    moved = set(script.flags)
    routes = [route for route in table.routes if route.flag in moved]
    flags = [flag for flag in script.flags if any(route.flag == flag for route in routes)]
    count = f"{len(flags)} flag{'' if len(flags) == 1 else 's'}"
    title = "".join(character if character.isprintable() else " " for character in script.title)
    values = {
        "TITLE": title,
        "COUNT": count,
        "NAME": f"{SCRIPTS_FOLDER}/{script.name}",
        "FLAGS": shlex.quote(" ".join(flags)),
        "URL": shlex.quote(url),
        "DATA": "\n".join("\t".join(line) for line in _data(table, routes, flags)),
    }
    # At once: a title may be the name of a place, and what is put in must not be looked through for the next.
    return _PLACE.sub(lambda place: values[place[1]], _TEMPLATE.read_text())


def _data(table: RoutingTable, routes: list[Route], flags: list[str]) -> Iterator[tuple[str, ...]]:
    """What the script's awk reads: the flags, how `/routing-status` tells each prefix, and each prefix's rules."""
    for flag in flags:
        yield "flag", flag
    for route in routes:
        # As it stands in a text within the file.
        yield "prefix", route.prefix, json.dumps(answers.compact(answers.route_status(table, route)))[1:-1]
        for old_name, line in old_side_rules(route, table):
            rest = old_name.removeprefix(cluster_name(route.service, Side.MONOLITH))
            group = f"{route.service}{rest}"
            yield "rule", group, line
            for side in Side:
                yield "name", f"{cluster_name(route.service, side)}{rest}", group
            yield "name", f"{cluster_name(route.service, Side.SERVICE)}{_OF_A_KIND.sub(_KNOWN, rest)}", group


def _as_values(script: RollbackScript) -> dict[str, object]:
    return {"name": script.name, "title": script.title, "flags": list(script.flags)}
