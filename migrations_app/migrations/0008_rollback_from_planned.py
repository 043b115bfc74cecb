"""A week can be rolled back though this database never saw it start.

A plan may be first loaded with services that already are on the new side, and a gateway may carry more than a database
that was restored from a backup knows of. The rollback of either must not be refused.
"""

from django.db import migrations

STATES = """
CREATE OR REPLACE FUNCTION switchyard_week_changes_state() RETURNS trigger LANGUAGE plpgsql AS $$
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
"""
STATES_BEFORE = """
CREATE OR REPLACE FUNCTION switchyard_week_changes_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.status, NEW.status) NOT IN (
        ('planned', 'in_progress'), ('planned', 'soaking'),
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
"""


class Migration(migrations.Migration):
    dependencies = [("migrations_app", "0007_week_states")]

    operations = [migrations.RunSQL(STATES, STATES_BEFORE)]
