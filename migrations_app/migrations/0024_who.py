"""Through what somebody acted stands in the audit log; and no account has more than its roles give it."""

from django.db import migrations, models

# Django gives a superuser everything, whatever the backend says, and `createsuperuser` leaves no audit event.
ROLES_ALONE = """
UPDATE auth_user SET is_superuser = false WHERE is_superuser;
ALTER TABLE auth_user ADD CONSTRAINT nobody_is_superuser CHECK (NOT is_superuser);
"""
ROLES_ALONE_BACK = "ALTER TABLE auth_user DROP CONSTRAINT nobody_is_superuser;"


class Migration(migrations.Migration):
    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        ("migrations_app", "0023_writes_from"),
    ]

    operations = [
        migrations.AddField(
            model_name="auditevent",
            name="via",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="What acted in the actor's name, where that was no browser: token 7, shell root",
                max_length=150,
            ),
        ),
        migrations.RunSQL(ROLES_ALONE, ROLES_ALONE_BACK),
    ]
