"""What must be done in Django before the product starts: `python -m controlplane.embedded.setup up|demo`.

Every step can be repeated. One process, because each start of Django costs half a second.
"""

from __future__ import annotations

import os
import sys
from io import StringIO
from pathlib import Path

import django
from django.core.management import call_command

from controlplane.embedded.installation import ACCOUNTS_FILE

PLAN = "plans/tracseq-phase2.yaml"


def main(mode: str) -> None:
    django.setup()
    call_command("migrate", verbosity=0, interactive=False)
    if mode == "demo":
        call_command("plan", "load", PLAN, "--actor", "demo")
        accounts = StringIO()
        call_command("demo_accounts", stdout=accounts)
        path = Path(os.environ["STATE_DIR"]) / ACCOUNTS_FILE
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(accounts.getvalue())


if __name__ == "__main__":
    main(sys.argv[1])
