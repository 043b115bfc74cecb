"""pydantic's findings in plain words, with the line and the place that a reader of the file knows them by."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from migrations_app.planfile.nodes import Node, Step
from migrations_app.planfile.problems import Problem

Context = dict[str, Any]

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a group of 'key: value' lines",
    "model_type": "a group of 'key: value' lines",
}


def suggest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'weight'?` when one of the known words is close, else nothing."""
    close = difflib.get_close_matches(word[:100], list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def describe(value: object) -> str:
    """A value as a person would name it: `the number 5`, `nothing`, `a list`."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text '{shorten(value)}'"
    return "a list" if isinstance(value, tuple | list) else "a group of keys"


def shorten(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def place(root: Node, loc: Sequence[Step]) -> str:
    """`weeks[3].prerequisites[jwt].title`: items are named by their key or number where they have one, else `#2`."""
    path, node = "", root
    for step in loc:
        child = node.child(step)
        if isinstance(step, int):
            path += f"[{_item_name(child, step)}]"
        else:
            path += f".{shorten(step)}" if path else shorten(step)
        if child is None:
            break
        node = child
    return path


def _item_name(item: Node | None, index: int) -> str:
    if item is not None:
        name: object = item.text("name") or item.text("key") or item.integer("number")
        if name is None and isinstance(item.value, str | int):
            name = item.value
        if name is not None and name != "":
            return shorten(str(name))
    return f"#{index + 1}"


def line_of(root: Node, loc: Sequence[Step]) -> int:
    """The line of the place, or of the nearest place around it that exists."""
    line, node = root.line, root
    for step in loc:
        child = node.child(step)
        if child is None:
            return line
        line = child.line if isinstance(step, int) else node.line_of(step)
        node = child
    return line


def is_broken(root: Node, loc: Sequence[Step]) -> bool:
    """Whether the place was already reported while the YAML was read."""
    node: Node | None = root
    for step in loc:
        node = node.child(step) if node is not None else None
        if node is not None and node.broken:
            return True
    return False


def is_echo(error: ErrorDetails) -> bool:
    """A list counts as too short when all its items are wrong; those are told one by one."""
    return error["type"] == "too_short" and bool(error["input"])


def problem(file: str, root: Node, loc: Sequence[Step], reason: str) -> Problem:
    return Problem(file, line_of(root, loc), place(root, loc), reason)


def translate(
    file: str, root: Node, error: ErrorDetails, model: type[BaseModel], prefix: Sequence[Step] = ()
) -> Problem:
    """One pydantic error as a problem. `prefix` is where in the document the validated value lies."""
    loc = _in_document(root, prefix, error["loc"])
    if error["type"] == "extra_forbidden":
        key = str(loc[-1])
        known = _keys_at(model, error["loc"][:-1])
        reason = f"unknown key '{shorten(key)}'{suggest(key, known) or _known(known)}"
        where = [*prefix, *loc[:-1]]
        return Problem(file, line_of(root, [*where, key]), place(root, where), reason)
    if error["type"] == "missing":
        return problem(file, root, [*prefix, *loc[:-1]], f"'{loc[-1]}' is missing")
    return problem(file, root, [*prefix, *loc], reason_of(error))


def _in_document(root: Node, prefix: Sequence[Step], loc: Sequence[Step]) -> list[Step]:
    """Where pydantic says, without what it puts in for one of several shapes: the trigger's `when`."""
    node: Node | None = root
    for step in prefix:
        node = node.child(step) if node else None
    found: list[Step] = []
    for step in loc:
        if node is not None and node.child(step) is None and node.text("when") == step:
            continue
        found.append(step)
        node = node.child(step) if node else None
    return found


def reason_of(error: ErrorDetails) -> str:
    """What is wrong with one value, without where."""
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if value is None:
        return "has no value; write one, or leave the key out"
    if kind in _EXPECTED:
        quotes = "; put it in quotes" if kind == "string_type" and isinstance(value, bool | int | float) else ""
        return f"expected {_EXPECTED[kind]}, got {describe(value)}{quotes}"
    limit = _LIMITS.get(kind)
    return limit(value, context) if limit else f"{describe(value)} does not fit here"


def _not_one_of(value: object, context: Context) -> str:
    expected = context["expected"].replace("'", "").replace(" or ", ", ")
    hint = suggest(value, expected.split(", ")) if isinstance(value, str) else ""
    return f"expected {'one of ' if ', ' in expected else ''}{expected}, got {describe(value)}{hint}"


_LIMITS: dict[str, Callable[[object, Context], str]] = {
    "value_error": lambda _, context: str(context["error"]),
    "literal_error": _not_one_of,
    "string_too_short": lambda *_: "is empty",
    "string_too_long": lambda _, context: f"is longer than {context['max_length']} characters",
    "too_short": lambda *_: "needs at least one entry",
    "greater_than": lambda value, context: f"{value} is too small; it must be above {context['gt']:g}",
    "greater_than_equal": lambda value, context: f"{value} is too small; the least is {context['ge']:g}",
    "less_than_equal": lambda value, context: f"{value} is too large; the most is {context['le']:g}",
}


def _known(keys: Sequence[str]) -> str:
    return f"; known here: {', '.join(keys)}" if keys else ""


def _keys_at(model: type[BaseModel], loc: Sequence[Step]) -> list[str]:
    """The keys that the model at this place has, as the file writes them."""
    annotation: Any = model
    for step in loc:
        annotation = _bare(annotation)
        if isinstance(step, int):
            annotation = next(iter(get_args(annotation)), None)
        else:
            annotation = _fields(annotation)[step].annotation if step in _fields(annotation) else None
    return list(_fields(_bare(annotation)))


def _fields(annotation: Any) -> dict[str, FieldInfo]:
    """The fields of a model by what the file calls them; nothing for anything else."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {field.alias or name: field for name, field in annotation.model_fields.items()}
    return {}


def _bare(annotation: Any) -> Any:
    """A type without what is annotated to it, and without `or None`."""
    while get_origin(annotation) in {Annotated, Union, UnionType}:
        annotation = next(iter(get_args(annotation)), None)
    return annotation
