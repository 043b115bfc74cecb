"""The database also refuses a week to go from one state to another that no week can go to.

A week can be rolled back though this database never saw it start: a plan may be first loaded with services that already
are on the new side, and a gateway may carry more than a database that was restored from a backup knows of.
"""

from django.db import migrations

STATES = """
CREATE FUNCTION switchyard_week_changes_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.status, NEW.status) NOT IN (
        ('planned', 'in_progress'), ('planned', 'soaking'), ('planned', 'rolled_back'),
        ('in_progress', 'soaking'), ('in_progress', 'rolled_back'),
        ('soaking', 'in_progress'), ('soaking', 'done'), ('soaking', 'rolled_back'),
        ('done', 'in_progress'), ('done', 'rolled_back'),
        ('rolled_back', 'in_progress'), ('rolled_back', 'soaking')
    ) THEN
        RAISE EXCEPTION 'week %: it cannot go from % to %', NEW.number, OLD.status, NEW.status
            USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.status IN ('soaking', 'done') AND EXISTS (
        SELECT 1 FROM migrations_app_flag WHERE week_id = NEW.id AND weight < 100
    ) THEN
        RAISE EXCEPTION 'week %: it cannot be % while a flag of it is not fully on', NEW.number, NEW.status
            USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.status = 'done' AND (
        NEW.soak_started_at IS NULL
        OR NEW.done_at < NEW.soak_started_at
            + NEW.soak / (SELECT time_scale FROM migrations_app_plan WHERE id = NEW.plan_id)
    ) THEN
        RAISE EXCEPTION 'week %: it cannot be done before its soak is over', NEW.number
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER week_changes_state BEFORE UPDATE ON migrations_app_week
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION switchyard_week_changes_state();
"""
STATES_BACK = """
DROP TRIGGER week_changes_state ON migrations_app_week;
DROP FUNCTION switchyard_week_changes_state();
"""


class Migration(migrations.Migration):
    dependencies = [("migrations_app", "0006_done_criteria")]

    operations = [
        migrations.RemoveField(model_name="week", name="done_when"),
        migrations.RunSQL(STATES, STATES_BACK),
    ]
