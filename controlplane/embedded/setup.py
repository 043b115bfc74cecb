"""What must be done in Django before the product starts: `python -m controlplane.embedded.setup up|demo`.

Every step can be repeated. One process, because each start of Django costs half a second.
"""

from __future__ import annotations

import os
import sys
from io import StringIO
from pathlib import Path

import django
from django.core.management import CommandError, call_command

from controlplane.embedded.installation import ACCOUNTS_FILE

PLAN = "plans/tracseq-phase2.yaml"
TIME_SCALE = "3600"  # of the demo: a soak of 48 h takes 48 s


def main(mode: str) -> int:
    """Exit status 0 when all is done, 1 with the reasons when a step was refused."""
    django.setup()
    try:
        call_command("migrate", verbosity=0, interactive=False)
        if mode == "demo":
            _demo()
    except CommandError as problem:
        sys.stdout.write(f"{problem}\n")
        return 1
    return 0


def _plan() -> str:
    """The shipped plan; with GATEWAYS_EXTRA a copy of it in the state folder that names the further gateways."""
    from django.conf import settings

    from migrations_app.planfile.reader import read_path
    from migrations_app.planfile.writer import write

    plan = read_path(Path(PLAN))
    if not settings.GATEWAYS or isinstance(plan, list):
        return PLAN
    gateway = plan.gateway.model_copy(update={"instances": (plan.gateway.key, *settings.GATEWAYS)})
    path = Path(os.environ["STATE_DIR"]) / "plan.yaml"
    path.write_text(write(plan.model_copy(update={"gateway": gateway})), encoding="utf-8")
    return str(path)


def _demo() -> None:
    changes = StringIO()
    call_command("plan", "load", _plan(), "--time-scale", TIME_SCALE, "--actor", "demo", stdout=changes)
    sys.stdout.write(f"{PLAN}: {len(changes.getvalue().splitlines())} lines of changes loaded\n")
    accounts = StringIO()
    call_command("demo_accounts", stdout=accounts)
    path = Path(os.environ["STATE_DIR"]) / ACCOUNTS_FILE
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(accounts.getvalue())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
