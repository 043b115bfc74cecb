"""What the product must do, told a second time: plain Python, dicts, and nothing of the product's own code.

Everything that a person or the world may do is a method. It returns what must come of it, `done`, `same` (nothing had
to change) or the name of the refusal, and moves the model on. `gate` and `done_gate` tell which lines hold.
"""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
STALE = timedelta(minutes=20)  # after which a poll, or a check, tells nothing
CLOCKS_DIFFER = timedelta(seconds=1)

WEEKS: dict[int, dict[str, Any]] = {
    1: {
        "flags": ["USE_ALPHA"],
        "after": [],
        "manual": {"ready": 2 * HOUR},
        "checked": [],
        "approvals": 0,
        "soak": 3 * HOUR,
        "done": ["calm"],
        "done_checked": [],
    },
    2: {
        "flags": ["USE_BETA", "USE_GAMMA"],
        "after": [1],
        "manual": {"standby": 4 * HOUR, "told": None},
        "checked": ["answers"],
        "approvals": 2,
        "soak": HOUR,
        "done": [],
        "done_checked": ["still-answers"],
    },
    3: {
        "flags": [],
        "after": [2],
        "manual": {},
        "checked": [],
        "approvals": 1,
        "soak": timedelta(0),
        "done": ["off"],
        "done_checked": [],
    },
}
SERVICE = {"USE_ALPHA": "alpha", "USE_BETA": "beta", "USE_GAMMA": "gamma"}
WEEK_OF = {flag: number for number, week in WEEKS.items() for flag in week["flags"]}
WEEK_OF_LINE = {
    key: number
    for number, week in WEEKS.items()
    for key in [*week["manual"], *week["checked"], *week["done"], *week["done_checked"]]
}
HIGH_RISK = {2}
APPROVAL_LASTS = 6 * HOUR
MAY = {
    "release manager": {"tick", "enable", "finish", "freeze", "roll back"},
    "approver": {"tick", "approve", "roll back"},
    "administrator": {"freeze", "override", "load", "accounts", "roll back"},
    "viewer": set(),
}


class Model:
    """`now` is moved from outside. `roles`: account -> role."""

    def __init__(self, now: datetime, roles: dict[str, str]) -> None:
        self.now = now
        self.roles = dict(roles)
        self.generation = 1
        self.revision = 1
        self.weights = dict.fromkeys(SERVICE, 0)
        self.passed = dict.fromkeys(SERVICE, 0)  # the highest weight that an open gate has let through
        self.weeks: dict[int, dict[str, Any]] = {
            number: {"status": "planned", "started": False, "soak_from": None} for number in WEEKS
        }
        self.signed: dict[str, dict[str, Any]] = {}  # line -> the live sign-off
        self.requests: list[dict[str, Any]] = []
        self.freezes: dict[int, dict[str, Any]] = {}
        self.overrides: dict[int, dict[str, Any]] = {}
        self.results: dict[str, dict[str, Any]] = {}  # checked line -> what was found, and when
        self.world = "held"  # what a check would find now
        self.health: dict[str, dict[str, Any]] = {}  # service -> the state that was seen last, and when
        self.ill: set[str] = set()  # services that would answer a poll badly
        self.failed: list[tuple[str, datetime]] = []  # polls
        self.plan = {"title": "A plan to be played with", "alpha": 4001, "alpha_route": "/api/alpha", "beta": 4002}

    # -- what holds ---------------------------------------------------------------------------------------------

    def gate(self, number: int, flags: list[str] | None = None, weight: int = 100) -> dict[str, bool]:
        """Line -> whether it holds. An override changes nothing here; see `blocking`."""
        week = WEEKS[number]
        flags = week["flags"] if flags is None else flags
        lines = {key: self._signed(key) for key in week["manual"]}
        lines |= {key: self._found(key) for key in week["checked"]}
        if number == 3:
            lines["all-on"] = all(weight == 100 for weight in self.weights.values())
        lines |= {f"after-{before}": self._soaked(before) for before in week["after"]}
        if week["approvals"]:
            lines["approval"] = self._approved(number, flags, weight)
        lines |= {f"freeze-{key}": False for key in self.freezes if self._frozen(key)}
        return lines | {f"health-{SERVICE[flag]}": self._well(SERVICE[flag]) for flag in flags}

    def done_gate(self, number: int) -> dict[str, bool]:
        week = WEEKS[number]
        lines = {"soak": self._soaked(number)} | {key: self._signed(key) for key in week["done"]}
        lines |= {key: self._found(key) for key in week["done_checked"]}
        return lines | {f"health-{SERVICE[flag]}": self._well(SERVICE[flag]) for flag in week["flags"]}

    def blocking(self, number: int, flags: list[str] | None = None, weight: int = 100) -> set[str]:
        lines = self.gate(number, flags, weight)
        return {key for key, held in lines.items() if not held} - self.broken_glass(number)

    def broken_glass(self, number: int) -> set[str]:
        """The lines that an override lets through."""
        override = self.overrides.get(number)
        return set(override["lines"]) if override and self.now < override["ends"] else set()

    def _signed(self, key: str) -> bool:
        signed = self.signed.get(key)
        return signed is not None and (signed["ends"] is None or self.now < signed["ends"])

    def _found(self, key: str) -> bool:
        found = self.results.get(key)
        return found is not None and found["state"] == "held" and self.now - found["at"] <= STALE

    def _soaked(self, number: int) -> bool:
        week = self.weeks[number]
        if week["status"] == "done":
            return True
        return week["soak_from"] is not None and week["soak_from"] + WEEKS[number]["soak"] <= self.now

    def _approved(self, number: int, flags: list[str], weight: int) -> bool:
        return any(
            not request["over"] and self._good(request) and len(self._approvers(request)) >= WEEKS[number]["approvals"]
            for request in self.requests
            if (request["week"], request["flags"], weight) == (number, sorted(flags), 100)
        )

    def _approvers(self, request: dict[str, Any]) -> set[str]:
        return {
            name
            for name, answer in request["answers"].items()
            if answer == "given" and self.roles[name] == "approver" and name != request["by"]
        }

    def _good(self, request: dict[str, Any]) -> bool:
        return request["revision"] == self.revision and self.now < request["ends"]

    def _frozen(self, key: int) -> bool:
        freeze = self.freezes[key]
        if freeze["lifted"]:
            return False
        if "ends" in freeze:
            return freeze["starts"] <= self.now < freeze["ends"]
        local = self.now.astimezone(ZoneInfo("Europe/Berlin"))
        clock, today = local.time(), local.isoweekday()
        yesterday = (today - 2) % 7 + 1
        days, begin, end = freeze["days"], freeze["from"], freeze["until"]
        if begin < end:
            return today in days and begin <= clock < end
        return (today in days and clock >= begin) or (yesterday in days and clock < end)

    def _well(self, service: str) -> bool:
        seen = self.health.get(service)
        return seen is not None and seen["well"] and self.now - seen["at"] <= STALE

    # -- what the world does --------------------------------------------------------------------------------------

    def poll(self) -> None:
        for service in SERVICE.values():
            well = service not in self.ill
            self.health[service] = {"well": well, "at": self.now}
            if not well:
                self.failed.append((service, self.now))

    def watch(self) -> None:
        """The soak clocks look at the polls."""
        for number, week in self.weeks.items():
            if week["status"] != "soaking":
                continue
            services = [SERVICE[flag] for flag in WEEKS[number]["flags"]]
            bad = any(service in self.health and not self.health[service]["well"] for service in services)
            if week["soak_from"] is None:
                if all(service in self.health and self.health[service]["well"] for service in services):
                    week["soak_from"] = self.now
            elif bad:
                week["soak_from"] = None
            elif any(
                service in services and week["soak_from"] + CLOCKS_DIFFER < at <= self.now
                for service, at in self.failed
            ):
                week["soak_from"] = self.now

    def check(self, number: int | None, phase: str | None = None) -> None:
        """The checks of a week, or of all, are run and find the world as it is."""
        for each, week in WEEKS.items():
            if number in (None, each):
                keys = week["checked"] if phase != "done" else []
                keys = [*keys, *(week["done_checked"] if phase != "start" else [])]
                self.results |= {key: {"state": self.world, "at": self.now} for key in keys}

    # -- what people do -------------------------------------------------------------------------------------------

    def tick(self, key: str, by: str) -> str:
        if "tick" not in MAY[self.roles[by]]:
            return "NotPermitted"
        if self._signed(key):
            return "same"
        lasts = WEEKS[WEEK_OF_LINE[key]]["manual"].get(key)
        self.signed[key] = {"by": by, "ends": lasts and self.now + lasts}
        return "done"

    def untick(self, key: str, by: str) -> str:
        if "tick" not in MAY[self.roles[by]]:
            return "NotPermitted"
        return "done" if self.signed.pop(key, None) else "same"

    def ask(self, number: int, flags: list[str] | None, by: str) -> str:
        if "enable" not in MAY[self.roles[by]]:
            return "NotPermitted"
        if not WEEKS[number]["approvals"]:
            return "Invalid"
        flags = sorted(WEEKS[number]["flags"] if flags is None else flags)
        for request in self.requests:
            if (request["week"], request["flags"], request["over"]) == (number, flags, ""):
                if self._good(request):
                    return "same"
                request["over"] = "replaced"
        self.requests.append(
            {
                "week": number,
                "flags": flags,
                "by": by,
                "ends": self.now + APPROVAL_LASTS,
                "revision": self.revision,
                "answers": {},
                "answered": set(),  # who ever has, also when it was taken back
                "over": "",
            }
        )
        return "done"

    def give(self, request: dict[str, Any], by: str) -> str:
        if "approve" not in MAY[self.roles[by]] or by == request["by"]:
            return "NotPermitted"
        if request["over"] or not self._good(request):
            return "Stale"
        if by in request["answers"]:
            return "same"
        request["answers"][by] = "given"
        request["answered"].add(by)
        return "done"

    def decline(self, request: dict[str, Any], by: str, reason: str) -> str:
        if "approve" not in MAY[self.roles[by]] or by == request["by"]:
            return "NotPermitted"
        if not reason:
            return "Invalid"
        if request["answers"].get(by) == "declined":
            return "same"
        if request["over"]:
            return "Stale"
        request["answers"][by] = "declined"
        request["answered"].add(by)
        request["over"] = "declined"
        return "done"

    def withdraw(self, request: dict[str, Any], by: str) -> str:
        if by == request["by"]:
            if request["over"]:
                return "same" if request["over"] == "withdrawn" else "Stale"
            request["over"] = "withdrawn"
            return "done"
        if by not in request["answered"]:
            return "NotPermitted"
        if by not in request["answers"]:
            return "same"
        if request["over"]:
            return "Stale"
        del request["answers"][by]
        return "done"

    def freeze_once(self, starts: datetime, ends: datetime, by: str) -> tuple[str, dict[str, Any]]:
        """What comes of it, and the freeze, to be kept under the number that the product gives it."""
        row = {"starts": starts, "ends": ends, "lifted": False}
        if "freeze" not in MAY[self.roles[by]]:
            return "NotPermitted", row
        return ("Invalid" if ends <= self.now else "done"), row

    def freeze_weekly(self, days: str, begin: time, end: time, by: str) -> tuple[str, dict[str, Any]]:
        row = {"days": {int(day) for day in days}, "from": begin, "until": end, "lifted": False}
        return ("done" if "freeze" in MAY[self.roles[by]] else "NotPermitted"), row

    def lift(self, key: int, by: str) -> str:
        if "freeze" not in MAY[self.roles[by]]:
            return "NotPermitted"
        freeze = self.freezes[key]
        if freeze["lifted"] or ("ends" in freeze and freeze["ends"] <= self.now):
            return "same"
        freeze["lifted"] = True
        return "done"

    def override(self, number: int, lines: set[str], minutes: int, by: str) -> str:
        if "override" not in MAY[self.roles[by]]:
            return "NotPermitted"
        closed = {key for key, held in self.gate(number).items() if not held}
        if not lines or not lines <= closed:
            return "Invalid"
        self.overrides[number] = {"lines": lines, "ends": self.now + minutes * MINUTE}
        return "done"

    def end_override(self, number: int, by: str) -> str:
        if "override" not in MAY[self.roles[by]]:
            return "NotPermitted"
        ended = self.overrides.pop(number, None)
        return "done" if ended and self.now < ended["ends"] else "same"

    def set_role(self, name: str, role: str) -> str:
        same = self.roles[name] == role
        self.roles[name] = role
        return "same" if same else "done"

    def load(self, **changes: Any) -> str:
        """Another title, address or route. What carries traffic stays where it is."""
        changes = {key: value for key, value in changes.items() if self.plan[key] != value}
        if not changes:
            return "same"
        moved = {"alpha": "USE_ALPHA", "alpha_route": "USE_ALPHA", "beta": "USE_BETA"}
        flags = {moved[key] for key in changes if key in moved}
        if any(self.weights[flag] > 0 for flag in flags):
            return "PlanConflict"
        self.plan |= changes
        self.revision += 1
        for number in {WEEK_OF[flag] for flag in flags}:
            # What people have vouched for is another week now, also should it be changed back.
            for key in [key for key in self.signed if WEEK_OF_LINE[key] == number]:
                del self.signed[key]
            self.overrides.pop(number, None)
        for key in changes.keys() & {"alpha", "beta"}:
            self.health.pop(key, None)
        if flags:
            self.generation += 1
            self.results.clear()
        return "done"

    def enable_week(self, number: int, by: str, reason: str) -> str:
        if "enable" not in MAY[self.roles[by]]:
            return "NotPermitted"
        if number == 3:
            return self._start(by)
        return self._shift(number, WEEKS[number]["flags"], 100, reason)

    def set_weight(self, flag: str, weight: int, by: str, reason: str) -> str:
        if weight == 0:
            return self.roll_back([flag], by)
        if "enable" not in MAY[self.roles[by]]:
            return "NotPermitted"
        return self._shift(WEEK_OF[flag], [flag], weight, reason)

    def roll_back(self, flags: list[str], by: str) -> str:
        if "roll back" not in MAY[self.roles[by]]:
            return "NotPermitted"
        on = [flag for flag in flags if self.weights[flag] > 0]
        return self._move(WEEK_OF[on[0]], on, 0) if on else "same"

    def finish(self, number: int, by: str) -> str:
        if "finish" not in MAY[self.roles[by]]:
            return "NotPermitted"
        week = self.weeks[number]
        if week["status"] == "done":
            return "same"
        self.check(number, "done")
        if not all(self.done_gate(number).values()):
            return "GateClosed"
        week["status"] = "done"
        return "done"

    def _start(self, by: str) -> str:
        week = self.weeks[3]
        if week["status"] != "planned":
            return "same"
        if self.blocking(3):
            return "GateClosed"
        self._spend(3, [])
        week |= {"status": "soaking", "started": True, "soak_from": self.now}
        return "done"

    def _shift(self, number: int, flags: list[str], weight: int, reason: str) -> str:
        moving = [flag for flag in flags if self.weights[flag] != weight]
        if not moving:
            return "same"
        if any(self.weights[flag] < weight for flag in moving):
            self.check(number, "start")  # a gate is judged on checks that were run for the click
            if self.blocking(number, flags, weight):
                return "GateClosed"
            if number in HIGH_RISK and not reason:
                return "Invalid"
            if WEEKS[number]["approvals"] and weight == 100:
                self._spend(number, flags)
            self.passed |= {flag: max(self.passed[flag], weight) for flag in moving}
        return self._move(number, moving, weight)

    def _spend(self, number: int, flags: list[str]) -> None:
        for request in self.requests:
            if (request["week"], request["flags"], request["over"]) == (number, sorted(flags), ""):
                request["over"] = "spent"

    def _move(self, number: int, flags: list[str], weight: int) -> str:
        self.weights |= dict.fromkeys(flags, weight)
        self.generation += 1
        weights = {self.weights[flag] for flag in WEEKS[number]["flags"]}
        status = "soaking" if weights == {100} else "rolled_back" if weights == {0} else "in_progress"
        soak_from = self.now if status == "soaking" else None
        self.weeks[number] |= {"status": status, "started": True, "soak_from": soak_from}
        return "done"
