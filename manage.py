#!/usr/bin/env python3
"""Django's command line; runs itself in the repository's virtual environment when started outside it."""

import os
import sys
from pathlib import Path

VENV_PYTHON = Path(__file__).resolve().parent / ".venv" / "bin" / "python"

# Django's own ways past the roles and the audit log, and what does it here.
OURS = {"createsuperuser": "account add NAME administrator", "changepassword": "account password NAME"}


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] in OURS:
        sys.exit(f"{sys.argv[1]} leaves no event in the audit log. Use: manage.py {OURS[sys.argv[1]]}")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    try:
        from django.core.management import execute_from_command_line
    except ImportError:
        # `python3 manage.py ...` in a second terminal, with the environment not activated.
        if VENV_PYTHON.exists() and Path(sys.prefix) != VENV_PYTHON.parent.parent:
            os.execv(VENV_PYTHON, [str(VENV_PYTHON), *sys.argv])  # noqa: S606
        sys.exit("Django is not installed here. Run `make up` or `make demo` once: it creates .venv with everything.")
    from django.core.exceptions import ImproperlyConfigured

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"Not started: {error}")
    except BrokenPipeError:
        # `manage.py flag list | head`: whoever read has read enough. Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
