"""What a week is done when becomes lines of its checklist."""

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


class Migration(migrations.Migration):
    dependencies = [("migrations_app", "0005_gates")]

    operations = [migrations.RunPython(keep_done_criteria, migrations.RunPython.noop)]
