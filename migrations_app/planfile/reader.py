"""A plan file -> a Plan, or every problem it has. No Django, and no exception for any bytes whatever."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from migrations_app.planfile import rules
from migrations_app.planfile.nodes import Node, parse
from migrations_app.planfile.problems import PlanFileError, Problem
from migrations_app.planfile.schema import Plan
from migrations_app.planfile.words import describe, is_broken, is_echo, translate

MAX_BYTES = 1024 * 1024
MAX_PROBLEMS = 200  # more than anyone reads; the count of the rest is told


def read_path(path: Path | str) -> Plan | list[Problem]:
    """Read a plan file. A file over the size limit is refused without reading it in."""
    name = str(path)
    try:
        with Path(path).open("rb") as stream:
            size = Path(path).stat().st_size
            # One byte more than allowed tells a file that lies about its size, such as a pipe.
            data = stream.read(MAX_BYTES + 1) if size <= MAX_BYTES else b""
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return [Problem(name, 0, "", f"cannot be read: {reason}")]
    if size > MAX_BYTES:
        return [_too_large(name, size)]
    return read_bytes(data, name)


def read_bytes(data: bytes, name: str = "plan.yaml") -> Plan | list[Problem]:
    """Read the content of a plan file; `name` is what problems call it. Problems come in the order of the file."""
    if len(data) > MAX_BYTES:
        return [_too_large(name, len(data))]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        reason = f"byte {data[error.start]:#04x} at offset {error.start} is not UTF-8; save the file as UTF-8"
        return [Problem(name, line, "", reason)]
    root, faults = parse(text)
    found = [Problem(name, fault.line, "", fault.reason) for fault in faults]
    if root is None:
        return _ordered(name, found)
    plan, wrong = _validate(name, root)
    found += wrong
    if plan is None or found:
        return _ordered(name, found)
    return plan


def read_plan(path: Path | str) -> Plan:
    """Like `read_path`, for callers that cannot go on without a plan: raises PlanFileError."""
    plan = read_path(path)
    if isinstance(plan, Plan):
        return plan
    raise PlanFileError(plan)


def _validate(name: str, root: Node) -> tuple[Plan | None, list[Problem]]:
    if not isinstance(root.value, dict):
        reason = f"a plan is a group of keys (plan, gateway, monolith, services, weeks), not {describe(root.plain())}"
        return None, [] if root.broken else [Problem(name, root.line, "", reason)]
    plan, found = None, []
    try:
        plan = Plan.model_validate(root.plain())
    except ValidationError as error:
        details = error.errors(include_url=False)
        # Suggestions cost time: what will not be shown is not translated.
        found = [
            translate(name, root, detail, Plan)
            for detail in details[: MAX_PROBLEMS + 1]
            if not is_echo(detail) and not is_broken(root, detail["loc"])
        ]
        found += [Problem(name, root.line, "", "")] * max(0, len(details) - MAX_PROBLEMS - 1)
    return plan, found + rules.check(name, root)


def _too_large(name: str, size: int) -> Problem:
    return Problem(name, 1, "", f"has {size:,} bytes; a plan file has at most {MAX_BYTES:,}")


def _ordered(name: str, found: list[Problem]) -> list[Problem]:
    told = sorted({problem for problem in found if problem.reason})
    rest = len(told) - MAX_PROBLEMS + sum(not problem.reason for problem in found)
    if rest <= 0:
        return told
    return [*told[:MAX_PROBLEMS], Problem(name, told[MAX_PROBLEMS - 1].line, "", f"and {rest:,} more problems")]
