"""What a week is done when becomes lines of its checklist, and weeks of high risk need the approval of one other."""

from typing import Any

from django.db import migrations


def keep_done_criteria(apps: Any, _schema_editor: Any) -> None:
    Week = apps.get_model("migrations_app", "Week")
    Prerequisite = apps.get_model("migrations_app", "Prerequisite")
    for week in Week.objects.all():
        for position, sentence in enumerate(week.done_when):
            Prerequisite.objects.create(
                week=week, key=f"done-{position + 1}", title=sentence, phase="done", kind="manual", position=position
            )


def want_approvals(apps: Any, _schema_editor: Any) -> None:
    """As the plan file has it for weeks of high risk that say nothing."""
    weeks = apps.get_model("migrations_app", "Week").objects.filter(risk="high", approvals_needed=0)
    weeks.update(approvals_needed=1, approver_role="approver")


class Migration(migrations.Migration):
    dependencies = [("migrations_app", "0005_gates")]

    operations = [
        migrations.RunPython(keep_done_criteria, migrations.RunPython.noop),
        migrations.RunPython(want_approvals, migrations.RunPython.noop),
    ]
