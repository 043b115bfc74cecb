"""`manage.py demo_accounts`: an account for each role, for demonstrations on one machine only."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from migrations_app.roles import Role


class Command(BaseCommand):
    help = "Create one account for each role with the password in DEMO_PASSWORD, and print them."

    def handle(self, *_args: Any, **_options: Any) -> None:
        if settings.PRODUCTION:
            raise CommandError("Demo accounts are not created in production.")
        password = os.environ.get("DEMO_PASSWORD", "")
        if not password:
            raise CommandError("DEMO_PASSWORD is not set; give the accounts a password.")
        with transaction.atomic():
            for role in Role:
                name = role.value.replace(" ", "-")
                user, created = User.objects.get_or_create(username=name)
                if created or not user.check_password(password):
                    user.set_password(password)
                    user.save(update_fields=["password"])
                user.groups.set([Group.objects.get(name=role.value)])
                self.stdout.write(f"account  {name:<16}  password  {password}")
