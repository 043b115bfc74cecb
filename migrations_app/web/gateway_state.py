"""What is known of the gateways, against what is asked of them; and how old that knowledge is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from migrations_app.gateways.base import MONOLITH_WEIGHT, Pin
from migrations_app.models import Flag, Gateway, Plan

OLD_AFTER = timedelta(seconds=5)  # the loop looks every second; older than this, nobody looks any more
APPLYING_FOR = timedelta(seconds=5)  # how long a change may be on its way before it counts as not applied


@dataclass(frozen=True, slots=True)
class GatewayState:
    """`word` and `icon` say it in short, `why` in a sentence; `loud` asks for somebody to act."""

    word: str
    icon: str
    why: str
    loud: bool
    asked: int
    runs: int | None
    seen_at: datetime | None


def state_of(plan: Plan, gateways: list[Gateway], now: datetime | None = None) -> GatewayState:
    """The worst of all gateways of the plan."""
    now = now or timezone.now()
    states = [_state(plan, row, now) for row in gateways]
    if not states:
        return GatewayState("no gateway", "cross", "The plan names no gateway.", True, plan.generation, None, None)
    return max(states, key=lambda state: (state.loud, state.icon != "check"))


def _state(plan: Plan, row: Gateway, now: datetime) -> GatewayState:
    def say(word: str, icon: str, why: str, *, loud: bool) -> GatewayState:
        return GatewayState(word, icon, why, loud, plan.generation, row.observed_generation, row.observed_at)

    if row.observed_at is None:
        return say("not seen yet", "clock", "No worker has looked at the gateway yet.", loud=False)
    age = now - row.observed_at
    if age > OLD_AFTER:
        why = "The workers that look every second have stopped or cannot keep up."
        return say(f"state is {words_of(age)} old", "clock", why, loud=True)
    if row.observed_generation is None:
        return say("does not answer", "cross", row.error or "The gateway does not answer.", loud=True)
    if row.error:
        return say("refused a change", "cross", row.error, loud=True)
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
    error = next((row.error for row in gateways if row.error), "")
    if pin := next((pin for row in gateways if (pin := row.pin_of(flag.key))), None):
        return FlagState("pinned to the old side", "pin", _pinned(pin, runs, error), True, runs, pinned=True)
    if gateways and len(seen) == len(gateways) and all(row.runs(flag) for row in seen):
        oldest = min((row.observed_at for row in seen if row.observed_at), default=None)
        if oldest is None or now - oldest > OLD_AFTER:
            age = words_of(now - oldest) if oldest else "a while"
            return FlagState("applied when last seen", "clock", f"That was {age} ago.", True, runs)
        if away := next((why for row in seen if (why := row.failing_over.get(flag.service.key))), ""):
            return FlagState("failing over", "warn", f"The monolith answers in its place: {away}.", True, runs)
        return FlagState("applied", "check", "", False, runs)
    if not error and flag.changed_at and now - flag.changed_at < APPLYING_FOR:
        return FlagState("applying", "clock", "", False, runs)
    why = error or ("The gateway has not been seen yet." if not seen else "The gateway has not taken it yet.")
    return FlagState("not applied", "cross", why, True, runs)


def _pinned(pin: Pin, runs: int | None, error: str) -> str:
    by = f"By {pin.by or 'somebody'}"
    since = f" since {pin.at:%Y-%m-%d %H:%M} UTC" if pin.at else ""
    said = f"{by}{since}{f': {pin.why}' if pin.why else ''}".rstrip(".")
    still = "" if runs in {MONOLITH_WEIGHT, None} else f" The gateway still runs {runs} %."
    return f"{said}.{still}{f' {error}' if error else ''}"


def words_of(age: timedelta) -> str:
    """A length of time, short: 12 s, 4 min, 3 h, 2 days."""
    seconds = max(int(age.total_seconds()), 0)
    for size, unit in ((86400, "day"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size or (seconds >= size and seconds % size == 0):
            count = seconds // size
            return f"{count} {unit}{'s' if unit == 'day' and count != 1 else ''}"
    return f"{seconds} s"
