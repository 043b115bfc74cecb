"""The database also lets no flag begin on the new side, or be given to another service there, past the gate."""

from django.db import migrations

# The first load of a plan (revision 0) says where traffic already is; from then on a weight rises through a gate alone.
BEGIN_OFF = """
CREATE FUNCTION switchyard_flag_begins_off() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' AND (SELECT revision FROM migrations_app_plan WHERE id = NEW.plan_id) = 0 THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'flag %: no open gate vouches for a weight of % there', NEW.key, NEW.weight
        USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER flag_begins_off BEFORE INSERT ON migrations_app_flag
    FOR EACH ROW WHEN (NEW.weight > 0) EXECUTE FUNCTION switchyard_flag_begins_off();
CREATE TRIGGER flag_keeps_its_service BEFORE UPDATE ON migrations_app_flag
    FOR EACH ROW WHEN (NEW.weight > 0 AND (NEW.key, NEW.service_id) IS DISTINCT FROM (OLD.key, OLD.service_id))
    EXECUTE FUNCTION switchyard_flag_begins_off();
"""
BEGIN_OFF_BACK = """
DROP TRIGGER flag_begins_off ON migrations_app_flag;
DROP TRIGGER flag_keeps_its_service ON migrations_app_flag;
DROP FUNCTION switchyard_flag_begins_off();
"""


class Migration(migrations.Migration):
    dependencies = [("migrations_app", "0002_guards")]

    operations = [migrations.RunSQL(BEGIN_OFF, BEGIN_OFF_BACK)]
