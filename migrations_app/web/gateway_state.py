"""What is known of the gateways, against what is asked of them; and how old that knowledge is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.utils import timezone

from migrations_app.gateways.base import MONOLITH_WEIGHT, Pin
from migrations_app.models import Flag, Gateway, Plan
from migrations_app.models.gateways import SEEN_FOR

APPLYING_FOR = timedelta(seconds=5)  # how long a change may be on its way before it counts as not applied


@dataclass(frozen=True, slots=True)
class GatewayState:
    """`word` and `icon` say it in short, `why` in a sentence; `loud` asks for somebody to act.

    Of several gateways it is the worst of them, and how many are in step.
    """

    word: str
    icon: str
    why: str
    loud: bool
    asked: int
    runs: int | None
    seen_at: datetime | None


def state_of(plan: Plan, gateways: list[Gateway], now: datetime | None = None) -> GatewayState:
    """Of all gateways of the plan."""
    now = now or timezone.now()
    states = [(row, state_of_one(plan, row, now)) for row in gateways]
    if not states:
        return GatewayState("no gateway", "cross", "The plan names no gateway.", True, plan.generation, None, None)
    row, worst = max(states, key=lambda pair: (pair[1].loud, pair[1].icon != "check"))
    if len(states) == 1:
        return worst
    well = sum(state.icon == "check" for _, state in states)
    if well == len(states):
        word, why = f"all {well} in step", f"They run generation {plan.generation}."
    else:
        others = [f"{one.key} {state.word}" for one, state in states if one is not row and state.icon != "check"]
        word = f"{row.key} {worst.word}, {well} of {len(states)} in step"
        why = f"{worst.why} Also: {', '.join(others)}." if others else worst.why
    return replace(worst, word=word, why=why)


def state_of_one(plan: Plan, row: Gateway, now: datetime) -> GatewayState:
    def say(word: str, icon: str, why: str, *, loud: bool) -> GatewayState:
        return GatewayState(word, icon, why, loud, plan.generation, row.observed_generation, row.observed_at)

    if row.observed_at is None:
        return say("not seen yet", "clock", "No worker has looked at the gateway yet.", loud=False)
    age = now - row.observed_at
    if age > SEEN_FOR:
        why = "The workers that look every second have stopped or cannot keep up."
        return say(f"state is {words_of(age)} old", "clock", why, loud=True)
    if row.observed_generation is None:
        return say("does not answer", "cross", row.error or "The gateway does not answer.", loud=True)
    if row.error:
        return say("not in step", "cross", row.error, loud=True)
    if row.pins:
        return say(*_some_pinned(sorted(pin["flag"] for pin in row.pins)), loud=True)
    return say(*_generations(plan, row.observed_generation), loud=False)


def _some_pinned(flags: list[str]) -> tuple[str, str, str]:
    word = f"{len(flags)} flag{'' if len(flags) == 1 else 's'} pinned"
    return word, "pin", f"{', '.join(flags)}: on the old side until somebody lifts the pin."


def _generations(plan: Plan, runs: int) -> tuple[str, str, str]:
    if runs < plan.generation:
        return "applying", "clock", f"It still runs generation {runs}."
    return "in step", "check", f"It runs generation {runs}."


@dataclass(frozen=True, slots=True)
class FlagState:
    """Whether the gateway runs what is asked of one flag. `runs` is a weight in per cent, None when nobody knows.

    `pinned`: a gateway holds it on the old side, whatever is asked.
    """

    word: str
    icon: str
    why: str
    loud: bool
    runs: int | None
    pinned: bool = False


def flag_state(flag: Flag, gateways: list[Gateway], now: datetime | None = None) -> FlagState:
    """Applied only when every gateway itself says so, lately."""
    now = now or timezone.now()
    seen = [row for row in gateways if row.observed_generation is not None]
    weights = {row.observed_weights.get(flag.key) for row in seen}
    runs = next(iter(weights)) if len(weights) == 1 else None
    missing = [row for row in gateways if not row.runs(flag)]
    if pin := next((pin for row in gateways if (pin := row.pin_of(flag.key))), None):
        error = next((row.error for row in gateways if row.error), "")
        return FlagState("pinned to the old side", "pin", _pinned(pin, runs, error), True, runs, pinned=True)
    if gateways and not missing:
        return _applied(flag, gateways, runs, now)
    error = next((row.error for row in missing if row.error), "")
    if not error and flag.changed_at and now - flag.changed_at < APPLYING_FOR:
        return FlagState("applying", "clock", "", False, runs)
    if len(missing) < len(gateways):
        word = f"applied on {len(gateways) - len(missing)} of {len(gateways)}"
        return FlagState(word, "cross", f"Not on {' '.join(map(_why_not, missing))}", True, runs)
    why = error or ("The gateway has not been seen yet." if not seen else "The gateway has not taken it yet.")
    return FlagState("not applied", "cross", why, True, runs)


def _pinned(pin: Pin, runs: int | None, error: str) -> str:
    said = pin.words()
    still = "" if runs in {MONOLITH_WEIGHT, None} else f" The gateway still runs {runs} %."
    return f"{said[:1].upper()}{said[1:]}.{still}{f' {error}' if error else ''}"


def _applied(flag: Flag, gateways: list[Gateway], runs: int | None, now: datetime) -> FlagState:
    """Every gateway runs it by its own word, which may be an old one."""
    old = [row for row in gateways if row.observed_at is None or now - row.observed_at > SEEN_FOR]
    if old:
        return _applied_when_last_seen(old, gateways, runs, now)
    if away := _failing_over(flag, gateways):
        return FlagState("failing over", "warn", f"The monolith answers in its place: {away}.", True, runs)
    return FlagState("applied", "check", "", False, runs)


def _applied_when_last_seen(old: list[Gateway], gateways: list[Gateway], runs: int | None, now: datetime) -> FlagState:
    oldest = min((row.observed_at for row in old if row.observed_at is not None), default=None)
    age = words_of(now - oldest) if oldest else "a while"
    where = f"{', '.join(row.key for row in old)} was last seen {age} ago." if len(gateways) > 1 else ""
    return FlagState("applied when last seen", "clock", where or f"That was {age} ago.", True, runs)


def _failing_over(flag: Flag, gateways: list[Gateway]) -> str:
    """Why the monolith answers in its place, and on which of several gateways; "" when it does on none."""
    away = [(row.key, why) for row in gateways if (why := row.failing_over.get(flag.service.key))]
    if not away:
        return ""
    return f"{away[0][1]} (on {', '.join(key for key, _ in away)})" if len(gateways) > 1 else away[0][1]


def _why_not(row: Gateway) -> str:
    """`gw-3: why.`"""
    why = row.error or ("it has not been seen yet" if row.observed_generation is None else "it has not taken it yet")
    return f"{row.key}: {why.removesuffix('.')}."


def words_of(age: timedelta) -> str:
    """A length of time, short: 12 s, 4 min, 3 h, 2 days."""
    seconds = max(int(age.total_seconds()), 0)
    for size, unit in ((86400, "day"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size or (seconds >= size and seconds % size == 0):
            count = seconds // size
            return f"{count} {unit}{'s' if unit == 'day' and count != 1 else ''}"
    return f"{seconds} s"
