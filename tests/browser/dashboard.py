"""The dashboard as a process of its own, for browsers: uvicorn, and the reconcile loop of a worker beside it.

Run as `python -m tests.browser.dashboard PORT` with the settings in the environment. The loop lives in the same process
because the in-process gateway does.
"""

from __future__ import annotations

import os
import sys
import threading
import time

import uvicorn


def main(port: int) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    from controlplane.asgi import application

    threading.Thread(target=_reconcile, daemon=True).start()
    uvicorn.run(application, host="127.0.0.1", port=port, log_level="warning", lifespan="off")


def _reconcile() -> None:
    from django.db import DatabaseError, connection

    from migrations_app.reconcile.loop import reconcile_all

    while True:
        try:
            reconcile_all()
        except DatabaseError:
            # Between two tests the database is emptied under the loop's feet.
            connection.close()
        time.sleep(0.5)


if __name__ == "__main__":
    main(int(sys.argv[1]))
