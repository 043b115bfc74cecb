"""Ticks: who, when, with what note and evidence, and for how long; and undo."""

import hashlib
from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from migrations_app.actions.evidence import MOST_BYTES, UploadedEvidence
from migrations_app.actions.prerequisites import LONGEST_LINK, tick, untick
from migrations_app.choices import AuditKind, Phase, PrerequisiteKind
from migrations_app.errors import Invalid, NotFound, NotPermitted, Stale
from migrations_app.gates.load import done_verdicts, verdicts
from migrations_app.models import AuditEvent, Evidence, Plan, Prerequisite, Service, SignOff, Week
from migrations_app.roles import Role

LOG = UploadedEvidence("/home/ada/dump.log", b"1.2 GB written\n")


def lines_of_week_3():
    return Prerequisite.objects.filter(week__number=3, phase=Phase.START)


@pytest.fixture
def backup(plan):
    return lines_of_week_3().first()


def line_of(row: Prerequisite):
    return next(line for line in verdicts()[row.week.number].lines if line.prerequisite == row.pk)


def live() -> SignOff:
    return SignOff.objects.get(withdrawn_at=None)


def test_a_tick_keeps_who_when_and_the_note(backup, people):
    change = tick(prerequisite_id=backup.pk, actor=people[Role.RELEASE_MANAGER], note="dump of 02:10, 1.2 GB")
    row = SignOff.objects.get()
    assert (row.actor, row.note, row.withdrawn_at) == ("release-manager", "dump of 02:10, 1.2 GB", None)
    assert change.event.kind == AuditKind.PREREQUISITE_TICKED
    assert change.event.reason == "dump of 02:10, 1.2 GB"
    line = line_of(backup)
    assert (line.held, line.value) == (True, "signed off by release-manager")


def test_untick_opens_the_line_and_keeps_the_history(backup, shell):
    tick(prerequisite_id=backup.pk, actor=shell, note="done")
    untick(prerequisite_id=backup.pk, actor=shell, reason="wrong database")
    row = SignOff.objects.get()
    assert row.withdrawn_by == "tester"
    assert verdicts()[3].progress == "0/6"
    assert AuditEvent.objects.first().before == {"held": True, "by": "tester", "note": "done"}
    tick(prerequisite_id=backup.pk, actor=shell)
    assert SignOff.objects.count() == 2


def test_ticking_twice_and_unticking_twice_change_nothing(backup, shell):
    assert tick(prerequisite_id=backup.pk, actor=shell).changed
    events = AuditEvent.objects.count()
    assert not tick(prerequisite_id=backup.pk, actor=shell).changed
    assert AuditEvent.objects.count() == events
    assert untick(prerequisite_id=backup.pk, actor=shell).changed
    assert not untick(prerequisite_id=backup.pk, actor=shell).changed


def test_a_tick_from_an_older_page_is_refused(backup, shell):
    seen = backup.week.version
    other = lines_of_week_3().last()
    tick(prerequisite_id=other.pk, actor=shell)
    with pytest.raises(Stale):
        tick(prerequisite_id=backup.pk, actor=shell, seen=seen)
    assert Week.objects.get(number=3).version == seen + 1


def test_an_automatic_line_is_ticked_by_nobody_and_the_log_has_who_tried(plan, people):
    automatic = Prerequisite.objects.filter(kind="automatic", phase=Phase.START).first()
    with pytest.raises(Invalid, match="checked automatically"):
        tick(prerequisite_id=automatic.pk, actor=people[Role.APPROVER], note="trust me")
    assert not SignOff.objects.exists()
    event = AuditEvent.objects.first()
    assert (event.kind, event.actor, event.reason) == (AuditKind.ACTION_REFUSED, "approver", "trust me")
    assert event.subject == f"week {automatic.week.number} / {automatic.key}"
    assert event.after["because"] == "Invalid"


def test_an_unknown_line_is_named(plan, shell):
    with pytest.raises(NotFound, match="no prerequisite 999999"):
        tick(prerequisite_id=999999, actor=shell)


@pytest.mark.parametrize("role", [Role.VIEWER, Role.SUPPORT, Role.ADMINISTRATOR])
def test_a_role_without_the_permission_ticks_and_unticks_nothing(backup, people, role):
    with pytest.raises(NotPermitted):
        tick(prerequisite_id=backup.pk, actor=people[role])
    assert not SignOff.objects.exists()
    tick(prerequisite_id=backup.pk, actor=people[Role.APPROVER])
    with pytest.raises(NotPermitted):
        untick(prerequisite_id=backup.pk, actor=people[role])
    assert live().actor == "approver"


def test_a_role_that_was_taken_since_the_sign_in_counts_no_more(backup, people):
    manager = people[Role.RELEASE_MANAGER]
    tick(prerequisite_id=backup.pk, actor=manager)
    User.objects.get(username="release-manager").groups.clear()
    with pytest.raises(NotPermitted, match="may no longer untick"):
        untick(prerequisite_id=backup.pk, actor=manager)
    assert live().actor == "release-manager"


def test_the_same_tick_again_never_says_held_after_it_was_withdrawn(backup, shell):
    key = uuid4()
    first = tick(prerequisite_id=backup.pk, actor=shell, request_key=key)
    assert tick(prerequisite_id=backup.pk, actor=shell, request_key=key).event == first.event
    untick(prerequisite_id=backup.pk, actor=shell)
    with pytest.raises(Stale):
        tick(prerequisite_id=backup.pk, actor=shell, request_key=key)
    assert not SignOff.objects.filter(withdrawn_at__isnull=True).exists()
    assert AuditEvent.objects.first().kind == AuditKind.ACTION_REFUSED


def test_a_done_criterion_is_ticked_by_the_same_action_and_counts_for_done_alone(plan, shell):
    row = Prerequisite.objects.filter(phase=Phase.DONE, kind=PrerequisiteKind.MANUAL).first()
    number = row.week.number
    before = verdicts()[number].progress
    tick(prerequisite_id=row.pk, actor=shell, note="seen in the gateway's log")
    assert verdicts()[number].progress == before
    line = next(line for line in done_verdicts()[number].lines if line.prerequisite == row.pk)
    assert (line.held, line.value) == (True, "signed off by tester")


def test_a_sign_off_opens_by_itself_when_its_time_is_over_and_can_be_given_anew(backup, shell, time_machine):
    Prerequisite.objects.filter(pk=backup.pk).update(valid_for=timedelta(hours=4))
    Plan.objects.update(time_scale=3600)  # what expires keeps its own time
    start = timezone.now()
    time_machine.move_to(start, tick=False)
    event = tick(prerequisite_id=backup.pk, actor=shell, note="at breakfast").event
    assert live().expires_at - live().ticked_at == timedelta(hours=4)
    assert event.after["expires_at"] == live().expires_at.isoformat()
    time_machine.move_to(start + timedelta(hours=3, minutes=59), tick=False)
    assert line_of(backup).held
    assert line_of(backup).warning.startswith("Expires in 1 min")
    assert not tick(prerequisite_id=backup.pk, actor=shell).changed
    time_machine.move_to(start + timedelta(hours=4), tick=False)
    assert not line_of(backup).held
    again = tick(prerequisite_id=backup.pk, actor=shell, note="at lunch")
    assert again.changed
    assert again.event.before == {"held": False, "was": "expired", "by": "tester", "note": "at breakfast"}
    assert live().note == "at lunch"
    old = SignOff.objects.exclude(withdrawn_at=None).get()
    assert (old.withdrawn_by, old.note) == ("expired", "at breakfast")
    assert line_of(backup).held


def test_a_sign_off_is_void_once_a_service_leads_elsewhere_and_can_be_given_anew(backup, shell):
    tick(prerequisite_id=backup.pk, actor=shell)
    Service.objects.filter(key="auth").update(port=4999)
    assert line_of(backup).value.startswith("void: ")
    assert tick(prerequisite_id=backup.pk, actor=shell).changed
    assert SignOff.objects.exclude(withdrawn_at=None).get().withdrawn_by == "void"
    assert line_of(backup).held
    # The change of another week's service leaves it alone.
    Service.objects.filter(key="rag").update(port=4998)
    assert line_of(backup).held


def test_an_hour_forth_or_back_on_the_clock_leaves_one_live_sign_off(backup, shell, time_machine):
    Prerequisite.objects.filter(pk=backup.pk).update(valid_for=timedelta(minutes=30))
    start = timezone.now()
    time_machine.move_to(start, tick=False)
    tick(prerequisite_id=backup.pk, actor=shell, note="one")
    for hours, note, changed in ((1, "two", True), (0, "three", False), (-1, "four", False), (2, "five", True)):
        time_machine.move_to(start + timedelta(hours=hours), tick=False)
        assert tick(prerequisite_id=backup.pk, actor=shell, note=note).changed is changed, note
        assert line_of(backup).held
    assert live().note == "five"
    assert untick(prerequisite_id=backup.pk, actor=shell).changed


@pytest.mark.parametrize(
    "link", ["https://wiki.example.org/backup#today", "http://jenkins:8080/job/3", "https://[::1]:8443/a?b=c", "  "]
)
def test_a_link_is_kept_with_the_sign_off(backup, shell, link):
    event = tick(prerequisite_id=backup.pk, actor=shell, link=link).event
    assert live().link == link.strip()
    assert event.after.get("link", "") == link.strip()


@pytest.mark.parametrize(
    "link",
    [
        "javascript:alert(1)",
        "JavaScript://example.org/%0aalert(1)",
        "data:text/html,<script>alert(1)</script>",
        "ftp://example.org/dump",
        "file:///etc/passwd",
        "//example.org/protocol-relative",
        "example.org",
        "https://",
        "https://example.org:port/",
        "https://[::1/",
        "https://example.org/a b",
        "https://example.org/\x00",
        "https://example.org/\u202egpj",
        'https://example.org/"onclick="x',
        "https://example.org/" + "x" * LONGEST_LINK,
    ],
)
def test_what_is_no_address_of_the_web_is_refused_by_the_fields_name(backup, shell, link):
    with pytest.raises(Invalid, match=r"^Link: "):
        tick(prerequisite_id=backup.pk, actor=shell, link=link)
    assert not SignOff.objects.exists()
    assert not line_of(backup).held


def test_a_file_is_stored_with_the_sign_off_and_the_log_can_prove_which_it_was(backup, shell):
    event = tick(prerequisite_id=backup.pk, actor=shell, evidence=LOG).event
    row = Evidence.objects.get(sign_off=live())
    digest = hashlib.sha256(LOG.content).hexdigest()
    assert (row.name, bytes(row.content), row.size, row.sha256) == ("dump.log", LOG.content, len(LOG.content), digest)
    assert event.after["evidence"] == {
        "name": "dump.log",
        "content_type": "text/plain; charset=utf-8",
        "size": len(LOG.content),
        "sha256": digest,
    }
    assert LOG.content.decode().strip() not in str(event.after)


def test_a_file_that_is_not_taken_leaves_the_line_open(backup, shell):
    for upload in (UploadedEvidence("x.html", b"<p>"), UploadedEvidence("x.txt", b"x" * (MOST_BYTES + 1))):
        with pytest.raises(Invalid, match=r"^Evidence: "):
            tick(prerequisite_id=backup.pk, actor=shell, evidence=upload)
    assert not SignOff.objects.exists()
    assert not Evidence.objects.exists()
    # Its name is in the log, nothing of what is in it.
    assert AuditEvent.objects.first().before["evidence"] == "x.txt"


def test_the_evidence_of_a_withdrawn_sign_off_stays_with_it(backup, shell):
    tick(prerequisite_id=backup.pk, actor=shell, evidence=LOG)
    untick(prerequisite_id=backup.pk, actor=shell)
    tick(prerequisite_id=backup.pk, actor=shell, evidence=UploadedEvidence("again.log", b"anew\n"))
    assert [row.name for row in Evidence.objects.order_by("pk")] == ["dump.log", "again.log"]
    assert live().evidence.name == "again.log"


def test_no_verdict_reads_a_file(backup, shell):
    tick(prerequisite_id=backup.pk, actor=shell, evidence=UploadedEvidence("big.txt", b"x" * MOST_BYTES))
    with CaptureQueriesContext(connection) as asked:
        assert line_of(backup).held
    assert len(asked)
    assert not any("evidence" in query["sql"] for query in asked)
