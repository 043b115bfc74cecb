from django.apps import AppConfig
from django.db.models.signals import post_migrate


class MigrationsAppConfig(AppConfig):
    name = "migrations_app"
    verbose_name = "Switchyard"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from .roles import create_groups

        # After Django's own receiver, which creates the permissions that the groups get.
        post_migrate.connect(create_groups, sender=self, dispatch_uid="switchyard-roles")
