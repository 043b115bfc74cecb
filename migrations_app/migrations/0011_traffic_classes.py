"""Answers of 4xx, requests sent again and failovers; what no route matches; running sums of the last minutes.

Nothing is rewritten and nothing read through: columns come with a default that PostgreSQL keeps beside the table, and
new constraints hold for new rows, the old ones having nothing that could break them.
"""

from __future__ import annotations

from typing import Any

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models

NEW = ("client_errors", "retries", "failovers")
COUNTED = " AND ".join(f"{column} >= 0" for column in NEW)
NO_SERVICE = "service_id IS NOT NULL OR side = 'monolith'"

# Migrations run under the time limit of a click, and whoever writes samples or sums them up has to be waited for.
PATIENTLY = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '30s'; SET CONSTRAINTS ALL IMMEDIATE;"


def _columns(table: str, kind: str, constraint: str) -> migrations.RunSQL:
    """As Django would add them, but partitioned tables too, and without reading them through."""
    name = f"migrations_app_{table}"
    added = ", ".join(f"ADD COLUMN {column} {kind} NOT NULL DEFAULT 0" for column in NEW)
    dropped = ", ".join(f"DROP COLUMN {column}" for column in NEW)
    model = models.PositiveIntegerField if kind == "integer" else models.PositiveBigIntegerField
    return migrations.RunSQL(
        f"{PATIENTLY} ALTER TABLE {name} {added}, ADD CONSTRAINT {constraint} CHECK ({COUNTED}) NOT VALID;",
        f"{PATIENTLY} ALTER TABLE {name} DROP CONSTRAINT {constraint}, {dropped};",
        state_operations=[migrations.AddField(table, column, model(default=0, db_default=0)) for column in NEW],
    )


def _service(**options: Any) -> models.ForeignKey[Any, Any]:
    return models.ForeignKey(
        null=True,
        on_delete=django.db.models.deletion.CASCADE,
        related_name="+",
        to="migrations_app.service",
        **options,
    )


class Migration(migrations.Migration):
    dependencies = [("migrations_app", "0010_poll_counts")]

    operations = [
        *(migrations.AddField("trafficcounter", column, models.PositiveBigIntegerField(null=True)) for column in NEW),
        migrations.RemoveConstraint("trafficcounter", "one_counter_per_service_and_side"),
        migrations.AlterField("trafficcounter", "service", _service()),
        migrations.AddConstraint(
            "trafficcounter",
            models.UniqueConstraint(
                fields=["service", "side"], name="one_counter_per_service_and_side", nulls_distinct=False
            ),
        ),
        _columns("trafficsample", "integer", "traffic_sample_is_counted"),
        migrations.RunSQL(
            f"ALTER TABLE migrations_app_trafficsample ALTER COLUMN service_id DROP NOT NULL,"
            f" ADD CONSTRAINT traffic_of_no_service_is_the_monoliths CHECK ({NO_SERVICE}) NOT VALID;",
            "ALTER TABLE migrations_app_trafficsample DROP CONSTRAINT traffic_of_no_service_is_the_monoliths,"
            " ALTER COLUMN service_id SET NOT NULL;",
            state_operations=[
                migrations.AlterField("trafficsample", "service", _service(db_index=False)),
                migrations.AddConstraint(
                    "trafficsample",
                    models.CheckConstraint(
                        condition=models.Q(service__isnull=False) | models.Q(side="monolith"),
                        name="traffic_of_no_service_is_the_monoliths",
                    ),
                ),
            ],
        ),
        _columns("trafficminute", "bigint", "traffic_minute_is_counted"),
        _columns("traffichour", "bigint", "traffic_hour_is_counted"),
        _columns("trafficday", "bigint", "traffic_day_is_counted"),
        migrations.CreateModel(
            name="TrafficReading",
            fields=[
                ("read_at", models.DateTimeField(primary_key=True, serialize=False)),
                *(
                    (name, django.contrib.postgres.fields.ArrayField(base_field=field, size=None))
                    for name, field in (
                        ("services", models.BigIntegerField(null=True)),
                        ("sides", models.CharField(max_length=10)),
                        ("requests", models.BigIntegerField()),
                        ("errors", models.BigIntegerField()),
                        ("failovers", models.BigIntegerField()),
                    )
                ),
            ],
            options={"default_permissions": ()},
        ),
        # Backwards this comes first: what has no service has no place in the tables as they were.
        migrations.RunSQL(
            migrations.RunSQL.noop,
            f"{PATIENTLY} DELETE FROM migrations_app_trafficsample WHERE service_id IS NULL;"
            " DELETE FROM migrations_app_trafficcounter WHERE service_id IS NULL;",
        ),
    ]
