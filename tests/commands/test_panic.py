"""`manage.py panic` while the database answers: an ordinary rollback. tests/faults/test_pins.py has it without one."""

from __future__ import annotations

import io
import re

import pytest
from django.core.management import CommandError, call_command

from controlplane.gateways import Place
from migrations_app.actions.weeks import enable_week
from migrations_app.choices import AuditKind
from migrations_app.gateways.pins import PinFolder
from migrations_app.management.base import Exit
from migrations_app.management.commands import panic
from migrations_app.models import AuditEvent, Flag
from migrations_app.reconcile.loop import reconcile_all
from tests.factories import load_tracseq, make_healthy, make_people, memory_gateway, tick_all

KEY, OTHER = "USE_RAG_SERVICE", "USE_STORAGE_SERVICE"


@pytest.fixture
def on(transactional_db, shell, monkeypatch):
    """Week 1 is on. The database is asked on a connection of its own, so what it is asked about is committed."""
    for limit in ("ANSWERS_WITHIN", "CHANGES_WITHIN", "CONFIRMS_WITHIN"):
        monkeypatch.setattr(panic, limit, 60.0)  # a busy machine is no database that hangs
    monkeypatch.setattr(panic, "_STAGES", [(stage, 60.0) for stage, _ in panic._STAGES])
    load_tracseq(adapter="memory", by_hand=True)
    make_healthy()
    reconcile_all()
    tick_all(1, shell)
    enable_week(number=1, actor=shell)
    reconcile_all()
    return memory_gateway()


def said(*arguments: str) -> str:
    out = io.StringIO()
    call_command("panic", *arguments, stdout=out, stderr=out)
    return out.getvalue()


def weights() -> dict[str, int]:
    return dict(Flag.objects.filter(week__number=1).values_list("key", "weight"))


def test_everything_one_week_or_named_flags_are_rolled_back_and_confirmed_and_nothing_is_pinned(on):
    assert "USE_RAG_SERVICE is rolled back. Applied on the gateway in" in said(KEY, "--actor", "anna")
    assert (weights()[KEY], weights()[OTHER]) == (0, 100)
    assert f"{KEY}, {OTHER} are rolled back. Applied on the gateway in" in said(KEY, OTHER)
    assert weights()[OTHER] == 0
    assert "Week 1 is rolled back. Applied" in said("--week", "1", "--reason", "it burns")
    assert set(weights().values()) == {0}
    assert "Everything is rolled back. Nothing had to change." in said()
    kinds = list(AuditEvent.objects.order_by("-id").values_list("kind", flat=True)[:2])
    assert kinds == [AuditKind.WEEK_ROLLED_BACK, AuditKind.FLAG_ROLLED_BACK]
    assert on.pins() == ()
    assert set(on.observe().weights.values()) == {0}


def test_everything_is_one_event(on):
    assert "Everything is rolled back. Applied" in said()
    assert AuditEvent.objects.first().kind == AuditKind.EVERYTHING_ROLLED_BACK


def test_an_account_that_may_not_roll_back_is_refused_and_a_flag_that_is_none_is_told(on):
    make_people()
    with pytest.raises(CommandError) as refused:
        said("--actor", "viewer")
    assert refused.value.returncode == Exit.REFUSED
    with pytest.raises(CommandError, match="The plan has no flag USE_NOTHING") as unknown:
        said("USE_NOTHING")
    assert unknown.value.returncode == Exit.USAGE
    with pytest.raises(CommandError, match=r"no flag USE_NOTHING.* Nothing was rolled back\."):
        said(KEY, "USE_NOTHING")
    with pytest.raises(CommandError, match="not both"):
        said(KEY, "--week", "1")
    assert set(weights().values()) == {100}


def test_a_gateway_that_does_not_confirm_leaves_with_four(on):
    on.answers = False
    with pytest.raises(SystemExit) as left:
        said()
    assert left.value.code == Exit.UNCONFIRMED
    assert set(weights().values()) == {0}


def test_pins_are_listed_where_they_can_be_read_and_the_others_are_told(settings, tmp_path, capsys):
    settings.GATEWAY_DIR = tmp_path / "away"
    settings.GATEWAYS = {"gw-2": Place(tmp_path, "http://127.0.0.1:9", "http://127.0.0.1:9")}
    PinFolder(tmp_path).pin([KEY], by="anna", why="it burns", generation=7)
    with pytest.raises(SystemExit) as left:
        call_command("pin", "list")
    assert left.value.code == Exit.UNCONFIRMED
    said = capsys.readouterr()
    assert re.search(rf"{KEY} +gw-2 +anna .* it burns", said.out)
    assert re.search(rf"NOT KNOWN at {tmp_path}/away: the gateway's folder .* is not usable", said.err)
