"""The clock of the host jumps by an hour, forth or back, between any two steps of a week.

What a jump does. Nothing is ordered by time: ids order the audit log and generations the routing tables, so an order
never changes, though a time in the log may be earlier than the one before it. What expires (a sign-off, an approval,
an override) does so an hour early after a jump forth, which only closes gates, and up to an hour late after a jump
back. A soak is over an hour early or late, never by more than the jump. What was seen "in the future", before a jump
back, opens nothing: health is unknown until the next poll, and a click has the checks run anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from migrations_app.actions.approvals import give_approval, request_approval
from migrations_app.actions.prerequisites import tick
from migrations_app.actions.soaks import watch_soaks
from migrations_app.actions.weeks import enable_week, finish_week, roll_back_week
from migrations_app.choices import AuditKind, WeekStatus
from migrations_app.errors import GateClosed
from migrations_app.gates.load import done_verdicts, verdicts
from migrations_app.gates.rows import current_health
from migrations_app.models import ApprovalRequest, AuditEvent, Flag, Plan, Prerequisite, Week
from migrations_app.models.audit import check_chain
from migrations_app.observe.checks import run_checks
from migrations_app.observe.health import PollResult, store
from migrations_app.planfile.reader import read_bytes
from migrations_app.planfile.schema import Plan as PlanFile
from migrations_app.reconcile.loop import reconcile_all
from tests.factories import memory_gateway
from tests.machine.world import OldSide, actor, begin, old_side

START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
SOAK = 3 * HOUR
TEXT = """\
plan: {{key: clock, title: One week}}
gateway: {{key: main, adapter: memory}}
monolith: {{address: "127.0.0.1:{monolith}"}}
services:
  - {{key: alpha, title: A, area: A, owner: T, flag: USE_ALPHA, routes: [/api/alpha], upstream: "127.0.0.1:4001"}}
weeks:
  - number: 1
    title: One
    risk: low
    impact: Little
    planned: {{start: 2026-11-23, end: 2026-11-29}}
    flags: [USE_ALPHA]
    prerequisites:
      - {{key: ready, title: The team is ready, kind: manual, valid_for: 4h}}
      - {{key: answers, title: The old side answers, kind: automatic, check: endpoint_answers,
          parameters: {{target: monolith, path: /ready}}}}
    approvals: {{count: 1, valid_for: 6h}}
    soak: 3h
    done_when: [{{title: Nobody complained, key: calm}}]
"""


class Host:
    """The host's clock, and the true time beside it. Both move on by `pass_`; a jump moves the clock alone."""

    def __init__(self, traveller: time_machine.Coordinates) -> None:
        self._traveller = traveller
        self.shown = self.true = START

    def pass_(self, length: timedelta) -> None:
        self.true += length
        self.jump(length)

    def jump(self, length: timedelta) -> None:
        self.shown += length
        self._traveller.move_to(self.shown)


@pytest.fixture
def side(transactional_db, settings) -> Iterator[OldSide]:
    settings.CELERY_BROKER_URL = ""
    with old_side() as made:
        yield made


@pytest.fixture
def host(side: OldSide) -> Iterator[Host]:
    """The plan is loaded, polled and runs on the gateway; it is noon."""
    document = read_bytes(TEXT.format(monolith=side.port).encode())
    assert isinstance(document, PlanFile), "\n".join(map(str, document))
    with time_machine.travel(START, tick=False) as traveller:
        begin(document)
        made = Host(traveller)
        poll(made)
        assert reconcile_all()[0].error == ""
        yield made


def poll(host: Host, *, healthy: bool = True) -> None:
    """As the worker does every other second."""
    store([PollResult("alpha", host.shown, healthy, 200 if healthy else 503, 1.0, "" if healthy else "answered 503")])
    watch_soaks()


def line(key: str) -> int:
    return Prerequisite.objects.get(key=key).pk


def sign_off(_host: Host) -> None:
    tick(prerequisite_id=line("ready"), actor=actor("mia"))


def ask(_host: Host) -> None:
    request_approval(number=1, actor=actor("mia"))


def approve(_host: Host) -> None:
    give_approval(request_id=ApprovalRequest.objects.get().pk, actor=actor("ada"))


def enable(_host: Host) -> None:
    enable_week(number=1, actor=actor("mia"))


def soak(host: Host) -> None:
    """Polls go on; the true time is looked at every quarter of an hour until the product says that it is over."""
    begun = host.true
    while not done_verdicts(weeks=[1])[1].lines[0].held:
        assert host.true - begun <= SOAK + HOUR + 15 * MINUTE, "it soaks for more than an hour too long"
        host.pass_(15 * MINUTE)
        poll(host)


def call_done(host: Host) -> None:
    soak(host)  # a clock that was put back since takes it back into its soak
    tick(prerequisite_id=line("calm"), actor=actor("mia"))
    finish_week(number=1, actor=actor("mia"))


def roll_back(_host: Host) -> None:
    roll_back_week(number=1, actor=actor("root"))


STEPS: list[Callable[[Host], None]] = [sign_off, ask, approve, enable, soak, call_done, roll_back]
KINDS = [
    AuditKind.PLAN_LOADED,
    AuditKind.PREREQUISITE_TICKED,
    AuditKind.APPROVAL_REQUESTED,
    AuditKind.APPROVAL_GIVEN,
    AuditKind.WEEK_ENABLED,
    AuditKind.PREREQUISITE_TICKED,
    AuditKind.WEEK_DONE,
    AuditKind.WEEK_ROLLED_BACK,
]


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forth", "back"])
@pytest.mark.parametrize("before", range(1, len(STEPS)), ids=lambda place: f"before-{STEPS[place].__name__}")
def test_a_jump_between_two_steps_changes_no_order(host: Host, before: int, jump: timedelta):
    begun_at: dict[str, datetime] = {}
    for place, step in enumerate(STEPS):
        if place == before:
            host.jump(jump)
        host.pass_(MINUTE)
        poll(host)
        on = Flag.objects.get().weight
        open_before = verdicts(weeks=[1])[1].open if step is not enable else checked_now()
        begun_at[step.__name__] = host.true
        step(host)
        if Flag.objects.get().weight > on:
            assert open_before, "enabled, though the gate was closed the moment before"
        assert reconcile_all()[0].error == ""
        seen = memory_gateway().observe()
        assert seen.weights == {"USE_ALPHA": Flag.objects.get().weight}
        assert seen.generation == Plan.objects.get().generation
    events = list(AuditEvent.objects.order_by("pk"))
    assert [event.kind for event in events] == KINDS
    generations = [event.generation for event in events if event.generation]
    assert generations == sorted(set(generations))
    assert check_chain().intact
    assert Week.objects.get().status == WeekStatus.ROLLED_BACK
    # From the enable on in true time; a jump before it does nothing to the soak.
    lasted = begun_at["call_done"] - begun_at["enable"]
    least = SOAK - max(jump, timedelta(0)) if before > STEPS.index(enable) else SOAK
    assert lasted >= least


def checked_now() -> bool:
    """Whether the gate is open, on checks that were run just now."""
    run_checks(week=1)
    return verdicts(weeks=[1])[1].open


def ready(host: Host) -> None:
    for step in (sign_off, ask, approve):
        step(host)
        host.pass_(MINUTE)
    poll(host)


def test_a_check_of_before_the_clock_was_put_back_opens_no_gate(host: Host, side: OldSide):
    ready(host)
    assert checked_now()
    side.state = "not_held"
    host.jump(-HOUR)
    host.pass_(MINUTE)
    poll(host)
    with pytest.raises(GateClosed) as refusal:
        enable_week(number=1, actor=actor("mia"))
    assert [blocking.key for blocking in refusal.value.verdict.blocking] == ["answers"]
    assert Flag.objects.get().weight == 0


def test_health_of_before_the_clock_was_put_back_is_unknown_until_the_next_poll(host: Host):
    host.jump(-HOUR)
    assert current_health()["alpha"][0] == "unknown"
    poll(host)
    assert current_health()["alpha"][0] == "healthy"


def test_hosts_whose_clocks_differ_by_seconds_believe_each_other(host: Host):
    ready(host)
    assert checked_now()
    host.jump(timedelta(seconds=-20))
    assert verdicts(weeks=[1])[1].open


def test_what_expires_ends_an_hour_early_or_late_and_never_by_more(host: Host):
    sign_off(host)
    host.jump(HOUR)
    host.pass_(3 * HOUR - MINUTE)
    assert held("ready")
    host.pass_(MINUTE)
    assert not held("ready")
    sign_off(host)
    host.jump(-HOUR)
    host.pass_(5 * HOUR - MINUTE)
    assert held("ready")
    host.pass_(MINUTE)
    assert not held("ready")


def held(key: str) -> bool:
    return next(one.held for one in verdicts(weeks=[1])[1].lines if one.key == key)


def test_an_unhealthy_spell_after_the_clock_was_put_back_stops_the_soak(host: Host):
    ready(host)
    enable(host)
    host.jump(-HOUR)
    host.pass_(MINUTE)
    poll(host, healthy=False)
    assert Week.objects.get().soak_started_at is None
    host.pass_(MINUTE)
    poll(host)
    assert Week.objects.get().soak_started_at == host.shown
