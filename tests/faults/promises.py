"""The promises of the design, held against the whole system from outside, whatever fault it has just been through.

Nothing here asks the product whether all is well: what it stored is compared with what Envoy answers, with the audit
log told again from its beginning, with what a person was told, and with what clients of the gateway got.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime, timedelta
from http import HTTPStatus

from migrations_app.choices import AuditKind
from migrations_app.models import AuditEvent, Confirmation, Flag, Gateway, Plan, Service
from migrations_app.models.audit import MOVES, ROLLBACKS, check_chain
from migrations_app.reconcile.adapters import adapter_for
from tests.faults.load import Failure, Load
from tests.faults.system import Click, System
from tests.gateways.estate import Envoy

# 2 s of waiting for the gateway's word. The page of the answer comes on top, on a machine that runs other tests too.
SAID_WITHIN = 5.0


def hold(
    system: System,
    *,
    clicks: Collection[Click] = (),
    load: Load | None = None,
    lost: int = 0,
    explained: Callable[[Failure], bool] = lambda _: False,
    down: Collection[str] = (),
    within: float = SAID_WITHIN,
    envoys: Mapping[str, Envoy] | None = None,
) -> None:
    """All six, once what was away is back and a pass has been made.

    `clicks`: what was sent to the web process. `load`: the clients, of whose requests at most `lost` may have failed,
    each of them `explained` by the fault itself. `down`: the services that are still away, for which the monolith may
    answer. `within`: seconds in which a rollback is answered, where the fault allows no better. `envoys`: by key, where
    there are more than the system's own.
    """
    envoys = envoys or {"main": system.envoy}
    assert set(Gateway.objects.values_list("key", flat=True)) == set(envoys)
    for key, envoy in envoys.items():
        what_is_called_applied_runs(Gateway.objects.get(key=key), envoy, down=down)
    every_change_is_kept_once_and_in_order()
    every_rollback_was_confirmed_or_said_not_to_be(clicks, within)
    if load is not None:
        no_request_was_lost(load, lost=lost, explained=explained)
        no_older_table_ran(load)


def what_is_called_applied_runs(gateway: Gateway, envoy: Envoy, *, down: Collection[str] = ()) -> None:
    """1: the generation, each weight, the files, and who answers what is read and what is written below each prefix."""
    plan, status = Plan.objects.get(), envoy.ask("/routing-status").json()
    desired = dict(Flag.objects.values_list("key", "weight"))
    assert gateway.error == ""
    assert status["generation"] == gateway.observed_generation == plan.generation
    assert status["weights"] == gateway.observed_weights == desired
    seen = adapter_for(gateway).observe()
    assert (seen.generation, seen.drift, seen.error) == (plan.generation, (), "")
    for service in Service.objects.select_related("flag").prefetch_related("routes"):
        new = {service.key} | ({"monolith"} if service.key in down else set())
        weight = service.flag.weight
        allowed = {0: {"monolith"}, 100: new}.get(weight, new | {"monolith"})
        for route in service.routes.all():
            assert envoy.ask(f"{route.prefix}/1").who in allowed, (route.prefix, weight)
            if service.key not in down:
                assert envoy.ask(f"{route.prefix}/1", method="POST", body=b"x").who in allowed, (route.prefix, weight)


def every_change_is_kept_once_and_in_order() -> None:
    """2, 3 and 6: the log, told again from its beginning, ends where the database is; nothing in it was altered."""
    for _ in replayed():
        pass
    for gateway in Gateway.objects.all():
        found = Confirmation.objects.filter(gateway=gateway).order_by("confirmed_at", "pk")
        moments = list(found.values_list("generation", flat=True))
        assert moments == sorted(set(moments)), "the gateway has confirmed an older table after a newer one"
        assert not moments or moments[-1] <= Plan.objects.get().generation


def replayed() -> Iterator[tuple[AuditEvent, frozenset[str]]]:
    """Every event, the oldest first, with the flags that it raised.

    Each change begins where the one before ended, takes a higher generation and changes something; what rises has an
    open gate in its event; at the end the flags are where the last change left them; the chain is whole.
    """
    chain = check_chain()
    assert (chain.broken_at, chain.rows) == (None, AuditEvent.objects.count())
    weights, generation, last = dict.fromkeys(Flag.objects.values_list("key", flat=True), 0), 0, None
    for event in AuditEvent.objects.order_by("pk"):
        raised: frozenset[str] = frozenset()
        if event.kind == AuditKind.PLAN_LOADED and event.generation is not None:
            assert event.generation > generation or last is None
            generation = event.generation
        if event.kind in MOVES:
            to = {key: weight for key, weight in event.after.items() if key in weights}
            assert event.generation > generation, f"event {event.pk} does not come after the one before it"
            assert event.actor, event.pk
            assert event.before == {key: weights[key] for key in to}, f"event {event.pk} tells another past"
            assert all(weights[key] != weight for key, weight in to.items()), f"event {event.pk} changes nothing"
            raised = frozenset(key for key, weight in to.items() if weight > weights[key])
            assert not raised or event.verdict["open"] is True, f"event {event.pk} went through a closed gate"
            weights, generation = weights | to, event.generation
        last = event
        yield event, raised
    assert weights == dict(Flag.objects.values_list("key", "weight")), "a change is not in the log"
    assert generation == Plan.objects.get().generation, "a generation was taken that no event tells of"


def every_rollback_was_confirmed_or_said_not_to_be(clicks: Collection[Click] = (), within: float = SAID_WITHIN) -> None:
    """4: each answer to a rollback said, in time, that the gateway runs it, and it did; or that it does not yet know.

    Whatever was said, every rollback that was stored has reached the gateway by now.
    """
    for event in AuditEvent.objects.filter(kind__in=ROLLBACKS):
        assert everywhere(event.generation), f"stored, and not on every gateway: {event}"
    for click in clicks:
        if not click.path.endswith("/rollback/"):
            continue
        assert click.seconds < within, click
        if click.status == HTTPStatus.SEE_OTHER:
            event = AuditEvent.objects.filter(request_key=click.key).first() if click.key else None
            answered = click.began + timedelta(seconds=click.seconds)
            generation = event.generation if event else off_since(flags_of(click), click.began, answered)
            assert generation is not None, f"acknowledged, and neither stored nor so already: {click}"
            assert everywhere(generation, by=answered), f"called applied before the gateway had said so: {click}"
        else:
            assert "Applied on the gateway" not in click.text, click
            assert "manage.py" in click.text, f"what to do by hand is not said: {click}"


def everywhere(generation: int, by: datetime | None = None) -> bool:
    """Whether every gateway has confirmed this generation or a later one, by that moment."""
    found = Confirmation.objects.filter(generation__gte=generation, **({"confirmed_at__lte": by} if by else {}))
    return set(found.values_list("gateway", flat=True)) == set(Gateway.objects.values_list("pk", flat=True))


def flags_of(click: Click) -> set[str]:
    """What a click on a rollback meant."""
    week, flag = re.search(r"/weeks/(\d+)/", click.path), re.search(r"/flags/(\w+)/", click.path)
    asked = {"week__number": week[1]} if week else {"key": flag[1]} if flag else {}
    return set(Flag.objects.filter(**asked).values_list("key", flat=True))


def off_since(flags: Collection[str], began: datetime, ended: datetime) -> int | None:
    """The generation since which all of these were on the old side, at any moment between the two; else None."""
    on, generation = set[str](), 0  # the flags that are on; the last change that turned one of them off
    off: int | None = 0
    for event in AuditEvent.objects.filter(kind__in=MOVES, at__lte=ended).order_by("pk"):
        if off is not None and event.at > began:
            break
        moved = {key: weight for key, weight in event.after.items() if key in flags}
        on = (on | moved.keys()) - {key for key, weight in moved.items() if weight == 0}
        generation = event.generation if moved else generation
        off = None if on else generation
    return off


def no_older_table_ran(load: Load) -> None:
    """2, from outside: no table came after a newer one, and each had the weights that the log tells of its generation.

    What is pinned is off before the log has it. What was once seen to be off comes on again by a later change alone.
    """
    weights, told, raised = dict.fromkeys(Flag.objects.values_list("key", flat=True), 0), {0: {}}, {}
    for event in AuditEvent.objects.filter(kind__in=MOVES).order_by("pk"):
        for key in weights.keys() & event.after.keys():
            if event.after[key] > weights[key]:
                raised.setdefault(key, []).append(event.generation)
            weights[key] = event.after[key]
        told[event.generation] = dict(weights)
    pinned = {
        key for event in AuditEvent.objects.filter(kind=AuditKind.FLAG_PINNED) for key in event.after.get("flags", ())
    }
    last, off = 0, dict[str, int]()
    assert load.tables, "nobody has looked"
    for generation, seen in load.tables:
        assert generation >= last, f"the gateway has run {generation} after {last}"
        last = generation
        wanted = dict.fromkeys(weights, 0) | told[max(known for known in told if known <= generation)]
        for key, weight in seen.items():
            if key not in wanted:
                continue
            assert weight == wanted[key] or (weight == 0 and key in pinned), (generation, key, weight, wanted[key])
            if weight == 0:
                off[key] = generation
            elif key in off:
                assert any(off[key] < one <= generation for one in raised.get(key, ())), (generation, key, weight)
                del off[key]


def no_request_was_lost(load: Load, *, lost: int, explained: Callable[[Failure], bool]) -> None:
    """5: what failed is what the fault itself explains, and no more than it does."""
    strange = [str(failure) for failure in load.failures if not explained(failure)]
    assert strange == [], strange
    assert len(load.failures) <= lost, [str(failure) for failure in load.failures]
    assert load.count() > 0
