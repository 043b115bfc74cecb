"""Routes for testers, who choose their side by a header, and keeping their secret to those routes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from migrations_app.gateways.base import TESTER_HEADER, Side

Json = dict[str, Any]

_NAME = "tester:"
# In a route's name, or in the table that the note of what was applied has.
_HELD = re.compile(rb'"' + _NAME.encode() + rb'|"tester_secret": ?"[^"]')
_HIDDEN = "***"


def forced(part: Json, side: Side, secret: str) -> Json:
    """The route of a side as one that only a tester matches, who asks for it. It belongs to no flag."""
    header = {"name": TESTER_HEADER, "string_match": {"exact": f"{side} {secret}"}}
    match = part["match"] | {"headers": [*part["match"].get("headers", []), header]}
    (key, own), *_ = part["metadata"]["filter_metadata"].items()
    metadata = {"filter_metadata": {key: own | {"flag": ""}}}
    return part | {"name": f"{_NAME}{part['name']}", "match": match, "metadata": metadata}


def is_tester(route: Json) -> bool:
    """Whether only testers match it."""
    return any(header.get("name") == TESTER_HEADER for header in route.get("match", {}).get("headers", []))


def holds_secret(content: bytes) -> bool:
    """Whether a file of ours, as it is or inside of another JSON file, tells testers' routes or secret."""
    return _HELD.search(content) is not None


def secrets(routes: Json | None) -> set[str]:
    """Every secret that a route table knows, in each form in which it may be told."""
    values = {
        str(header.get("string_match", {}).get("exact", ""))
        for route in _listed(routes)
        for header in route.get("match", {}).get("headers", [])
        if header.get("name") == TESTER_HEADER
    }
    return {value.removeprefix(f"{side} ") for value in values for side in Side} - {""}


def hidden(value: Any, known: Iterable[str]) -> Any:
    """The same value with the secrets taken out of every text in it."""
    if isinstance(value, str):
        for secret in sorted(known, key=len, reverse=True):
            value = value.replace(secret, _HIDDEN)
        return value
    if isinstance(value, dict):
        return {key: hidden(one, known) for key, one in value.items()}
    if isinstance(value, list):
        return [hidden(one, known) for one in value]
    return value


def _listed(routes: Json | None) -> Iterator[Json]:
    for host in (routes or {}).get("virtual_hosts", []):
        yield from host.get("routes", [])
