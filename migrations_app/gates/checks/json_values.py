"""Values in JSON answers of others: where they stand, whether they are what is expected, and how they are told."""

from __future__ import annotations

import json
import re
from typing import Any

from .printable import printable

WORD = r"[A-Za-z][A-Za-z _-]{0,19}"  # what states are called: ok, degraded, shutting down
NOTHING = object()  # what stands at a place that the answer does not have


def found_at(document: Any, path: str) -> Any:
    """What stands at the path (keys and places of lists, joined by dots); NOTHING when there is no such place."""
    for step in path.split("."):
        if isinstance(document, dict) and step in document:
            document = document[step]
        elif isinstance(document, list) and step.isascii() and step.isdigit() and int(step[:9]) < len(document):
            document = document[int(step[:9])]
        else:
            return NOTHING
    return document


def equal(found: Any, wanted: Any) -> bool:
    """As JSON has it: 1 equals 1.0, and neither is true."""
    return isinstance(found, bool) == isinstance(wanted, bool) and bool(found == wanted)


def shown(value: Any) -> str:
    """For people, and short: an answer may hold anything."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return printable(json.dumps(value, ensure_ascii=False))


def told(value: Any) -> str:
    """As `shown`, of what somebody has answered: whoever sees the plan reads it, and text may be a secret of theirs."""
    return "other text" if isinstance(value, str) and not re.fullmatch(WORD, value) else shown(value)
