"""Where a reading begins, and failovers that failed too.

Nothing is rewritten and nothing read through, as in 0011: a new number is 0, and a new moment not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models

# Migrations run under the time limit of a click, and whoever writes samples or sums them up has to be waited for.
PATIENTLY = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '30s'; SET CONSTRAINTS ALL IMMEDIATE;"


def _columns(table: str, columns: Sequence[str], state: dict[str, models.Field[Any, Any]]) -> migrations.RunSQL:
    added = ", ".join(f"ADD {column}" for column in columns)
    return migrations.RunSQL(
        f"{PATIENTLY} ALTER TABLE migrations_app_{table} {added};",
        f"{PATIENTLY} ALTER TABLE migrations_app_{table} {', '.join(f'DROP COLUMN {name}' for name in state)};",
        state_operations=[migrations.AddField(table, name, field) for name, field in state.items()],
    )


def _lost(table: str, kind: str) -> list[str]:
    """A constraint of one column goes with it."""
    name = f"{table}_failed_failovers_is_counted"
    return [
        f"COLUMN failed_failovers {kind} NOT NULL DEFAULT 0",
        f"CONSTRAINT {name} CHECK (failed_failovers >= 0) NOT VALID",
    ]


BEGINS = "COLUMN begins_at timestamptz"
MOMENT = models.DateTimeField(null=True)


class Migration(migrations.Migration):
    dependencies = [("migrations_app", "0025_triggers_told_apart")]

    operations = [
        migrations.AddField("trafficcounter", "failed_failovers", models.PositiveBigIntegerField(null=True)),
        _columns(
            "trafficsample",
            [BEGINS, *_lost("trafficsample", "integer")],
            {"begins_at": MOMENT, "failed_failovers": models.PositiveIntegerField(default=0, db_default=0)},
        ),
        *(
            _columns(
                table,
                _lost(table, "bigint"),
                {"failed_failovers": models.PositiveBigIntegerField(default=0, db_default=0)},
            )
            for table in ("trafficminute", "traffichour", "trafficday")
        ),
        migrations.AddField(
            "trafficreading",
            "failed_failovers",
            django.contrib.postgres.fields.ArrayField(
                base_field=models.BigIntegerField(), db_default=[], default=list, size=None
            ),
        ),
        migrations.AddField("trafficreading", "away", models.BooleanField(db_default=False, default=False)),
        _columns("routesample", [BEGINS], {"begins_at": MOMENT}),
        migrations.CreateModel(
            name="RouteReading",
            fields=[
                (
                    "gateway",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="migrations_app.gateway",
                    ),
                ),
                ("read_at", models.DateTimeField()),
            ],
            options={"default_permissions": ()},
        ),
        migrations.AddConstraint(
            "routecounter",
            models.CheckConstraint(
                condition=models.Q(side__in=["monolith", "service"]), name="route_counter_side_is_known"
            ),
        ),
    ]
