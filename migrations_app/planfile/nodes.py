"""YAML text -> a small tree of values that know their line. Nothing is constructed that a plan file does not need.

Aliases, anchors and tags are refused: a plan is read by people, and aliases are how a small file grows to gigabytes.
Plain scalars are read as YAML 1.2 does (`yes`, `on`, `010` and `12:30` are text), so that editors and we agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

MAX_DEPTH = 12  # levels; the deepest place of a plan (a column of data_migrated) is at 10
MAX_VALUES = 50_000  # keys and values; a plan of 500 services has some 15,000
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is some ten times faster; wheels have it

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_MAX_NUMBER = 25  # characters; the longest that any number is written with, -1.2345678901234567e-308, has 24

Scalar = str | int | float | bool | None
Plain = Scalar | tuple["Plain", ...] | dict[str, "Plain"]
Step = str | int


@dataclass(frozen=True, slots=True)
class Node:
    """A value and the line it begins on. `keys` has the line of each key when the value is a mapping.

    `broken` marks what was already reported (an alias): nothing more is said about it.
    """

    value: Scalar | tuple[Node, ...] | dict[str, Node]
    line: int
    keys: dict[str, int]
    broken: bool = False

    def plain(self) -> Plain:
        """The value without lines: dicts, tuples and scalars."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, tuple):
            return tuple(node.plain() for node in self.value)
        return self.value

    def get(self, key: str) -> Node | None:
        return self.value.get(key) if isinstance(self.value, dict) else None

    def items(self) -> tuple[Node, ...]:
        """The items of a list; nothing for anything else."""
        return self.value if isinstance(self.value, tuple) else ()

    def text(self, key: str) -> str | None:
        """The text under `key`, or None when it is absent or not text."""
        node = self.get(key)
        return node.value.strip() if node is not None and isinstance(node.value, str) else None

    def integer(self, key: str) -> int | None:
        """The whole number under `key`, or None when it is absent or not one."""
        node = self.get(key)
        return node.value if node is not None and type(node.value) is int else None

    def line_of(self, key: str) -> int:
        """The line of `key`, or where this node begins when it has no such key."""
        return self.keys.get(key, self.line)

    def child(self, step: Step) -> Node | None:
        if isinstance(step, int):
            items = self.items()
            return items[step] if 0 <= step < len(items) else None
        return self.get(step)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault found while reading YAML: its line (from 1) and the reason."""

    line: int
    reason: str


def reads_as_text(text: str) -> bool:
    """Whether the text, written plainly, is text to `parse`: not a number, a truth value or nothing."""
    return text not in _WORDS and _FLOAT.fullmatch(text) is None


class _StopReadingError(Exception):
    """The text is no plan; its fault has been noted."""


def parse(text: str) -> tuple[Node | None, list[Fault]]:
    """Read one YAML document. The tree is None when there is no making sense of the text; `faults` then says why."""
    unprintable = _UNPRINTABLE.search(text)
    if unprintable is not None:
        line = text.count("\n", 0, unprintable.start()) + 1
        return None, [Fault(line, f"the control character {ord(unprintable.group()):#04x} does not belong in a plan")]
    builder = _Builder(text)
    try:
        return builder.document(), builder.faults
    except _StopReadingError:
        pass
    except yaml.MarkedYAMLError as error:
        builder.faults.append(_syntax_fault(error, text))
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # escapes of characters that do not exist
        builder.faults.append(Fault(1, f"not valid YAML: {error}"))
    return None, builder.faults


class _Builder:
    def __init__(self, text: str) -> None:
        self.events: Iterator[yaml.Event] = yaml.parse(text, Loader=_LOADER)
        self.faults: list[Fault] = []
        self.values = 0

    def document(self) -> Node | None:
        root: Node | None = None
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    self._fault(event, "a second document begins here; a plan file holds one")
                    return root
                root = self._node(next(self.events), depth=1)
        if root is None:
            self.faults.append(Fault(1, "the file is empty; a plan begins with 'plan:'"))
        return root

    def _fault(self, event: yaml.Event, reason: str) -> None:
        self.faults.append(Fault(_line(event), reason))

    def _node(self, event: yaml.Event, *, depth: int) -> Node:
        line = _line(event)
        self.values += 1
        if self.values > MAX_VALUES:
            self._fault(event, f"more than {MAX_VALUES:,} keys and values; a plan never has as many")
            raise _StopReadingError
        if depth > MAX_DEPTH:
            self._fault(event, f"nested deeper than {MAX_DEPTH} levels; a plan never is")
            raise _StopReadingError
        if isinstance(event, yaml.AliasEvent):
            self._fault(event, f"the alias '*{event.anchor}' is not allowed; write the value out")
            return Node(None, line, {}, broken=True)
        if anchor := getattr(event, "anchor", None):
            self._fault(event, f"the anchor '&{anchor}' is not allowed; write the value out where it is needed")
        if tag := getattr(event, "tag", None):
            self._fault(event, f"the tag '{tag}' is not allowed; write the plain value")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(item := next(self.events), yaml.SequenceEndEvent):
                items.append(self._node(item, depth=depth + 1))
            return Node(tuple(items), line, {})
        return self._mapping(line, depth)

    def _mapping(self, line: int, depth: int) -> Node:
        values: dict[str, Node] = {}
        keys: dict[str, int] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self._node(event, depth=depth + 1)
            value = self._node(next(self.events), depth=depth + 1)
            if key.broken:
                continue
            if not isinstance(key.value, str):
                self._fault(event, "a key must be text; put it in quotes")
            elif key.value in keys:
                self._fault(event, f"the key '{key.value}' is already there, on line {keys[key.value]}")
            else:
                keys[key.value] = key.line
                values[key.value] = value
        return Node(values, line, keys)

    def _scalar(self, event: yaml.ScalarEvent) -> Node:
        line, text = _line(event), event.value
        if event.style:  # quoted or a block: text, whatever it looks like
            return Node(text, line, {})
        if text in _WORDS:
            return Node(_WORDS[text], line, {})
        if _FLOAT.fullmatch(text):
            if len(text) > _MAX_NUMBER:
                self._fault(event, "the number is too long")
                return Node(None, line, {}, broken=True)
            return Node(int(text) if _INTEGER.fullmatch(text) else float(text), line, {})
        return Node(text, line, {})


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _syntax_fault(error: yaml.MarkedYAMLError, text: str) -> Fault:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return Fault(1, f"not valid YAML: {error.problem or error.context}")
    lines = text.splitlines()
    # The parser often stops on the line after the one that has the tab.
    for number in (mark.line, mark.line - 1):
        if 0 <= number < len(lines) and re.match(r"\s*(-\s*)*\t", lines[number]):
            return Fault(number + 1, "a tab in the indentation; YAML allows only spaces there")
    reason = f"not valid YAML: {error.problem or error.context}"
    if error.context and error.context_mark is not None and error.problem:
        reason += f" ({error.context}, which begins on line {error.context_mark.line + 1})"
    return Fault(mark.line + 1, reason)
