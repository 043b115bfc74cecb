"""Promises that the database itself keeps: an append-only audit log, and no flag up without an open gate."""

from django.db import migrations

APPEND_ONLY = """
CREATE FUNCTION switchyard_audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only: % refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER audit_rows_stay BEFORE UPDATE OR DELETE ON migrations_app_auditevent
    FOR EACH ROW EXECUTE FUNCTION switchyard_audit_is_append_only();
CREATE TRIGGER audit_table_stays BEFORE TRUNCATE ON migrations_app_auditevent
    FOR EACH STATEMENT EXECUTE FUNCTION switchyard_audit_is_append_only();
"""
APPEND_ONLY_BACK = """
DROP TRIGGER audit_rows_stay ON migrations_app_auditevent;
DROP TRIGGER audit_table_stays ON migrations_app_auditevent;
DROP FUNCTION switchyard_audit_is_append_only();
"""

# A weight changes only at the plan's newest generation. It rises only when an audit event of that very generation says
# that the gate was open and that this flag goes to this weight.
GATE = """
CREATE FUNCTION switchyard_flag_moves_through_the_gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.weight = OLD.weight THEN
        RETURN NEW;
    END IF;
    IF NEW.generation <= OLD.generation
       OR NEW.generation <> (SELECT generation FROM migrations_app_plan WHERE id = NEW.plan_id) THEN
        RAISE EXCEPTION 'flag %: a changed weight needs the newest generation', NEW.key USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.weight > OLD.weight AND NOT EXISTS (
        SELECT 1 FROM migrations_app_auditevent
        WHERE generation = NEW.generation
          AND (verdict ->> 'open')::boolean
          AND (after ->> NEW.key)::int = NEW.weight
    ) THEN
        RAISE EXCEPTION 'flag %: no open gate vouches for a weight of %', NEW.key, NEW.weight
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER flag_moves_through_the_gate BEFORE UPDATE ON migrations_app_flag
    FOR EACH ROW EXECUTE FUNCTION switchyard_flag_moves_through_the_gate();

CREATE FUNCTION switchyard_generation_only_grows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.generation < OLD.generation THEN
        RAISE EXCEPTION 'plan %: generation % is lower than %', NEW.key, NEW.generation, OLD.generation
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER generation_only_grows BEFORE UPDATE ON migrations_app_plan
    FOR EACH ROW EXECUTE FUNCTION switchyard_generation_only_grows();
"""
GATE_BACK = """
DROP TRIGGER flag_moves_through_the_gate ON migrations_app_flag;
DROP FUNCTION switchyard_flag_moves_through_the_gate();
DROP TRIGGER generation_only_grows ON migrations_app_plan;
DROP FUNCTION switchyard_generation_only_grows();
"""


class Migration(migrations.Migration):
    dependencies = [("migrations_app", "0001_initial")]

    operations = [
        migrations.RunSQL(APPEND_ONLY, APPEND_ONLY_BACK),
        migrations.RunSQL(GATE, GATE_BACK),
    ]
