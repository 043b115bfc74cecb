"""Windows of planned maintenance, which keep the past as it is summed up.

The rollups sum up the last three minutes before their mark each time (observe.rollups.LOOKBACK). So a window may begin,
or be ended, up to two minutes before the mark, and the next run puts the sums right; the third minute is for a run that
is at work at this very moment. What lies further back is summed up for good.
"""

import datetime
import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.expressions
from django.db import migrations, models


KEEPS_THE_PAST = """
CREATE FUNCTION switchyard_maintenance_keeps_the_past() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE settled timestamptz;
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'maintenance window %: it is not deleted but ended', OLD.id USING ERRCODE = 'check_violation';
    END IF;
    IF TG_OP = 'UPDATE' AND (
        OLD.ended_at IS NOT NULL
        OR to_jsonb(NEW) - 'ended_at' - 'ended_by' IS DISTINCT FROM to_jsonb(OLD) - 'ended_at' - 'ended_by'
    ) THEN
        RAISE EXCEPTION 'maintenance window %: nothing of it changes but its end, once', OLD.id
            USING ERRCODE = 'check_violation';
    END IF;
    SELECT done_until - interval '2 minutes' INTO settled FROM migrations_app_rollupmark WHERE source = 'health';
    IF (TG_OP = 'INSERT' AND NEW.starts_at < settled) OR NEW.ended_at < settled THEN
        RAISE EXCEPTION 'maintenance window %: what was before % is summed up', NEW.id, settled
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER maintenance_keeps_the_past BEFORE INSERT OR UPDATE OR DELETE ON migrations_app_maintenancewindow
    FOR EACH ROW EXECUTE FUNCTION switchyard_maintenance_keeps_the_past();
"""
KEEPS_THE_PAST_BACK = """
DROP TRIGGER maintenance_keeps_the_past ON migrations_app_maintenancewindow;
DROP FUNCTION switchyard_maintenance_keeps_the_past();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("migrations_app", "0011_traffic_classes"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="plan",
            options={
                "default_permissions": (),
                "permissions": [
                    ("view_plan", "See the timeline, weeks and services"),
                    ("tick_prerequisite", "Tick and untick prerequisites"),
                    ("run_check", "Run automatic checks now"),
                    ("enable_week", "Enable weeks and services, and ask for approval"),
                    ("roll_back", "Roll back weeks and services"),
                    ("finish_week", "Call a week done"),
                    ("approve", "Approve the changes of others"),
                    ("freeze", "Add and lift freezes"),
                    ("plan_maintenance", "Plan and end maintenance windows"),
                    ("override_gate", "Override a closed gate"),
                    ("load_plan", "Load a changed plan"),
                    ("view_audit", "Read the audit log"),
                    ("manage_accounts", "Add accounts, give roles, deactivate accounts"),
                ],
            },
        ),
        migrations.CreateModel(
            name="MaintenanceWindow",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("title", models.CharField(max_length=200)),
                ("starts_at", models.DateTimeField()),
                ("ends_at", models.DateTimeField()),
                (
                    "targets",
                    django.contrib.postgres.fields.ArrayField(base_field=models.SlugField(max_length=80), size=None),
                ),
                ("planned_by", models.CharField(max_length=150)),
                ("planned_at", models.DateTimeField()),
                ("ended_by", models.CharField(blank=True, max_length=150)),
                ("ended_at", models.DateTimeField(null=True)),
                (
                    "plan",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="maintenance_windows",
                        to="migrations_app.plan",
                    ),
                ),
            ],
            options={
                "ordering": ["starts_at", "pk"],
                "default_permissions": (),
                "indexes": [models.Index(fields=["ends_at"], name="maintenance_not_over")],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("targets__len__gte", 1)), name="maintenance_is_of_something"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("ends_at__gt", models.F("starts_at"))),
                        name="maintenance_ends_after_its_start",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "starts_at__gte",
                                django.db.models.expressions.CombinedExpression(
                                    models.F("planned_at"), "-", models.Value(datetime.timedelta(seconds=60))
                                ),
                            )
                        ),
                        name="maintenance_begins_not_in_the_past",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("ended_at__isnull", True), ("ended_by", "")),
                            models.Q(
                                ("ended_at__isnull", False),
                                ("ended_at__lt", models.F("ends_at")),
                                models.Q(("ended_by", ""), _negated=True),
                            ),
                            _connector="OR",
                        ),
                        name="maintenance_is_ended_early_by_somebody",
                    ),
                ],
            },
        ),
        migrations.RunSQL(KEEPS_THE_PAST, KEEPS_THE_PAST_BACK),
    ]
