"""Who may do what, in one table: every address by every method, and every verb of every command, for every role.

The addresses are walked from the URL configuration and the verbs from the commands: one that is not in the tables here
fails. What a role may comes from `roles.MATRIX`; which permission an address or a verb wants is written down here.

The scene: week 1 is on and has soaked; the gate of week 2 is open; of week 3 somebody has asked for an approval; the
gate of week 5 is overridden. A release manager has rolled week 1 back once, and has not said why. Each cell begins
there, and is undone.
"""

from __future__ import annotations

import io
import json
import sys
from argparse import _SubParsersAction
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command, load_command_class
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone

from migrations_app.actions.approvals import request_approval
from migrations_app.actions.evidence import UploadedEvidence
from migrations_app.actions.freezes import add_freeze
from migrations_app.actions.maintenance import plan_window
from migrations_app.actions.overrides import override_gate
from migrations_app.actions.prerequisites import tick
from migrations_app.actions.rollouts import pause_rollout, start_rollout, step_to
from migrations_app.actions.tokens import add_token
from migrations_app.actions.weeks import roll_back_week
from migrations_app.actor import Actor
from migrations_app.choices import AuditKind, Phase, PrerequisiteKind
from migrations_app.management.base import ActionCommand
from migrations_app.models import AuditEvent, Evidence, Freeze, MaintenanceWindow, Prerequisite
from migrations_app.planfile.writer import write
from migrations_app.reconcile.adapters import forget_adapters
from migrations_app.roles import MATRIX, Permission, Role
from migrations_app.web.api import ENDPOINTS
from tests.factories import PASSWORD, memory_gateway, put_behind, tick_all, tracseq

ANONYMOUS, NO_ROLE = "anonymous", "no role"
WHO = [ANONYMOUS, NO_ROLE, *Role]
COMMANDS = Path(__file__).parent.parent / "migrations_app" / "management" / "commands"


@dataclass(frozen=True)
class Scene:
    """What the tables name: numbers of rows, a changed plan file, and the accounts."""

    ticked: int
    unticked: int
    automatic: int
    request: int
    freeze: int
    window: int
    evidence: int
    event: int
    unexplained: int
    token: int
    file: str
    people: dict[str, Actor]


@pytest.fixture
def scene(plan, people, settings, tmp_path) -> Scene:
    settings.WORKER_HEAD_START = 0
    settings.CONFIRM_WITHIN = 5.0
    settings.CELERY_BROKER_URL = ""
    settings.HEALTH_STALE_AFTER = 600.0
    settings.GATEWAY_DIR = tmp_path / "gateway"
    settings.GATEWAY_DIR.mkdir()
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    manager, administrator = people[Role.RELEASE_MANAGER], people[Role.ADMINISTRATOR]
    put_behind(1)
    unexplained = roll_back_week(number=1, actor=manager).event
    put_behind(1)
    tick_all(1, manager, phase=Phase.DONE)
    tick_all(2, manager)
    first, second = Prerequisite.objects.filter(
        week__number=3, phase=Phase.START, kind=PrerequisiteKind.MANUAL
    ).order_by("position")[:2]
    tick(prerequisite_id=second.pk, actor=manager, evidence=UploadedEvidence("seen.txt", b"seen"))
    request_approval(number=3, actor=manager)
    override_gate(number=5, lines=["after-4"], minutes=60, actor=administrator, reason="it burns")
    now = timezone.now()
    add_freeze(title="later", actor=manager, starts_at=now + timedelta(days=1), ends_at=now + timedelta(days=2))
    plan_window(title="disks", targets=["auth"], ends_at=now + timedelta(days=1), actor=manager)
    document = tracseq(adapter="memory", by_hand=True)
    changed = document.model_copy(update={"plan": document.plan.model_copy(update={"title": "Another title"})})
    file = tmp_path / "changed.yaml"
    file.write_text(write(changed))
    nobody = Actor.signed_in(User.objects.create_user("nobody", password=PASSWORD))
    token, _ = add_token(account="nobody", label="for a test", actor=administrator)
    return Scene(
        ticked=second.pk,
        unticked=first.pk,
        automatic=Prerequisite.objects.get(week__number=1, phase=Phase.DONE, check_name="flags_on").pk,
        request=second.week.approval_requests.get().pk,
        freeze=Freeze.objects.get().pk,
        window=MaintenanceWindow.objects.get().pk,
        evidence=Evidence.objects.get().pk,
        event=AuditEvent.objects.order_by("pk").first().pk,
        unexplained=unexplained.pk,
        token=token.pk,
        file=str(file),
        people={**people, NO_ROLE: nobody},
    )


# -- addresses --------------------------------------------------------------------------------------------------------

OPEN = None  # to everybody, signed in or not
ANSWERERS = frozenset({Role.RELEASE_MANAGER, Role.ADMINISTRATOR})  # who may say why the week of the scene went back
ASKERS = frozenset({Role.RELEASE_MANAGER})  # who has asked for the approval of the scene, and may take that back
Wanted = Permission | frozenset[Role] | None


@dataclass(frozen=True)
class Address:
    """What a GET and a POST want, and with which status they answer who has it. No `act`: there is no POST."""

    see: Wanted
    shows: int
    act: Wanted = None
    answers: int = 405
    arguments: Callable[[Scene], dict[str, Any]] = lambda _scene: {}
    fields: dict[str, str] = field(default_factory=dict)
    first: Callable[[Scene], object] = lambda _scene: None  # what somebody who may has done before


def week(number: int) -> Callable[[Scene], dict[str, Any]]:
    return lambda _scene: {"number": number}


SEE, AUDIT = Permission.VIEW_PLAN, Permission.VIEW_AUDIT
TEMPLATE, RAG = {"key": "USE_TEMPLATE_SERVICE"}, {"key": "USE_RAG_SERVICE"}
WHY = {"reason": "for a test"}
GLASS = {"reason": "for a test", "minutes": "10", "lines": "after-2"}
NIGHTLY = {"title": "at night", "weekdays": "6", "from_time": "03:00", "until_time": "03:30"}
DISKS = {"title": "disks", "starts_at": "2027-12-24T18:00", "ends_at": "2027-12-24T20:00", "everything": "on"}


def step_2(scene: Scene) -> None:
    manager = scene.people[Role.RELEASE_MANAGER]
    start_rollout(**TEMPLATE, actor=manager)
    step_to(**TEMPLATE, position=1, actor=manager)


def paused(scene: Scene) -> None:
    step_2(scene)
    pause_rollout(**TEMPLATE, actor=scene.people[Role.RELEASE_MANAGER])


def pinned(_scene: Scene) -> None:
    memory_gateway().pin([RAG["key"]], by="somebody")


# name                         GET wants, answers; POST wants, answers
ADDRESSES: dict[str, Address] = {
    "timeline": Address(SEE, 200),
    "timeline-live": Address(SEE, 200),
    "rollback-everything": Address(SEE, 200, Permission.ROLL_BACK, 303),
    "week": Address(SEE, 200, arguments=week(1)),
    "week-live": Address(SEE, 200, arguments=week(1)),
    "week-enable": Address(SEE, 200, Permission.ENABLE, 303, week(2), WHY),
    "week-rollback": Address(SEE, 302, Permission.ROLL_BACK, 303, week(1)),
    "week-rollout-start": Address(SEE, 302, Permission.ENABLE, 303, week(2), WHY),
    "week-rollout-pause": Address(SEE, 302, Permission.ROLL_BACK, 303, week(2), first=step_2),
    "week-rollout-resume": Address(SEE, 302, Permission.ENABLE, 303, week(2), first=paused),
    "week-done": Address(SEE, 302, Permission.FINISH, 303, week(1)),
    "approval-ask": Address(SEE, 302, Permission.ENABLE, 303, week(4)),
    "rehearse": Address(SEE, 302, Permission.ROLL_BACK, 303, week(1)),
    "override": Address(Permission.OVERRIDE, 200, Permission.OVERRIDE, 303, week(3), GLASS),
    "override-end": Address(SEE, 302, Permission.OVERRIDE, 303, week(5)),
    "approval-give": Address(SEE, 302, Permission.APPROVE, 303, lambda scene: {"request_id": scene.request}),
    "approval-decline": Address(SEE, 302, Permission.APPROVE, 303, lambda scene: {"request_id": scene.request}, WHY),
    "approval-withdraw": Address(SEE, 302, ASKERS, 303, lambda scene: {"request_id": scene.request}),
    "freezes": Address(SEE, 200, Permission.FREEZE, 303, fields=NIGHTLY),
    "freeze-lift": Address(SEE, 302, Permission.FREEZE, 303, lambda scene: {"freeze_id": scene.freeze}),
    "maintenance": Address(SEE, 200, Permission.MAINTAIN, 303, fields=DISKS),
    "maintenance-live": Address(SEE, 200),
    "maintenance-end": Address(SEE, 302, Permission.MAINTAIN, 303, lambda scene: {"window_id": scene.window}),
    "evidence": Address(SEE, 200, arguments=lambda scene: {"evidence_id": scene.evidence}),
    "flag-enable": Address(SEE, 200, Permission.ENABLE, 303, lambda _scene: TEMPLATE, WHY),
    "flag-rollback": Address(SEE, 302, Permission.ROLL_BACK, 303, lambda _scene: RAG),
    "rollout-start": Address(SEE, 302, Permission.ENABLE, 303, lambda _scene: TEMPLATE, WHY),
    "rollout-pause": Address(SEE, 302, Permission.ROLL_BACK, 303, lambda _scene: TEMPLATE, first=step_2),
    "rollout-resume": Address(SEE, 302, Permission.ENABLE, 303, lambda _scene: TEMPLATE, first=paused),
    "rollout-back": Address(SEE, 302, Permission.ROLL_BACK, 303, lambda _scene: TEMPLATE, first=step_2),
    "rollout-step": Address(SEE, 302, Permission.ENABLE, 303, lambda _scene: TEMPLATE, {"position": "2"}, step_2),
    "tick": Address(SEE, 302, Permission.TICK, 303, lambda scene: {"prerequisite_id": scene.unticked}),
    "untick": Address(SEE, 302, Permission.TICK, 303, lambda scene: {"prerequisite_id": scene.ticked}),
    "check": Address(SEE, 302, Permission.CHECK, 303, lambda scene: {"prerequisite_id": scene.automatic}),
    "overview": Address(SEE, 200),
    "overview-live": Address(SEE, 200),
    "service": Address(SEE, 200, arguments=lambda _scene: {"key": "auth"}),
    "service-live": Address(SEE, 200, arguments=lambda _scene: {"key": "auth"}),
    "gateway": Address(SEE, 200),
    "gateway-live": Address(SEE, 200),
    "pins-lift": Address(SEE, 302, Permission.ENABLE, 303, fields={"flags": RAG["key"]}, first=pinned),
    "audit": Address(AUDIT, 200),
    "audit-event": Address(AUDIT, 200, arguments=lambda scene: {"event_id": scene.event}),
    "reason-give": Address(AUDIT, 302, ANSWERERS, 303, lambda scene: {"event_id": scene.unexplained}, WHY),
    "chrome-live": Address(SEE, 200),
    "service-past": Address(SEE, 200, arguments=lambda _scene: {"key": "auth"}),
    "status": Address(SEE, 200),
    "status-json": Address(SEE, 200),
    "live": Address(SEE, 200),
    "healthz": Address(OPEN, 200),
    "metrics": Address(OPEN, 200),  # by address or token, whoever is signed in (tests/web/test_metrics.py)
}
# Signing in and out: open to all, and told by what they are for. A GET, and a POST, of (nobody, somebody signed in).
DOORS = {"sign-in": ((200, 302), (422, 302)), "sign-out": ((302, 405), (302, 302))}


def walked(patterns: list[URLPattern | URLResolver]) -> Iterator[URLPattern]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from walked(pattern.url_patterns)
        else:
            yield pattern


def has(who: str, wanted: Wanted) -> bool:
    if wanted is OPEN:
        return True
    if isinstance(wanted, frozenset):
        return who in wanted
    return who in list(Role) and wanted in MATRIX[Role(who)]


def status_of(who: str, method: str, address: Address) -> int:
    """What the table says."""
    if who == ANONYMOUS and address.see is not OPEN:
        return 302
    acts = method == "post" and address.act is not None
    if method not in ("get", "head") and not acts:
        return 405
    if not has(who, SEE) and address.see is not OPEN:
        return 403
    if acts:
        return address.answers if has(who, address.act) else 403
    return address.shows if has(who, address.see) else 403


@contextmanager
def undone() -> Iterator[None]:
    """What is done in the block never was; the gateway begins anew too."""
    forget_adapters()
    with transaction.atomic():
        yield
        transaction.set_rollback(True)
    forget_adapters()


def client_of(who: str, scene: Scene) -> Client:
    client = Client()
    if who != ANONYMOUS:
        client.force_login(scene.people[who].account)
    return client


def changes() -> list[int]:
    """The events but for those that tell of a refusal."""
    return list(AuditEvent.objects.exclude(kind=AuditKind.ACTION_REFUSED).values_list("pk", flat=True))


def test_every_address_is_in_the_table():
    names = {pattern.name for pattern in walked(get_resolver().url_patterns)}
    assert names == ADDRESSES.keys() | DOORS.keys() | CALLS.keys()


@pytest.mark.parametrize("who", WHO)
def test_every_address_answers_every_role_as_the_table_says(scene: Scene, who: str):
    client, found, expected = client_of(who, scene), {}, {}
    for name, address in ADDRESSES.items():
        url = reverse(name, kwargs=address.arguments(scene))
        for method in ("get", "head", "post", "put", "delete"):
            with undone():
                address.first(scene)
                before = changes()
                response = getattr(client, method)(url, address.fields if method == "post" else None)
                found[name, method] = response.status_code
                expected[name, method] = status_of(who, method, address)
                if response.status_code == 302 and who == ANONYMOUS:
                    assert response["Location"].startswith("/sign-in/"), name
                if response.status_code in (403, 405) or method in ("get", "head"):
                    assert changes() == before, f"{name}: a {method} that may not changed something"
                if response.status_code == 303:
                    assert changes() != before, f"{name}: what is allowed did nothing"
    assert found == expected


@pytest.mark.parametrize("who", WHO)
def test_the_doors_are_open_to_everybody(scene: Scene, who: str):
    for name, (get, post) in DOORS.items():
        for method, (nobody, somebody) in (("get", get), ("post", post)):
            with undone():
                status = getattr(client_of(who, scene), method)(reverse(name)).status_code
                assert status == (nobody if who == ANONYMOUS else somebody), (name, method)


# -- the API ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """What a call of the API wants. By another method it is 405."""

    method: str
    wants: Permission
    arguments: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)


CALLS: dict[str, Call] = {
    "api-state": Call("get", SEE),
    "api-flag-weight": Call("post", Permission.ENABLE, TEMPLATE, {"weight": 100}),
    "api-flag-rollback": Call("post", Permission.ROLL_BACK, RAG),
    "api-week-enable": Call("post", Permission.ENABLE, {"number": 2}),
    "api-week-rollback": Call("post", Permission.ROLL_BACK, {"number": 1}),
    "api-rollback": Call("post", Permission.ROLL_BACK),
}


def test_the_table_of_the_api_says_the_same():
    assert {one.name: (one.method.lower(), one.wants) for one in ENDPOINTS} == {
        name: (call.method, call.wants) for name, call in CALLS.items()
    }


@pytest.mark.parametrize("who", WHO)
def test_every_call_answers_every_role_as_the_table_says(scene: Scene, who: str, shell: Actor):
    headers, found, expected = {}, {}, {}
    if who != ANONYMOUS:
        _, secret = add_token(account=scene.people[who].name, label="for a test", actor=shell)
        headers = {"Authorization": f"Bearer {secret}"}
    for name, call in CALLS.items():
        for method in ("get", "post", "put", "delete"):
            with undone():
                before = changes()
                body = json.dumps(call.body if method == call.method == "post" else {})
                response = Client(enforce_csrf_checks=True).generic(
                    method.upper(), reverse(name, kwargs=call.arguments), body, "application/json", headers=headers
                )
                found[name, method] = response.status_code
                if who == ANONYMOUS:
                    expected[name, method] = 401
                elif method != call.method:
                    expected[name, method] = 405
                else:
                    expected[name, method] = 200 if has(who, call.wants) else 403
                after = [kind for kind in kinds_since(before) if kind != AuditKind.SIGN_IN_FAILED]
                acted = method == "post" and response.status_code == 200
                assert bool(after) == acted, f"{name}: a {method} that answers {response.status_code} left {after}"
    assert found == expected


def kinds_since(before: list[int]) -> list[str]:
    return list(AuditEvent.objects.filter(pk__in=set(changes()) - set(before)).values_list("kind", flat=True))


# -- commands ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verb:
    """What it wants, with which arguments, and how it leaves who has it. No `wants`: it only reads or prints.

    `first` is what somebody who may has done before.
    """

    wants: Wanted = None
    arguments: Callable[[Scene], list[str]] = lambda _scene: []
    leaves: int = 0
    typed: str = ""  # on standard input
    first: Callable[[Scene], object] = lambda _scene: None


def said(*arguments: str) -> Callable[[Scene], list[str]]:
    return lambda _scene: list(arguments)


FREEZE_ADD = said("at night", "--weekdays", "sat", "--from", "03:00", "--until", "03:30")
DISKS_PLAN = said("disks", "--from", "2027-12-23", "--until", "2027-12-24", "--everything")
ACCOUNT_ADD = said("newcomer", "viewer")
OVERRIDE = said("3", "--line", "after-2", "--minutes", "10")

VERBS: dict[str, dict[str, Verb]] = {
    "account": {
        "list": Verb(),
        "add": Verb(Permission.MANAGE_ACCOUNTS, ACCOUNT_ADD, typed="a password that is long enough\n"),
        "role": Verb(Permission.MANAGE_ACCOUNTS, said("nobody", "viewer")),
        "password": Verb(Permission.MANAGE_ACCOUNTS, said("nobody"), typed="another password, long enough\n"),
        "deactivate": Verb(Permission.MANAGE_ACCOUNTS, said("nobody")),
    },
    "approval": {
        "list": Verb(),
        "request": Verb(Permission.ENABLE, said("4")),
        "give": Verb(Permission.APPROVE, lambda scene: [str(scene.request)]),
        "decline": Verb(Permission.APPROVE, lambda scene: [str(scene.request)]),
        "withdraw": Verb(ASKERS, lambda scene: [str(scene.request)]),
    },
    "audit": {
        "list": Verb(),
        "verify": Verb(),
        "reason": Verb(ANSWERERS, lambda scene: [str(scene.unexplained), "it burned"]),
    },
    "flag": {
        "list": Verb(),
        "set": Verb(Permission.ENABLE, said("USE_TEMPLATE_SERVICE", "100")),
        "rollback": Verb(Permission.ROLL_BACK, said("USE_RAG_SERVICE")),
    },
    "freeze": {
        "list": Verb(),
        "add": Verb(Permission.FREEZE, FREEZE_ADD),
        "lift": Verb(Permission.FREEZE, lambda scene: [str(scene.freeze)]),
    },
    "maintenance": {
        "list": Verb(),
        "plan": Verb(Permission.MAINTAIN, DISKS_PLAN),
        "end": Verb(Permission.MAINTAIN, lambda scene: [str(scene.window)]),
    },
    "pin": {
        "list": Verb(),
        "lift": Verb(Permission.ENABLE, said(RAG["key"]), first=pinned),
    },
    "plan": {
        "load": Verb(Permission.LOAD_PLAN, lambda scene: [scene.file]),
        "diff": Verb(None, lambda scene: [scene.file], leaves=1),
        "export": Verb(),
        "schema": Verb(),
    },
    "prerequisite": {
        "list": Verb(),
        "tick": Verb(Permission.TICK, lambda scene: [str(scene.unticked)]),
        "untick": Verb(Permission.TICK, lambda scene: [str(scene.ticked)]),
        "check": Verb(Permission.CHECK, lambda scene: [str(scene.automatic)]),
    },
    "rollout": {
        "list": Verb(),
        "show": Verb(None, said(TEMPLATE["key"]), first=step_2),
        "start": Verb(Permission.ENABLE, said(TEMPLATE["key"])),
        "pause": Verb(Permission.ROLL_BACK, said(TEMPLATE["key"]), first=step_2),
        "resume": Verb(Permission.ENABLE, said(TEMPLATE["key"]), first=paused),
        "jump": Verb(Permission.ENABLE, said(TEMPLATE["key"], "3"), first=step_2),
        "back": Verb(Permission.ROLL_BACK, said(TEMPLATE["key"]), first=step_2),
        "abort": Verb(Permission.ROLL_BACK, said(TEMPLATE["key"]), first=step_2),
    },
    "token": {
        "list": Verb(),
        "add": Verb(Permission.MANAGE_ACCOUNTS, said("viewer", "chat-ops", "--expires", "90d")),
        "revoke": Verb(Permission.MANAGE_ACCOUNTS, lambda scene: [str(scene.token)]),
    },
    "trigger": {
        "list": Verb(),
    },
    "week": {
        "list": Verb(),
        "show": Verb(None, said("1")),
        "enable": Verb(Permission.ENABLE, said("2")),
        "rollback": Verb(Permission.ROLL_BACK, said("1")),
        "done": Verb(Permission.FINISH, said("1")),
        "rehearse": Verb(Permission.ROLL_BACK, said("1")),
        "override": Verb(Permission.OVERRIDE, OVERRIDE),
        "override-end": Verb(Permission.OVERRIDE, said("5")),
    },
}
# They have no verbs and act for nobody: whoever has the shell has the database too.
WITHOUT_ACTOR = {"demo_accounts", "history", "ready", "reconcile"}
WITHOUT_VERBS = {"panic"}  # who may: tests/commands/test_panic.py
SHELL = "somebody at the shell"  # who names no account: may all but approve, which takes an account
ACCOUNTS_ONLY = {("approval", "give"), ("approval", "decline"), ("approval", "withdraw")}


def commands() -> set[str]:
    return {path.stem for path in COMMANDS.glob("*.py")} - {"__init__"}


def verbs_of(name: str) -> set[str]:
    command = load_command_class("migrations_app", name)
    if not isinstance(command, ActionCommand):
        return set()
    (sub,) = [
        action for action in command.create_parser("manage.py", name)._actions if isinstance(action, _SubParsersAction)
    ]
    return set(sub.choices)


def leaves_with(*arguments: str) -> int:
    try:
        call_command(*arguments, stdout=io.StringIO(), stderr=io.StringIO())
    except SystemExit as end:
        return int(end.code or 0)
    except CommandError as error:
        return error.returncode
    return 0


def test_every_command_and_every_verb_is_in_the_table():
    assert commands() == VERBS.keys() | WITHOUT_ACTOR | WITHOUT_VERBS
    assert {name: verbs_of(name) for name in commands()} == {
        **{name: set(verbs) for name, verbs in VERBS.items()},
        **{name: set() for name in WITHOUT_ACTOR | WITHOUT_VERBS},
    }


@pytest.mark.parametrize("who", [SHELL, NO_ROLE, *Role])
def test_every_verb_leaves_every_role_as_the_table_says(scene: Scene, who: str, monkeypatch: pytest.MonkeyPatch):
    name = "tester" if who == SHELL else scene.people[who].name
    found, expected = {}, {}
    for command, verbs in VERBS.items():
        for word, verb in verbs.items():
            monkeypatch.setattr(sys, "stdin", io.StringIO(verb.typed))
            asked = [command, word, *verb.arguments(scene), "--actor", name, "--reason", "for a test"]
            with undone():
                verb.first(scene)
                before = changes()
                found[command, word] = status = leaves_with(*asked)
                after = changes()
            may = (command, word) not in ACCOUNTS_ONLY if who == SHELL else has(who, verb.wants)
            expected[command, word] = verb.leaves if may else 3
            if status == 3 or verb.wants is None:
                assert after == before, f"{command} {word} changed something"
            else:
                assert after != before, f"{command} {word} is allowed and did nothing"
    assert found == expected


def test_an_account_that_is_not_active_may_nothing_from_the_shell(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    User.objects.filter(username=scene.people[Role.ADMINISTRATOR].name).update(is_active=False)
    for command, verbs in VERBS.items():
        for word, verb in verbs.items():
            if verb.wants is None:
                continue
            monkeypatch.setattr(sys, "stdin", io.StringIO(verb.typed))
            asked = [command, word, *verb.arguments(scene), "--reason", "for a test"]
            with undone():
                verb.first(scene)
                before = changes()
                assert leaves_with(*asked, "--actor", scene.people[Role.ADMINISTRATOR].name) == 3, (command, word)
                assert changes() == before, (command, word)


def test_every_permission_is_wanted_by_something():
    wanted = {address.act for address in ADDRESSES.values()} | {address.see for address in ADDRESSES.values()}
    wanted |= {verb.wants for verbs in VERBS.values() for verb in verbs.values()}
    assert set(Permission) <= wanted
