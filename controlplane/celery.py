"""The Celery application. Beat asks, workers do; `migrations_app/tasks.py` has the tasks."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import task_prerun, worker_process_init

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")

app = Celery("controlplane")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["migrations_app"])


@task_prerun.connect  # type: ignore[untyped-decorator]  # Celery ships no types
def _renew_connections(**_: Any) -> None:
    """Keep the connection to PostgreSQL from task to task, and drop one that is old or broken, as requests do."""
    from django.db import close_old_connections

    close_old_connections()


@worker_process_init.connect  # type: ignore[untyped-decorator]  # Celery ships no types
def _warm_up(**_: Any) -> None:
    """Connect and load before the first task, so that no click waits for it."""
    from migrations_app.tasks import warm_up

    from .garbage import settle

    warm_up()
    settle()
