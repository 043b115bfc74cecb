"""A plan whose services go over in steps, with triggers of every kind on them."""

from __future__ import annotations

from migrations_app.planfile.reader import read_bytes
from migrations_app.planfile.schema import Plan

TEXT = """\
plan: {key: steps, title: Steps and triggers}
gateway: {key: main, adapter: memory}
monolith: {address: "127.0.0.1:4000"}
services:
  - key: alpha
    title: A
    area: A
    owner: T
    flag: USE_ALPHA
    routes: [/api/alpha]
    upstream: "127.0.0.1:4001"
    failover: false
    rollout:
      steps:
        - {weight: 10, hold: 1m, requests: 40}
        - {weight: 50, hold: 1m}
        - {weight: 100, hold: 2m, requests: 20}
    triggers:
      - {key: errors, when: errors, above: 20, window: 30s}
      - {key: polls, when: health, failures: 2}
  - key: beta
    title: B
    area: B
    owner: T
    flag: USE_BETA
    routes: [/api/beta]
    upstream: "127.0.0.1:4002"
    rollout:
      steps: [{weight: 25, hold: 1m}, {weight: 100}]
      p95: 200
      on_failure: pause
    triggers:
      - {key: slow, when: latency, above: 300, window: 1m, do: pause}
      - {key: slower, when: latency, times: 3, window: 1m, do: tell}
      - {key: away, when: failover}
  - key: gamma
    title: C
    area: C
    owner: T
    flag: USE_GAMMA
    routes: [/api/gamma]
    upstream: "127.0.0.1:4003"
    failover: false
    triggers:
      - {key: trial, when: errors, above: 5, window: 30s, dry_run: true}
      - {key: silent, when: errors, above: 50, window: 5m, requests: 1, on_no_data: act}
weeks:
  - number: 1
    title: First
    risk: low
    impact: Little
    planned: {start: 2026-11-23, end: 2026-11-29}
    flags: [USE_ALPHA]
    prerequisites: [{key: ready, title: The team is ready, kind: manual}]
    done_when: [{title: Nobody complained, key: calm}]
  - number: 2
    title: Second
    risk: low
    impact: Little
    planned: {start: 2026-11-30, end: 2026-12-06}
    flags: [USE_BETA, USE_GAMMA]
    prerequisites: [{key: told, title: Users are told, kind: manual}]
    done_when: [{title: Nobody complained, key: quiet}]
"""


def document() -> Plan:
    read = read_bytes(TEXT.encode())
    assert isinstance(read, Plan), "\n".join(map(str, read))
    return read
