"""Several gateways of a plan: which one is the first, since when each takes part, and counters of each gateway."""

import django.db.models.deletion
from django.db import migrations, models

# There was one gateway. Counters without any gateway were of one that the plan had no more.
_EXISTING = """
UPDATE migrations_app_gateway SET first = true;
UPDATE migrations_app_trafficcounter SET gateway_id = (SELECT id FROM migrations_app_gateway ORDER BY key LIMIT 1);
DELETE FROM migrations_app_trafficcounter WHERE gateway_id IS NULL;
SET CONSTRAINTS ALL IMMEDIATE;
"""


class Migration(migrations.Migration):
    dependencies = [("migrations_app", "0019_tokens")]

    operations = [
        migrations.AddField(
            model_name="gateway",
            name="first",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="The plan's `gateway.key`: GATEWAY_DIR is its folder, not GATEWAYS'.",
            ),
        ),
        migrations.AddField(
            model_name="gateway",
            name="since_generation",
            field=models.PositiveBigIntegerField(
                db_default=0,
                default=0,
                help_text="It was added with this one; nobody expects it to confirm an earlier one.",
            ),
        ),
        migrations.RemoveConstraint(model_name="trafficcounter", name="one_counter_per_service_and_side"),
        migrations.AddField(
            model_name="trafficcounter",
            name="gateway",
            field=models.ForeignKey(
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to="migrations_app.gateway",
            ),
        ),
        migrations.RunSQL(_EXISTING, "DELETE FROM migrations_app_trafficcounter"),
        migrations.AlterField(
            model_name="trafficcounter",
            name="gateway",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to="migrations_app.gateway",
            ),
        ),
        migrations.AddConstraint(
            model_name="trafficcounter",
            constraint=models.UniqueConstraint(
                fields=("gateway", "service", "side"),
                name="one_counter_per_gateway_service_and_side",
                nulls_distinct=False,
            ),
        ),
        migrations.AddConstraint(
            model_name="gateway",
            constraint=models.UniqueConstraint(
                condition=models.Q(("first", True)), fields=("plan",), name="one_first_gateway_in_plan"
            ),
        ),
    ]
