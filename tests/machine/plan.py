"""A plan to be played with: three weeks that have every kind of line a gate can have, and ways to change it."""

from __future__ import annotations

from dataclasses import dataclass

from migrations_app.planfile.reader import read_bytes
from migrations_app.planfile.schema import Plan

TEXT = """\
plan: {{key: machine, title: "{title}", timezone: Europe/Berlin}}
gateway: {{key: main, adapter: memory}}
monolith: {{address: "127.0.0.1:{monolith}"}}
services:
  - {{key: alpha, title: A, area: A, owner: T, flag: USE_ALPHA, routes: [{alpha_route}], upstream: "127.0.0.1:{alpha}"}}
  - {{key: beta, title: B, area: B, owner: T, flag: USE_BETA, routes: [/api/beta], upstream: "127.0.0.1:{beta}"}}
  - {{key: gamma, title: C, area: C, owner: T, flag: USE_GAMMA, routes: [/api/gamma], upstream: "127.0.0.1:4003"}}
weeks:
  - number: 1
    title: First
    risk: low
    impact: Little
    planned: {{start: 2026-11-23, end: 2026-11-29}}
    flags: [USE_ALPHA]
    prerequisites:
      - {{key: ready, title: The team is ready, kind: manual, valid_for: 2h}}
    soak: 3h
    done_when:
      - {{title: Nobody complained, key: calm}}
  - number: 2
    title: Second
    risk: high
    impact: Much
    planned: {{start: 2026-11-30, end: 2026-12-06}}
    flags: [USE_BETA, USE_GAMMA]
    after: [1]
    prerequisites:
      - {{key: standby, title: Support is on standby, kind: manual, valid_for: 4h}}
      - {{key: told, title: Users are told, kind: manual}}
      - {{key: answers, title: The old side answers, kind: automatic, check: endpoint_answers,
          parameters: {{target: monolith, path: /ready}}}}
    approvals: {{count: 2, valid_for: 6h}}
    soak: 1h
    done_when:
      - {{title: The old side still answers, key: still-answers, check: endpoint_answers,
          parameters: {{target: monolith, path: /ready}}}}
  - number: 3
    title: Third
    risk: low
    impact: None
    planned: {{start: 2026-12-07, end: 2026-12-13}}
    moves_traffic: false
    after: [2]
    prerequisites:
      - {{key: all-on, title: Everything is on, kind: automatic, check: flags_on, parameters: {{all: true}}}}
    approvals: {{count: 1, valid_for: 6h}}
    done_when: [{{title: The old side is off, key: off}}]
"""


@dataclass(frozen=True)
class Variant:
    """What a load may change. Addresses are ports of the loopback address."""

    monolith: int  # answers /ready
    title: str = "A plan to be played with"
    alpha: int = 4001
    alpha_route: str = "/api/alpha"
    beta: int = 4002

    def document(self) -> Plan:
        values = {
            "title": self.title,
            "monolith": self.monolith,
            "alpha": self.alpha,
            "alpha_route": self.alpha_route,
            "beta": self.beta,
        }
        read = read_bytes(TEXT.format(**values).encode())
        assert isinstance(read, Plan), "\n".join(map(str, read))
        return read
