"""A thousand races of closing a gate against enabling through it, each in two threads with commits of their own.

Whatever closes a gate and whatever passes it stand in one order, that of the audit events' numbers. A week that was
enabled after its gate was closed would be a hole, by a single number. A check result is no audit event: a trigger of
this test gives it a number of the same sequence. A sign-off that expires is closed by the clock: there the moment of
the enable tells.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection, transaction
from django.utils import timezone

from migrations_app.actions.accounts import set_role
from migrations_app.actions.approvals import give_approval, request_approval, withdraw_approval
from migrations_app.actions.change import lock_plan
from migrations_app.actions.freezes import add_freeze
from migrations_app.actions.overrides import end_override, override_gate
from migrations_app.actions.prerequisites import tick, untick
from migrations_app.actions.weeks import enable_week
from migrations_app.choices import AuditKind, CheckState
from migrations_app.errors import ActionError, GateClosed, NotPermitted, PlanConflict, Stale
from migrations_app.gates.target import targets
from migrations_app.models import (
    Approval,
    ApprovalRequest,
    AuditEvent,
    Flag,
    Freeze,
    HealthState,
    Override,
    Prerequisite,
    SignOff,
)
from migrations_app.models.audit import check_chain
from migrations_app.observe.checks import run_checks
from migrations_app.planfile.load import load_plan
from migrations_app.planfile.reader import read_bytes
from migrations_app.planfile.schema import Plan
from migrations_app.roles import Role
from tests.factories import make_healthy
from tests.machine.world import OldSide, actor, begin, old_side

RACES = int(os.environ.get("RACES", "40"))  # of each way; there are ten
TEXT = """\
plan: {{key: races, title: "{title}"}}
gateway: {{key: main, adapter: memory}}
monolith: {{address: "127.0.0.1:{monolith}"}}
services:
  - {{key: alpha, title: A, area: A, owner: T, flag: USE_ALPHA, routes: [/api/alpha], upstream: "127.0.0.1:{alpha}"}}
  - {{key: beta, title: B, area: B, owner: T, flag: USE_BETA, routes: [/api/beta], upstream: "127.0.0.1:4002"}}
  - {{key: gamma, title: C, area: C, owner: T, flag: USE_GAMMA, routes: [/api/gamma], upstream: "127.0.0.1:4003"}}
weeks:
  - number: 1
    title: Held by a person
    risk: low
    impact: Little
    planned: {{start: 2026-11-23, end: 2026-11-29}}
    flags: [USE_ALPHA]
    prerequisites: [{{key: ready, title: The team is ready, kind: manual, valid_for: 4h}}]
    done_when: [It is on.]
  - number: 2
    title: Held by a check
    risk: low
    impact: Little
    planned: {{start: 2026-11-23, end: 2026-11-29}}
    flags: [USE_BETA]
    prerequisites:
      - {{key: answers, title: The old side answers, kind: automatic, check: endpoint_answers,
          parameters: {{target: monolith, path: /ready}}}}
    done_when: [It is on.]
  - number: 3
    title: Held by an approval
    risk: low
    impact: Little
    planned: {{start: 2026-11-23, end: 2026-11-29}}
    flags: [USE_GAMMA]
    approvals: {{count: 1}}
    done_when: [It is on.]
"""
# A result's number, of the audit log's own sequence: taken under the plan's lock, as those of the events are.
NUMBER_RESULTS = """
CREATE TABLE races_result (id bigint, state text);
CREATE FUNCTION races_number() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO races_result
        VALUES (nextval(pg_get_serial_sequence('migrations_app_auditevent', 'id')), NEW.state);
    RETURN NEW;
END $$;
CREATE TRIGGER races_number AFTER INSERT OR UPDATE ON migrations_app_checkresult
    FOR EACH ROW EXECUTE FUNCTION races_number();
"""
NUMBER_RESULTS_NO_MORE = """
DROP TRIGGER races_number ON migrations_app_checkresult;
DROP FUNCTION races_number();
DROP TABLE races_result;
"""
TURN_OFF = """
UPDATE migrations_app_plan SET generation = generation + 1;
UPDATE migrations_app_flag SET weight = 0, generation = (SELECT generation FROM migrations_app_plan) WHERE weight > 0;
UPDATE migrations_app_week SET status = 'rolled_back', soak_started_at = NULL WHERE status = 'soaking';
"""


@dataclass
class Race:
    """One way of closing a gate. `reset` opens it; `close` closes it, and may come too late for that."""

    week: int
    reset: Callable[[], object]
    close: Callable[[], object]
    kind: AuditKind | None  # of the closing's event
    too_late: tuple[type[ActionError], ...] = ()  # how a closing that comes after the enable is refused
    enabled: int = field(default=0, init=False)
    refused: int = field(default=0, init=False)


class Pair:
    """Two threads that live through all races, each with its own connection, and start each race together."""

    def __init__(self) -> None:
        self._together, self._done = threading.Barrier(3), threading.Barrier(3)
        self._works: tuple[tuple[float, Callable[[], object]], ...] | None = None
        self._raised: list[BaseException | None] = [None, None]
        self._threads = [threading.Thread(target=self._run, args=(place,), daemon=True) for place in range(2)]
        for thread in self._threads:
            thread.start()

    def race(self, *works: tuple[float, Callable[[], object]]) -> list[BaseException | None]:
        """Do both pieces of work, each so many seconds after the start. Returns what each raised."""
        self._works, self._raised = works, [None, None]
        self._together.wait(30)
        self._done.wait(30)
        return self._raised

    def close(self) -> None:
        self._works = None
        self._together.wait(30)
        for thread in self._threads:
            thread.join(30)

    def _run(self, place: int) -> None:
        try:
            while True:
                self._together.wait(120)
                if self._works is None:
                    return
                delay, work = self._works[place]
                time.sleep(delay)
                try:
                    work()
                except BaseException as error:  # noqa: BLE001
                    self._raised[place] = error
                self._done.wait(30)
        finally:
            connection.close()


class Course:
    """The plan of these races, opened and closed in every way. `side` is the old side that the check asks."""

    def __init__(self, side: OldSide) -> None:
        self.side = side
        self.ports = count(5001)
        begin(self.document())
        make_healthy()
        self.line = Prerequisite.objects.get(key="ready").pk
        tick(prerequisite_id=self.line, actor=actor("mia"))
        request_approval(number=3, actor=actor("mia"))
        self.request = ApprovalRequest.objects.get().pk
        give_approval(request_id=self.request, actor=actor("ada"))
        self.groups = {group.name: group for group in Group.objects.all()}

    def document(self, *, alpha: int = 4001, title: str = "Races") -> Plan:
        read = read_bytes(TEXT.format(monolith=self.side.port, alpha=alpha, title=title).encode())
        assert isinstance(read, Plan), "\n".join(map(str, read))
        return read

    # -- opening, past every rule: what a race begins with --------------------------------------------------------

    def turn_off(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(TURN_OFF)

    def sign_off(self, *, for_: timedelta = timedelta(hours=4)) -> None:
        """The newest sign-off counts, for so long from now on."""
        newest = SignOff.objects.filter(prerequisite=self.line).order_by("-pk").values_list("pk", flat=True)[:1]
        SignOff.objects.filter(pk__in=list(newest)).update(
            withdrawn_at=None, withdrawn_by="", vouches_for=targets([1])[1], expires_at=timezone.now() + for_
        )

    def hold(self) -> None:
        self.side.state = "held"

    def approve(self) -> None:
        revision = self._revision()
        ApprovalRequest.objects.filter(pk=self.request).update(spent_at=None, closed_at=None, revision=revision)
        Approval.objects.update(withdrawn_at=None)

    def thaw(self) -> None:
        Freeze.objects.all().delete()
        self.sign_off()

    def give(self, name: str, role: Role) -> None:
        User.objects.get(username=name).groups.set([self.groups[role.value]])

    def break_glass(self) -> None:
        SignOff.objects.filter(prerequisite=self.line).update(withdrawn_at=timezone.now())
        if not Override.objects.exists():
            override_gate(number=1, lines=["ready"], minutes=60, actor=actor("root"), reason="it burns")
        Override.objects.update(ended_at=None, ended_by="", expires_at=timezone.now() + timedelta(hours=1))

    def poll(self) -> None:
        """A plan that moves a service has its health forgotten."""
        now = timezone.now()
        HealthState.objects.get_or_create(target="alpha", defaults={"state": "healthy", "since": now, "polled_at": now})
        self.sign_off()

    def _revision(self) -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT revision FROM migrations_app_plan")
            return cursor.fetchone()[0]

    # -- closing, as people and the workers do --------------------------------------------------------------------

    def fail(self) -> None:
        self.side.state = "not_held"
        run_checks(week=2)

    def freeze(self) -> None:
        now = timezone.now()
        add_freeze(title="now", starts_at=now, ends_at=now + timedelta(hours=1), actor=actor("max"))

    def demote(self, name: str) -> None:
        set_role(name=name, role=Role.VIEWER, actor=actor("root"))

    def move_alpha(self) -> None:
        load_plan(self.document(alpha=next(self.ports)), actor=actor("root"))

    def rename(self) -> None:
        load_plan(self.document(title=f"Races {next(self.ports)}"), actor=actor("root"))

    def ways(self) -> dict[str, Race]:
        return {
            "untick": Race(
                1,
                self.sign_off,
                lambda: untick(prerequisite_id=self.line, actor=actor("max")),
                AuditKind.PREREQUISITE_UNTICKED,
            ),
            "failed check": Race(2, self.hold, self.fail, None),
            "freeze": Race(1, self.thaw, self.freeze, AuditKind.FREEZE_ADDED),
            "role of who enables": Race(
                1,
                lambda: (self.sign_off(), self.give("mia", Role.RELEASE_MANAGER)),
                lambda: self.demote("mia"),
                AuditKind.ACCOUNT_ROLE_SET,
            ),
            "role of who approved": Race(
                3,
                lambda: (self.approve(), self.give("ada", Role.APPROVER)),
                lambda: self.demote("ada"),
                AuditKind.ACCOUNT_ROLE_SET,
            ),
            "address in the plan": Race(1, self.poll, self.move_alpha, AuditKind.PLAN_LOADED, (PlanConflict,)),
            "revision of the plan": Race(3, self.approve, self.rename, AuditKind.PLAN_LOADED),
            "approval": Race(
                3,
                self.approve,
                lambda: withdraw_approval(request_id=self.request, actor=actor("ada")),
                AuditKind.APPROVAL_WITHDRAWN,
                (Stale,),
            ),
            "override": Race(
                1,
                self.break_glass,
                lambda: end_override(number=1, actor=actor("root")),
                AuditKind.OVERRIDE_ENDED,
            ),
        }


@pytest.fixture
def course(transactional_db, settings) -> Iterator[Course]:
    settings.HEALTH_STALE_AFTER = 600.0
    settings.CELERY_BROKER_URL = ""
    # A good answer that arrives late must not hide a bad one that was asked for after it.
    with old_side(takes=0.03) as side:
        made = Course(side)
        with connection.cursor() as cursor:
            cursor.execute(NUMBER_RESULTS)
        yield made
        with connection.cursor() as cursor:
            cursor.execute(NUMBER_RESULTS_NO_MORE)


@pytest.fixture
def pair(course) -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def next_number() -> int:
    """Of the sequence that events and results are numbered by: all that comes after has a higher one."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT nextval(pg_get_serial_sequence('migrations_app_auditevent', 'id'))")
        return cursor.fetchone()[0]


def first_number(mark: int, kind: AuditKind) -> int | None:
    return AuditEvent.objects.filter(pk__gt=mark, kind=kind).order_by("pk").values_list("pk", flat=True).first()


def closing_of(race: Race, mark: int) -> int | None:
    """The number at which the gate was closed, if it was."""
    if race.kind is not None:
        return first_number(mark, race.kind)
    with connection.cursor() as cursor:
        cursor.execute("SELECT min(id) FROM races_result WHERE id > %s AND state <> %s", [mark, CheckState.HELD])
        return cursor.fetchone()[0]


class Offsets:
    """Seconds by which each of the two starts late, drawn so that each may come first.

    `closing` and `enabling` are how long they took when nothing ran beside them. On a busy machine that tells little,
    so whoever keeps losing is given more and more of a start.
    """

    def __init__(self, seed: str, *, closing: float, enabling: float) -> None:
        self._order, self._closing, self._enabling = random.Random(seed), closing, enabling

    def draw(self) -> tuple[float, float]:
        late = self._order.uniform(-self._closing, self._enabling)
        return max(late, 0.0), max(-late, 0.0)

    def won(self, *, enabled: bool) -> None:
        change = 0.9 if enabled else 1 / 0.9
        self._enabling = min(self._enabling * change, 1.0)
        self._closing = min(self._closing / change, 1.0)


def time_of(work: Callable[[], object]) -> float:
    """Seconds that it takes, when it works."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def enable(race: Race) -> None:
    enable_week(number=race.week, actor=actor("mia"))


@pytest.mark.parametrize(
    "way",
    [
        "untick",
        "failed check",
        "freeze",
        "role of who enables",
        "role of who approved",
        "address in the plan",
        "revision of the plan",
        "approval",
        "override",
    ],
)
def test_nothing_is_enabled_through_a_gate_that_was_closed_before(course: Course, pair: Pair, way: str):
    race = course.ways()[way]
    alone = {}
    for name, work in {"enabling": lambda: enable(race), "closing": race.close}.items():
        times = []
        for _ in range(3):
            course.turn_off()
            race.reset()
            times.append(time_of(work))
        alone[name] = min(times)
    offsets = Offsets(way, **alone)
    for number in range(RACES):
        course.turn_off()
        race.reset()
        mark = next_number()
        one, two = offsets.draw()
        closing, enabling = pair.race((one, race.close), (two, lambda: enable(race)))
        closed = closing_of(race, mark)
        enabled = (
            AuditEvent.objects.filter(pk__gt=mark, kind=AuditKind.WEEK_ENABLED).values_list("pk", flat=True).first()
        )
        on = set(Flag.objects.filter(week__number=race.week).values_list("weight", flat=True)) == {100}
        assert on == (enabled is not None)
        if enabled is not None:
            assert enabling is None
            assert closed is None or enabled < closed, f"race {number}: enabled at {enabled}, closed at {closed}"
            assert isinstance(closing, race.too_late) if closed is None else closing is None, repr(closing)
            race.enabled += 1
        else:
            assert isinstance(enabling, GateClosed | NotPermitted), repr(enabling)
            assert closing is None, repr(closing)
            assert closed is not None
            race.refused += 1
        offsets.won(enabled=enabled is not None)
    assert check_chain().broken_at is None  # what `turn_off` did stands in no event
    # Both orders were seen, so these were races.
    assert min(race.enabled, race.refused) >= RACES // 20, race


def test_nothing_is_enabled_on_a_sign_off_that_has_expired(course: Course, pair: Pair):
    """It expires while the enable waits for the plan, or looks at the gate."""
    order, seen = random.Random("expiry"), Counter()

    def hold_the_plan(seconds: float) -> None:
        with transaction.atomic():
            lock_plan()
            time.sleep(seconds)

    for number in range(RACES):
        course.turn_off()
        course.sign_off(for_=timedelta(seconds=order.uniform(0.002, 0.04)))
        expires_at = SignOff.objects.get(prerequisite=course.line, withdrawn_at=None).expires_at
        mark = next_number()
        held, late = order.uniform(0, 0.02), order.uniform(0, 0.01)
        blocked, enabling = pair.race(
            (0.0, lambda held=held: hold_the_plan(held)), (late, lambda: enable_week(number=1, actor=actor("mia")))
        )
        assert blocked is None
        event = AuditEvent.objects.filter(pk__gt=mark, kind=AuditKind.WEEK_ENABLED).first()
        assert Flag.objects.get(key="USE_ALPHA").weight == (100 if event else 0)
        if event:
            assert event.at < expires_at, f"race {number}: {(event.at - expires_at).total_seconds() * 1000:.2f} ms late"
            seen["enabled"] += 1
        else:
            assert isinstance(enabling, GateClosed), repr(enabling)
            refused = AuditEvent.objects.get(pk__gt=mark, kind=AuditKind.ENABLE_REFUSED)
            assert refused.at >= expires_at
            seen["refused"] += 1
    assert check_chain().broken_at is None  # what `turn_off` did stands in no event
    assert min(seen["enabled"], seen["refused"]) >= RACES // 20, seen
