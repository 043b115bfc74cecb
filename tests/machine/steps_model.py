"""What moves traffic in steps and back by itself, told a second time: plain Python, and nothing of the product's code.

Every method is what somebody, the clock or the gateway does. It returns what must come of it, as in `model`, and moves
the model on. `points` has the model as it was at each of the product's commits on the way: where a process may die.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
STALE = timedelta(minutes=20)  # after which a poll tells nothing
LATELY = 5 * SECOND  # for which a look at the gateway tells whether it fails over
SINGLE = 10 * MINUTE  # after which samples are kept by the minute
ENOUGH = 20  # requests
LONGEST = 10 * SECOND  # that a reading may be where a window is shorter

SERVICE = {"USE_ALPHA": "alpha", "USE_BETA": "beta", "USE_GAMMA": "gamma"}
WEEKS = {1: ["USE_ALPHA"], 2: ["USE_BETA", "USE_GAMMA"]}
WEEK_OF = {flag: number for number, flags in WEEKS.items() for flag in flags}
LINE_OF = {1: "ready", 2: "told"}
FAILS_OVER = {"beta"}
# Flag -> (weight, hold, requests) of each step, the slowest p95, and whether a failure pauses.
STEPS: dict[str, list[tuple[int, timedelta, int]]] = {
    "USE_ALPHA": [(10, MINUTE, 40), (50, MINUTE, 0), (100, 2 * MINUTE, 20)],
    "USE_BETA": [(25, MINUTE, 0), (100, timedelta(0), 0)],
    "USE_GAMMA": [*((weight, 10 * MINUTE, 100) for weight in (1, 5, 25, 50)), (100, 10 * MINUTE, 0)],
}
P95 = {"USE_BETA"}
PAUSES = {"USE_BETA"}
ERROR_RATE = 5.0
TRIGGERS: dict[str, list[dict[str, Any]]] = {
    "USE_ALPHA": [
        {"key": "errors", "when": "errors", "above": 20, "window": 30 * SECOND, "requests": 20, "do": "rollback"},
        {"key": "polls", "when": "health", "failures": 2, "do": "rollback"},
    ],
    "USE_BETA": [
        {"key": "slow", "when": "slow", "window": MINUTE, "do": "pause"},
        {"key": "slower", "when": "slower", "window": MINUTE, "do": "tell"},
        {"key": "away", "when": "failover", "do": "rollback"},
    ],
    "USE_GAMMA": [
        {"key": "trial", "when": "errors", "above": 5, "window": 30 * SECOND, "requests": 20, "do": "tell"},
        {
            "key": "silent",
            "when": "errors",
            "above": 50,
            "window": 5 * MINUTE,
            "requests": 1,
            "do": "rollback",
            "no_data": "act",
        },
    ],
}
MAY = {"mia": {"enable", "roll back"}, "max": {"enable", "roll back"}, "ada": {"roll back"}, "vic": set()}
SYSTEM = "switchyard"

Table = tuple[int, tuple[tuple[str, int], ...]]  # generation, and weights by flag


def table(generation: int, weights: dict[str, int]) -> Table:
    return generation, tuple(sorted(weights.items()))


@dataclass
class Seen:
    """What a look at the gateway finds."""

    generation: int | None = None
    weights: dict[str, int] = field(default_factory=dict)
    drift: bool = False
    error: bool = False


@dataclass
class Counted:
    """Requests of one side: `fast` and `slow` are those that were answered by whom they were meant for."""

    requests: int = 0
    errors: int = 0
    fast: int = 0
    slow: int = 0

    def values(self) -> tuple[int, int, int, int]:
        return self.requests, self.errors, self.fast, self.slow

    def since(self, before: Counted) -> Counted:
        """A counter that is lower than before was reset: it counts from zero."""
        pairs = list(zip(self.values(), before.values(), strict=True))
        if any(now < then for now, then in pairs):
            return self
        return Counted(*(now - then for now, then in pairs))

    def plus(self, other: Counted) -> Counted:
        return Counted(*(one + two for one, two in zip(self.values(), other.values(), strict=True)))

    @property
    def mostly_fast(self) -> bool | None:
        """Whether 95 % were fast; None when nothing was answered."""
        both = self.fast + self.slow
        return self.fast >= 0.95 * both if both else None


class Proxy:
    """The gateway: what lies ready in its folder, and what it runs."""

    def __init__(self) -> None:
        self.up = True
        self.refuses = False
        self.applied: Table | None = None
        self.folder: Table | str | None = None
        self.running: Table | None = None
        self.down: set[str] = set()
        self.counters: dict[tuple[str, str], Counted] = {}

    def restart(self) -> None:
        self.counters = {}
        self.running = self.folder if isinstance(self.folder, tuple) else None

    def observe(self) -> Seen:
        if self.applied is None:
            return Seen(error=True)
        drift = self.folder != self.applied
        if not self.up or self.running is None:
            return Seen(drift=drift, error=True)
        return Seen(self.running[0], dict(self.running[1]), drift or self.running != self.applied)

    def apply(self, wanted: Table) -> tuple[str, bool]:
        """What comes of it (ran, changed, rejected, written, stale), and whether an edited file was replaced."""
        if wanted[0] < (self.applied[0] if self.applied else 0):
            return "stale", False
        if self.up and self.folder == wanted == self.running:
            return "ran", False
        if self.refuses:
            return "rejected", False
        edited = self.applied is not None and self.folder != self.applied
        self.applied = self.folder = wanted
        if not self.up:
            return "written", edited
        self.running = wanted
        return "changed", edited

    def weight(self, flag: str) -> int:
        return dict(self.running[1])[flag] if self.running else 0


class Steps:
    def __init__(self, now: datetime) -> None:
        self.now = now
        self.recording = False
        self.points: list[Steps] = []
        self.generation = 1
        self.flags: dict[str, dict[str, Any]] = {
            flag: {"weight": 0, "generation": 0, "changed": None} for flag in SERVICE
        }
        self.statuses = dict.fromkeys(WEEKS, "planned")
        self.signed: set[str] = set()
        self.frozen_until: datetime | None = None
        self.health: dict[str, tuple[bool, datetime]] = {}
        self.polls: list[tuple[str, datetime, bool]] = []
        self.rollouts: list[dict[str, Any]] = []
        self.triggers: dict[tuple[str, str], dict[str, Any]] = {}
        self.events: list[tuple[Any, ...]] = []
        self.keys: dict[Any, tuple[str, str, int]] = {}  # of clicks that made an event: kind, subject, generation
        self.confirmed: dict[int, datetime] = {}
        self.seen = Seen()
        self.seen_at: datetime | None = None
        self.failing_over: set[str] = set()
        self.proxy = Proxy()
        self.read: dict[tuple[str, str], Counted] = {}
        self.read_at: datetime | None = None
        self.read_of: dict[tuple[str, str], datetime] = {}  # when each counter was read
        self.samples: list[tuple[str, str, datetime, datetime, Counted]] = []  # begins at, read at

    def told(self) -> dict[str, Any]:
        """What the product must tell of itself just now."""
        return {
            "generation": self.generation,
            "flags": {flag: (row["weight"], row["generation"]) for flag, row in self.flags.items()},
            "statuses": self.statuses,
            "rollouts": [
                (row["flag"], row["state"], row["position"], row["generation"], row["since"]) for row in self.rollouts
            ],
            "triggers": {
                place: (row["state"], row["generation"], row["fired_for"], row["fired_as"])
                for place, row in self.triggers.items()
            },
            "events": self.events,
            "keys": sorted(str(key) for key in self.keys),
            "confirmed": self.confirmed,
            "seen": (self.seen.generation, self.seen.weights, self.seen.error, self.seen_at),
            "failing over": self.failing_over,
            "read": {place: one.values()[:2] for place, one in self.read.items()},
            "gateway": vars(self.proxy.observe()),
        }

    def commit(self) -> None:
        """What was done until here stays, whatever dies now."""
        if self.recording:
            self.recording, points, self.points = False, self.points, []
            points.append(copy.deepcopy(self))
            self.recording, self.points = True, points

    # -- gates ----------------------------------------------------------------------------------------------------

    def well(self, service: str) -> bool | None:
        """None when nobody can tell."""
        seen = self.health.get(service)
        return seen[0] if seen and self.now - seen[1] <= STALE else None

    def frozen(self) -> bool:
        return self.frozen_until is not None and self.now < self.frozen_until

    def open(self, number: int, flags: list[str]) -> bool:
        signed = LINE_OF[number] in self.signed
        return signed and not self.frozen() and all(self.well(SERVICE[flag]) for flag in flags)

    # -- moves ----------------------------------------------------------------------------------------------------

    def set_weight(self, flag: str, weight: int, by: str, key: Any) -> str:
        if weight == 0:
            return self.roll_back_flag(flag, by, key)
        if "enable" not in MAY[by]:
            return "NotPermitted"
        kind = "flag.enabled" if weight == 100 else "flag.weight_set"
        return self._shift([flag], weight, by=by, key=key, kind=kind, subject=flag)

    def enable_week(self, number: int, by: str, key: Any) -> str:
        if "enable" not in MAY[by]:
            return "NotPermitted"
        return self._shift(WEEKS[number], 100, by=by, key=key, kind="week.enabled", subject=f"week {number}")

    def roll_back_week(self, number: int, by: str, key: Any) -> str:
        if "roll back" not in MAY[by]:
            return "NotPermitted"
        return self._shift(WEEKS[number], 0, by=by, key=key, kind="week.rolled_back", subject=f"week {number}")

    def roll_back_flag(self, flag: str, by: str, key: Any, *, trigger: str = "", measured: int | None = None) -> str:
        if by != SYSTEM and "roll back" not in MAY[by]:
            return "NotPermitted"
        row = self.flags[flag]
        if measured is not None and row["weight"] and row["generation"] != measured:
            return "Stale"
        return self._shift([flag], 0, by=by, key=key, kind="flag.rolled_back", subject=flag, trigger=trigger)

    def _shift(
        self,
        flags: list[str],
        weight: int,
        *,
        by: str,
        key: Any,
        kind: str,
        subject: str,
        trigger: str = "",
        rollout: dict[str, Any] | None = None,
        step: int = 0,
        state: str = "",
    ) -> str:
        """`rollout` is the one that makes the move, which is not ended by it."""
        spent = key in self.keys
        number = WEEK_OF[flags[0]]
        moving = [flag for flag in flags if self.flags[flag]["weight"] != weight]
        if not moving:
            return "same"
        if any(self.flags[flag]["weight"] < weight for flag in moving):
            if spent:
                return "Stale"
            if not self.open(number, flags):
                self._event("gate.refused", subject, by)
                self.commit()
                return "GateClosed"
        self.generation += 1
        detail = dict.fromkeys(moving, weight)
        self._event(kind, subject, by, detail, trigger=trigger, step=step, state=state)
        if key is not None and not spent:
            self.keys[key] = (kind, subject, self.generation)
        for flag in moving:
            self.flags[flag] = {"weight": weight, "generation": self.generation, "changed": self.now}
            if (row := self.under_way(flag)) and row is not rollout:
                row["state"] = "ended"
        if rollout is not None:
            rollout |= {"generation": self.generation, "since": self.now, "position": step - 1}
            if state:
                rollout["state"] = state
            if rollout not in self.rollouts:
                self.rollouts.append(rollout)
        weights = {self.flags[flag]["weight"] for flag in WEEKS[number]}
        self.statuses[number] = "soaking" if weights == {100} else "rolled_back" if weights == {0} else "in_progress"
        self.commit()
        return "done"

    def _event(
        self,
        kind: str,
        subject: str,
        by: str,
        weights: dict[str, int] | None = None,
        *,
        trigger: str = "",
        step: int = 0,
        state: str = "",
    ) -> None:
        self.events.append((kind, subject, by, tuple(sorted((weights or {}).items())), trigger, step, state))

    # -- rollouts -------------------------------------------------------------------------------------------------

    def under_way(self, flag: str) -> dict[str, Any] | None:
        rows = [row for row in self.rollouts if row["flag"] == flag and row["state"] in {"running", "paused"}]
        return rows[0] if rows else None

    def start(self, flag: str, by: str, key: Any) -> str:
        if "enable" not in MAY[by]:
            return "NotPermitted"
        row, earlier = self.under_way(flag), self.keys.get(key)
        if row and not (earlier and row["generation"] == earlier[2]):
            return "Invalid"
        weight = self.flags[flag]["weight"]
        steps = STEPS[flag]
        position = row["position"] if row else next((at for at, step in enumerate(steps) if step[0] > weight), None)
        if position is None:
            return "Invalid"
        begun = row or {"flag": flag, "state": "running"}
        return self._shift(
            [flag],
            steps[position][0],
            by=by,
            key=key,
            kind="rollout.started",
            subject=flag,
            rollout=begun,
            step=position + 1,
        )

    def step_to(self, flag: str, position: int, by: str, key: Any, at: int | None = None, *, stay: bool = False) -> str:
        row = self.under_way(flag)
        if row is None:
            return "NotFound"
        down = position < row["position"]
        if by != SYSTEM and ("roll back" if down else "enable") not in MAY[by]:
            return "NotPermitted"
        if at is not None and at != row["position"]:
            return "Stale"
        if not 0 <= position < len(STEPS[flag]):
            return "Invalid"
        weight, state = STEPS[flag][position][0], "paused" if stay else ""
        return self._shift(
            [flag],
            weight,
            by=by,
            key=key,
            kind="rollout.stepped",
            subject=flag,
            rollout=row,
            step=position + 1,
            state=state,
        )

    def back(self, flag: str, by: str, key: Any, at: int | None = None) -> str:
        row = self.under_way(flag)
        if row is None:
            return "NotFound"
        if row["position"] == 0:
            return "Invalid"
        at = row["position"] if at is None else at
        return self.step_to(flag, at - 1, by, key, at, stay=True)

    def pause(self, flag: str, by: str, key: Any, at: int | None = None) -> str:
        if by != SYSTEM and "roll back" not in MAY[by]:
            return "NotPermitted"
        return self._to_state(flag, "paused", by, key, at)

    def resume(self, flag: str, by: str, key: Any) -> str:
        if "enable" not in MAY[by]:
            return "NotPermitted"
        return self._to_state(flag, "running", by, key, None)

    def abort(self, flag: str, by: str, key: Any) -> str:
        return self.roll_back_flag(flag, by, key) if self.under_way(flag) else "NotFound"

    def _to_state(self, flag: str, state: str, by: str, key: Any, at: int | None) -> str:
        row = self.under_way(flag)
        if row is None:
            return "NotFound"
        if row["state"] == state:
            return "same"
        if (at is not None and at != row["position"]) or key in self.keys:
            return "Stale"
        row["state"] = state
        if state == "running":
            row["since"] = self.now
        kind = {"paused": "rollout.paused", "running": "rollout.resumed", "finished": "rollout.finished"}[state]
        self._event(kind, flag, by, step=row["position"] + 1, state=state)
        if key is not None:
            self.keys[key] = (kind, flag, 0)
        self.commit()
        return "done"

    # -- traffic and health ---------------------------------------------------------------------------------------

    def poll(self, ill: set[str]) -> None:
        for service in SERVICE.values():
            self.health[service] = (service not in ill, self.now)
            self.polls.append((service, self.now, service not in ill))

    def count(self, service: str, side: str, *, failed: bool, slow: bool, read: bool) -> None:
        """One request that the gateway meant for this side."""
        down = service in self.proxy.down
        lost = side == "service" and (down or (failed and read and service in FAILS_OVER))
        one = Counted(1, 1) if lost else Counted(1, int(failed), int(not slow), int(slow))
        place = service, side
        self.proxy.counters[place] = self.proxy.counters.get(place, Counted()).plus(one)

    def read_traffic(self) -> None:
        if not self.proxy.up:
            return
        on = {SERVICE[flag] for flag in SERVICE if self.proxy.weight(flag)}
        self.failing_over = on & self.proxy.down & FAILS_OVER
        self.commit()
        totals = {("", "monolith"): Counted()}
        if self.proxy.running:
            totals |= {(name, side): Counted() for name in SERVICE.values() for side in ("service", "monolith")}
        totals |= self.proxy.counters
        known = {service for service, _ in self.read}
        new = []
        for place, now in totals.items():
            if place in self.read:
                new.append((*place, self.read_of[place], self.now, now.since(self.read[place])))
            elif place[0] in known:
                beside = max(at for (service, _), at in self.read_of.items() if service == place[0])
                new.append((*place, beside, self.now, now))
        if self.read_at:
            self._merge(self.read_at - SINGLE, self.now - SINGLE)
        self.samples += [row for row in new if any(row[4].values())]
        self.read |= totals
        self.read_of |= dict.fromkeys(totals, self.now)
        self.read_at = self.now
        self.commit()

    def _merge(self, since: datetime, until: datetime) -> None:
        since, until = (at.replace(second=0, microsecond=0) for at in (since, until))
        kept = [row for row in self.samples if not since <= row[3] < until]
        minutes: dict[tuple[str, str, datetime], list[tuple[datetime, datetime, Counted]]] = {}
        for service, side, begin, at, one in self.samples:
            if since <= at < until:
                minute = at.replace(second=0, microsecond=0)
                minutes.setdefault((service, side, minute), []).append((begin, at, one))
        for (service, side, _), rows in minutes.items():
            whole = Counted()
            for *_, one in rows:
                whole = whole.plus(one)
            kept.append((service, side, min(begin for begin, *_ in rows), max(at for _, at, _ in rows), whole))
        self.samples = kept

    def _between(self, service: str, side: str, since: datetime, begun: datetime) -> Counted:
        """Of readings later than `since`, none of which begins before `begun`."""
        whole = Counted()
        for name, its, begin, at, one in self.samples:
            if (name, its) == (service, side) and since < at <= self.now and begin >= begun:
                whole = whole.plus(one)
        return whole

    def confirmed_at(self, generation: int) -> datetime | None:
        """When the gateway first ran it, or a later one."""
        later = sorted(known for known in self.confirmed if known >= generation)
        return self.confirmed[later[0]] if later else None

    # -- what goes on by itself -----------------------------------------------------------------------------------

    def look(self) -> None:
        """Once a second: read, watch the triggers, move rollouts back, then on; and bring both to the gateway."""
        self.read_traffic()
        fired = self._watch()
        failed, ready = self._look_at_rollouts()
        if fired or failed:
            self.reconcile()
        if [row for row in ready if self._go_on(row)]:
            self.reconcile()

    def _watch(self) -> list[str]:
        looks = []
        for flag, row in self.flags.items():
            confirmed = self.confirmed_at(row["generation"])
            if row["weight"] and confirmed:
                looks += list(self._judge(flag, max(confirmed, row["changed"]), row["generation"]))
        self.commit()
        return [
            trigger["key"] for flag, trigger, generation, due in looks if due and self._fire(flag, trigger, generation)
        ]

    def _judge(self, flag: str, begun: datetime, generation: int) -> Iterator[tuple[str, dict[str, Any], int, bool]]:
        for trigger in TRIGGERS[flag]:
            row = self.triggers.setdefault(
                (flag, trigger["key"]),
                {"fired_for": None, "fired_as": [], "generation": None, "baseline": None},
            )
            if trigger["when"] == "slower" and row["generation"] != generation:
                # What the old side did before the change; where it did too little, what is known of before stays.
                moved = self.flags[flag]["changed"]
                old = self._between(SERVICE[flag], "monolith", moved - trigger["window"], moved)
                if old.requests >= ENOUGH and old.mostly_fast is not None:
                    row["baseline"] = old
            state = self._measure(flag, trigger, begun, row["baseline"])
            row |= {"state": state, "generation": generation}
            due = state == "breached"
            if state == "no_data" and trigger.get("no_data") == "act":
                due = self.now - begun >= trigger["window"]
            yield flag, trigger, generation, due and f"{state} {trigger['do']}" not in self._done(row, generation)

    def _done(self, row: dict[str, Any], generation: int) -> list[str]:
        """What this trigger did at this weight; each thing once."""
        return row["fired_as"] if row["fired_for"] == generation else []

    def _measure(self, flag: str, trigger: dict[str, Any], begun: datetime, baseline: Counted | None) -> str:
        service = SERVICE[flag]
        if trigger["when"] == "health":
            return self._polled(trigger, [row for row in self.polls if row[0] == service and row[1] > begun])
        if trigger["when"] == "failover":
            if self.seen.generation is None or self.seen_at is None or self.now - self.seen_at > LATELY:
                return "no_data"
            return "breached" if service in self.failing_over else "ok"
        since = self.now - trigger["window"]
        oldest = max(begun, min(since, self.now - LONGEST))
        new, old = (self._between(service, side, since, oldest) for side in ("service", "monolith"))
        if trigger["when"] == "errors":
            return self._errors(trigger, new)
        if trigger["when"] == "slow":
            return self._slow(new, None)
        enough = old.requests >= ENOUGH and old.mostly_fast is not None
        return self._slow(new, old if enough else baseline or Counted())

    def _polled(self, trigger: dict[str, Any], polls: list[tuple[str, datetime, bool]]) -> str:
        if not polls or self.now - polls[-1][1] > STALE:
            return "no_data"
        last = [well for *_, well in polls[-trigger["failures"] :]]
        return "breached" if len(last) == trigger["failures"] and not any(last) else "ok"

    def _errors(self, trigger: dict[str, Any], new: Counted) -> str:
        if new.requests < trigger["requests"]:
            return "no_data"
        return "breached" if 100 * new.errors / new.requests > trigger["above"] else "ok"

    def _slow(self, new: Counted, old: Counted | None) -> str:
        """`old`: to be compared with, where the trigger does that."""
        if any(one.requests < ENOUGH or one.mostly_fast is None for one in (new, old) if one):
            return "no_data"
        return "breached" if not new.mostly_fast and (old is None or old.mostly_fast) else "ok"

    def _fire(self, flag: str, trigger: dict[str, Any], generation: int) -> bool:
        """It acts and is marked as having fired in one transaction: killed in between it would tell all of it twice."""
        recording, self.recording = self.recording, False
        row, state = self.under_way(flag), self.triggers[flag, trigger["key"]]
        done, act = self._done(state, generation), trigger["do"]
        if act == "pause" and not (row and row["state"] == "running"):
            act = "tell"
        if f"{state['state']} {act}" in done:
            self.recording = recording
            return False
        if act == "rollback":
            came = self.roll_back_flag(flag, SYSTEM, None, trigger=trigger["key"], measured=generation)
            if came == "Stale":
                self.recording = recording
                return False
        elif act == "pause":
            self.pause(flag, SYSTEM, None)
        else:
            self._event("trigger.fired", flag, SYSTEM, trigger=trigger["key"])
        state |= {"fired_for": generation, "fired_as": [*done, f"{state['state']} {act}"]}
        self.recording = recording
        self.commit()
        return True

    def _look_at_rollouts(self) -> tuple[list[str], list[dict[str, Any]]]:
        """Flags whose step has failed, which is seen to at once; and the rollouts that may go on."""
        moved, may_go_on = [], []
        for row in [row for row in self.rollouts if row["state"] in {"running", "paused"}]:
            failed, ready = self._judge_step(row)
            if failed and self._fail(row):
                moved.append(row["flag"])
            if ready and row["state"] == "running":
                may_go_on.append(row)
        return moved, may_go_on

    def _fail(self, row: dict[str, Any]) -> bool:
        flag = row["flag"]
        if flag in PAUSES:
            return self.pause(flag, SYSTEM, None, row["position"]) == "done"
        return self.roll_back_flag(flag, SYSTEM, None, measured=row["generation"]) == "done"

    def _go_on(self, row: dict[str, Any]) -> bool:
        flag, at = row["flag"], row["position"]
        if at + 1 == len(STEPS[flag]):
            return self._to_state(flag, "finished", SYSTEM, None, at) == "done"
        came = self.step_to(flag, at + 1, SYSTEM, None, at)
        if came == "GateClosed":
            came = self.pause(flag, SYSTEM, None, at)
        return came == "done"

    def _judge_step(self, row: dict[str, Any]) -> tuple[bool, bool]:
        """Whether it has failed, and whether the next step may come."""
        service = SERVICE[row["flag"]]
        _, hold, wanted = STEPS[row["flag"]][row["position"]]
        confirmed = self.confirmed_at(row["generation"])
        since = max(confirmed, row["since"]) if confirmed else None
        new = self._between(service, "service", since, since) if since else Counted()
        enough = new.requests >= ENOUGH
        failed = enough and 100 * new.errors / new.requests > ERROR_RATE
        failed |= enough and row["flag"] in P95 and new.mostly_fast is False
        failed |= self.well(service) is False
        waited = since is not None and self.now - since >= hold and new.requests >= wanted
        runs = self.seen.generation is not None and self.seen.generation >= row["generation"]
        waited &= runs and self.seen.weights[row["flag"]] == self.flags[row["flag"]]["weight"]
        return failed, waited and not failed and self.well(service) is True

    # -- the gateway ----------------------------------------------------------------------------------------------

    def reconcile(self, seen: Seen | None = None) -> None:
        """One pass. `seen`: what the database had of the gateway when an old message was read."""
        known = self.seen if seen is None else seen
        behind = not known.error and (known.generation or 0) < self.generation
        found = Seen(known.generation, known.weights) if behind else self.proxy.observe()
        wanted = table(self.generation, {flag: row["weight"] for flag, row in self.flags.items()})
        other = found.generation == self.generation and table(self.generation, found.weights) != wanted
        repair = found.drift or other if found.generation in {None, self.generation} else False
        came, edited, put_back = "", False, False
        if repair or found.generation != self.generation:
            came, edited = self.proxy.apply(wanted)
            self.commit()
            ran = came in {"ran", "changed"}
            found = Seen(wanted[0], dict(wanted[1])) if ran else self.proxy.observe()
            found.error |= not ran
            put_back = came == "changed" or (came == "written" and not found.drift)
        self.seen, self.seen_at = Seen(found.generation, found.weights, error=found.error), self.now
        if found.generation is not None and not found.error:
            self.confirmed.setdefault(found.generation, self.now)
        self.commit()
        if (repair and put_back) or (came == "changed" and edited):
            self._event("gateway.drift_corrected", "gateway main", SYSTEM, dict(wanted[1]))
            self.commit()
