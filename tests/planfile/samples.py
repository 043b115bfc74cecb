"""Plan files for these tests: a small valid one, and ways to change it."""

from __future__ import annotations

import re
from pathlib import Path

from migrations_app.planfile.problems import Problem
from migrations_app.planfile.reader import read_bytes
from migrations_app.planfile.schema import Plan

PLANS = Path(__file__).resolve().parent.parent.parent / "plans"

SMALL = """\
plan: {key: small, title: A small plan}
gateway: {key: main, adapter: memory}
monolith: {address: "127.0.0.1:3000"}
services:
  - key: storage
    title: Storage
    area: Storage locations
    owner: Lab team
    flag: USE_STORAGE
    routes: [/api/storage]
    upstream: 127.0.0.1:3014
  - key: auth
    title: Auth
    area: Sign-in
    owner: Identity team
    flag: USE_AUTH
    routes: [/api/auth]
    upstream: 127.0.0.1:3010
weeks:
  - number: 1
    title: Storage first
    risk: low
    impact: Minimal
    planned: {start: 2026-11-23, end: 2026-11-29}
    flags: [USE_STORAGE]
    prerequisites:
      - {key: healthy, title: Storage is healthy, kind: manual}
    soak: 48h
    done_when: [Storage is on the new side.]
  - number: 2
    title: Then sign-in
    risk: high
    impact: All sign-ins
    planned: {start: 2026-11-30, end: 2026-12-06}
    flags: [USE_AUTH]
    after: [1]
    prerequisites:
      - {key: backup, title: The backup is done, kind: manual}
      - {key: week-1-on, title: Week 1 is on, kind: automatic, check: flags_on, parameters: {weeks: [1]}}
    done_when: [Sign-in is on the new side.]
"""

CHECKED = SMALL.replace(
    """\
      - {key: healthy, title: Storage is healthy, kind: manual}
    soak: 48h
    done_when: [Storage is on the new side.]
""",
    """\
      - key: healthy
        title: Storage is healthy
        kind: automatic
        check: services_healthy
        parameters:
          services: [storage]
          for: 5m
      - key: told
        title: Everyone is told
        kind: manual
        valid_for: 72h
      - key: users
        title: Users are the same
        kind: automatic
        check: data_migrated
        parameters:
          from: main
          to: auth
          tables:
            - name: users
              columns: [email, role]
      - key: answers
        title: Storage answers
        kind: automatic
        check: endpoint_answers
        parameters:
          target: storage
          path: /health
          json:
            path: status.deep
            equals: ok
    approvals:
      count: 2
      role: approver
      valid_for: 8h
    soak: 90s
    done_when:
      - Nobody has noticed.
      - key: all-on
        title: Storage is on the new side.
        check: flags_on
        parameters:
          weeks: [1]
        help: All of it.
""",
)


def changed(*replacements: tuple[str, str], text: str = SMALL) -> str:
    """The small plan with each old text, which must be there once, replaced by the new one."""
    for old, new in replacements:
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
        text = text.replace(old, new)
    return text


def plan_of(text: str = SMALL) -> Plan:
    plan = read_bytes(text.encode())
    assert isinstance(plan, Plan), "\n".join(map(str, plan))
    return plan


def problems_of(data: str | bytes) -> list[Problem]:
    found = read_bytes(data.encode() if isinstance(data, str) else data)
    assert isinstance(found, list), "the plan was accepted"
    return found


def line_of(text: str, part: str) -> int:
    """The number of the one line that has this part."""
    lines = [number for number, line in enumerate(text.splitlines(), 1) if part in line]
    assert len(lines) == 1, f"{part!r} is on lines {lines}"
    return lines[0]


def only_problem(text: str) -> tuple[int, str, str]:
    """Line, path and reason of the only problem."""
    (problem,) = problems_of(text)
    return problem.line, problem.path, re.sub(r"\s+", " ", problem.reason)
