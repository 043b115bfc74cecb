"""The disk of the gateway's folder takes nothing more: it is said, the gateway runs on, and room is all it needs.

A limit on the size of files stands for the disk: the writes of the process fail in the same place and in the same way,
and no privilege is needed to set one.
"""

from __future__ import annotations

import json
import resource
import subprocess

import pytest

from controlplane.environment import REPOSITORY
from migrations_app.actions.weeks import enable_week
from migrations_app.choices import AuditKind
from migrations_app.models import AuditEvent, Gateway, Plan
from migrations_app.reconcile.loop import reconcile_all
from tests.faults.load import load_on
from tests.faults.promises import hold
from tests.faults.system import ON_THE_MONOLITH, ON_THE_SERVICES, OPERATOR, System

ROOM = 2000  # bytes; less than a routing table has


@pytest.fixture
def on(system: System) -> System:
    """Week 1 is on."""
    enable_week(number=1, actor=OPERATOR)
    assert reconcile_all()[0].error == ""
    return system


def without_room(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One command of manage.py that can write no file of more than ROOM bytes."""
    return subprocess.run(
        system.manage_command(*arguments), cwd=REPOSITORY, env=system.estate.environ(), capture_output=True, text=True,
        timeout=60, check=False, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM)),
    )  # fmt: skip


def test_a_rollback_without_room_is_stored_said_not_to_be_applied_and_made_up_for(on: System):
    folder = on.envoy.folder
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.json")}
    generation = Plan.objects.get().generation
    with load_on(on.envoy.port, pause=0.05) as load:
        done = without_room(on, "week", "rollback", "1", "--json")
        assert done.returncode == 4, done.stdout + done.stderr
        said = json.loads(done.stdout)
        assert (said["changed"], said["confirmed"], said["command"]) == (True, False, "manage.py reconcile")
        assert "is not usable" in said["error"]
        assert Gateway.objects.get().error == said["error"]
        # What lies there is whole, the temporary files are gone, and the gateway runs what it ran.
        after = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.json")}
        assert after == before
        assert list(folder.glob(".*.tmp")) == []
        assert (on.status()["generation"], on.served_by()) == (generation, ON_THE_SERVICES)
        (made_up,) = reconcile_all()
        assert (made_up.error, made_up.generation) == ("", generation + 1)
    assert on.served_by() == ON_THE_MONOLITH
    assert AuditEvent.objects.filter(kind=AuditKind.DRIFT_CORRECTED).count() == 0
    hold(on, load=load)
